"""The wheel holds what the folders hold; an editable install would hide what is missing from it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from little import environment

import sparring
import sparring.adapters

ROOT = Path(__file__).parents[1]
FOLDERS = ("sparring", "adapters", "models", "suites")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: what an earlier build left beside the tree must not get in
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_every_file_of_the_tree(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    own = {str(path) for path in files if path.suffix != ".pyc"}
    assert inside == {path if path.startswith("sparring/") else f"sparring/{path}" for path in own}


def test_the_quickstart_runs_from_an_installed_wheel_in_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True)

    def python(*words):
        done = subprocess.run(
            [sys.executable, *words], cwd=empty, env=environment(site), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    places = "import sparring, sparring.models, sparring.suites.cli.app as app; print(sparring.__file__, app.__file__)"
    assert python("-c", places).split() == [
        str(site / "sparring" / "__init__.py"),
        str(site / "sparring/suites/cli/app.py"),
    ]
    smoke = ["--set", "data.samples=20", "--set", "attacks=[{attack: fgsm, eps: 0.1}]", "--device", "cpu"]
    out = python("-m", "sparring", "run", "quickstart", *smoke)
    assert "fgsm" in out
    assert (empty / "runs" / "quickstart" / "results.csv").is_file()
    assert python("-m", "sparring", "report", "runs/quickstart")


def test_nothing_is_loaded_before_it_is_used():
    code = "import sys, sparring; print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before = subprocess.run(
        [sys.executable, "-c", code.replace(", sparring", "")], capture_output=True, text=True, check=True
    )
    assert sorted({*eval(done.stdout)} - {*eval(before.stdout)}) == ["sparring"]


def test_every_public_name_is_there():
    assert {name for name in sparring.__all__ if getattr(sparring, name) is None} == set()
    assert sparring.wrap is sparring.adapters.wrap
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        _ = sparring.atack


def test_no_module_is_imported_by_its_bare_name():
    code = (
        "import sparring.adapters, sparring.models, sparring.suites.cli.app, sys;"
        "print([name for name in ('adapters', 'models', 'suites') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    assert done.stdout.strip() == "[]"
