"""The wheel holds what the folders hold; an editable install would hide what is missing from it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("adapters", "models", "suites")


def test_the_wheel_has_every_file_of_the_tree(tmp_path):
    source = tmp_path / "source"  # a copy: what an earlier build left beside the tree must not get in
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = {
        f"sparring/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".txt", ".typed", ".safetensors", ".npz", ".j2", ".css", ".js")
    }
    assert inside == tree


def test_no_module_is_imported_by_its_bare_name():
    code = (
        "import sparring.adapters, sparring.models, sparring.suites.cli.app, sys;"
        "print([name for name in ('adapters', 'models', 'suites') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    assert done.stdout.strip() == "[]"
