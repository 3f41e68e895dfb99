"""The defense that docs/defenses.md adds is added as it says there; what it lists is what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from little import SPARRING, environment
from models_for_tests import cnn, images

from sparring.models.defenses.shipped import WRAPPERS

TEXT = (Path(__file__).parents[1] / "docs" / "defenses.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def package(tmp_path):
    """The documented package, installed as Python sees it: a module with its metadata beside it."""
    code, _ = blocks("python")
    (points,) = blocks("toml")
    (tmp_path / "my_defenses.py").write_text(code)
    metadata = tmp_path / "my_defenses-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-defenses\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points.replace('[project.entry-points."', "[").replace('"', ""))
    return tmp_path


def test_the_documented_defense_is_run_by_its_name_and_by_its_place(package) -> None:
    (package / "mine.yaml").write_text(
        "name: mine\ndata: {name: digits, samples: 20}\n"
        "models:\n  - {name: m, architecture: cnn, framework: torch, train: {epochs: 1}}\n"
        "defenses: [{defense: fade, contrast: 0.5}, 'my_defenses:FADE']\n"
        "attackers: [aware]\nlibraries: [torchattacks]\nattacks:\n  - {attack: fgsm, eps: 0.1}\n"
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
    rows = pd.read_csv(package / "out" / "results.csv", keep_default_na=False)
    assert list(rows["defense"]) == ["fade(contrast=0.5)", "my_defenses:FADE"]
    assert list(rows["attacker"]) == ["aware", "aware"]
    assert set(rows["status"]) == {"done"}
    by_name, by_place = (np.load(file)["x_adv"] for file in sorted((package / "out").glob("cells/*/images.npz")))
    np.testing.assert_array_equal(by_name, by_place)
    assert np.abs(by_name - 0.5).max() > 0.4


def test_the_documented_check_passes() -> None:
    code, check = blocks("python")
    names: dict[str, object] = {"my_classifier": cnn()}
    exec(compile(code, "docs/defenses.md", "exec"), names)
    exec(compile(check, "docs/defenses.md", "exec"), names)
    x = images()
    np.testing.assert_allclose(names["mine"].logits(x), cnn().logits(0.25 + 0.5 * x), atol=1e-5)  # type: ignore[attr-defined]


def test_the_table_has_every_wrapper_with_its_defaults_and_its_gradients() -> None:
    lines = TEXT.partition("## Wrappers")[2].partition("##")[0].splitlines()
    rows = {cells[1].strip(" `"): cells for line in lines if (cells := line.split("|"))[1:]}
    for one in WRAPPERS:
        cells = rows[one.name]
        assert cells[4].strip().split(",")[0] == one.gradients
        for name, parameter in one.parameters.items():
            if name not in ("gradients", "draws"):
                said = re.search(rf"`{name}` ([\d.]+)", cells[3])
                assert said, (one.name, name)
                assert float(said[1]) == parameter.default
