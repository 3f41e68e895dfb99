"""What the documents show is run as they show it."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from little import SPARRING, environment

from sparring import checks_for, load_suite, wrap

ROOT = Path(__file__).parents[1]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)


def test_the_readmes_lines_of_python_attack_ones_own_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = np.random.default_rng(0).uniform(0, 1, (6, 3, 32, 32)).astype(np.float32)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 5))
    np.save("x.npy", x)
    np.save("y.npy", module((torch.tensor(x) - 0.5) / 0.5).argmax(1).numpy())
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {"my_module": module})
    assert np.abs(np.load("x_adv.npy") - x).max() <= 8 / 255 + 1e-6
    assert "success" in capsys.readouterr().out


def test_the_readmes_suite_is_valid():
    (text,) = blocks("README.md", "yaml")
    suite = load_suite(yaml.safe_load(text), profile="smoke")
    assert suite.data.samples == 20


def test_the_readme_names_no_command_that_is_not_there():
    from sparring.suites.cli.app import app

    commands = set(re.findall(r"sparring ([a-z]+)\b", " ".join(blocks("README.md", "sh"))))
    assert commands >= {"run", "agree", "explain"}
    assert commands <= {command.name for command in app.registered_commands}


@pytest.fixture
def package(tmp_path):
    """The documented package, installed as Python sees it: a module with its metadata beside it."""
    code, _ = blocks("docs/extending.md", "python")
    (points,) = blocks("docs/extending.md", "toml")
    (tmp_path / "my_package.py").write_text(code)
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = points.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    (metadata / "entry_points.txt").write_text(lines)
    return tmp_path


def test_the_documented_package_adds_a_model_data_an_attack_and_a_library(package):
    (package / "mine.yaml").write_text(
        "name: mine\ndata: {name: stripes, samples: 50}\n"
        "models:\n  - {name: t, architecture: tiny(dropout=0.1), framework: torch, train: {epochs: 5}}\n"
        "libraries: [mine, art]\nattacks:\n  - {attack: black-out, eps: 0.5}\n"
    )
    done = subprocess.run(
        [*SPARRING, "run", "mine.yaml", "--out", "out"],
        cwd=package,
        env=environment(package, SPARRING_CACHE=str(package / "cache")),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(package / "out" / "results.csv").set_index("library")
    assert rows.loc["mine", "status"] == "done"
    assert rows.loc["mine", "clean_accuracy"] > 0.9
    assert rows.loc["mine", "forwards"] == 1
    assert rows.loc["art", "status"] == "unsupported"


def test_the_documented_three_lines_check_a_classifier():
    _, code = blocks("docs/extending.md", "python")
    classifier = wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)), input_shape=(3, 4, 4))
    names: dict[str, object] = {"my_classifier": classifier}
    exec(compile(code, "docs/extending.md", "exec"), names)
    for check in checks_for(classifier):
        names["test_conformance"](check)  # type: ignore[operator]
