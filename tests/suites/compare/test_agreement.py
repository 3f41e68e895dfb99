"""Agreement as a maintainer asks for it: a suite or a finished run, own copies of a library, a ledger gone stale."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparring.adapters.attacks.library import load_library
from sparring.adapters.errors import InputError
from sparring.adapters.libraries import ledger
from sparring.adapters.libraries.ledger import Entry
from sparring.suites import run
from sparring.suites.compare import table as agreement_table
from sparring.suites.compare.agree import agree
from sparring.suites.compare.agreement import COLUMNS, measure, verified, with_referee
from sparring.suites.plan.file import load_suite

HELPERS = str(Path(__file__).parents[2] / "helpers")
SUITE = """\
name: pairs
data: {name: digits, samples: 12}
models:
  - {name: net, architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}}
  - {name: file, export: net}
libraries: [art, torchattacks]
attacks:
  - {attack: fgsm, eps: 0.1}
  - {attack: square, eps: 0.2, queries: 10, libraries: [art, torchattacks]}
"""


def entry(**more: Any) -> Entry:
    values = {
        "id": "invented",
        "attacks": ["fgsm linf"],
        "libraries": {"art": ">=0"},
        "always": True,
        "cause": "a cause",
        "where": {"art": "w"},
        "effect": "e",
        "reconciliation": "r",
    }
    return Entry.model_validate({**values, **more})


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("agreed")
    (folder / "pairs.yaml").write_text(SUITE)
    return agree(str(folder / "pairs.yaml"), out=folder / "out")


def of(pairs: pd.DataFrame, attack: str) -> pd.DataFrame:
    return pairs[pairs["attack"] == attack]


def test_every_pair_of_libraries_routes_and_frameworks_is_there(agreed: Any) -> None:
    def party(row: Any, side: str) -> tuple[str, str, str]:
        return row[f"library_{side}"], row[f"framework_{side}"], row[f"route_{side}"]

    fgsm = {frozenset((party(row, "a"), party(row, "b"))) for _, row in of(agreed.pairs, "fgsm").iterrows()}
    # art and torchattacks by two routes, and the referee: 5 parties, and 3 on the file
    assert len(fgsm) == 8 * 7 / 2
    assert frozenset((("art", "torch", "native"), ("referee", "onnx", "bridged"))) in fgsm
    square = {frozenset((party(row, "a"), party(row, "b"))) for _, row in of(agreed.pairs, "square").iterrows()}
    assert len(square) == 8 * 7 / 2
    assert frozenset((("art", "torch", "native"), ("referee", "onnx", "bridged"))) in square
    assert set(agreed.pairs["model"]) == {"net"}


def test_the_libraries_fgsm_is_the_papers(agreed: Any) -> None:
    fgsm = of(agreed.pairs, "fgsm")
    assert set(fgsm["verdict"]) <= {"identical", "equal"}
    assert (fgsm["max_abs_diff"] <= 1e-6).all()
    assert agreed.disagreements == 0


def test_numbers_are_those_of_the_stored_images(agreed: Any) -> None:
    results = pd.read_parquet(agreed.folder / "results.parquet")
    square = of(agreed.pairs, "square")
    row = square[square["library_a"] != square["library_b"]].iloc[0]
    cells = []
    for side in "ab":
        keys = {"library": row[f"library_{side}"], "route": row[f"route_{side}"], "model": row[f"model_{side}"]}
        mask = (results["attack"] == "square") & np.logical_and.reduce([results[k] == v for k, v in keys.items()])
        (cell,) = results[mask]["cell_id"]
        cells.append(np.load(agreed.folder / "cells" / cell / "images.npz", allow_pickle=False))
    a, b = cells
    assert row["max_abs_diff"] == np.abs(a["x_adv"].astype(np.float64) - b["x_adv"]).max() > 0
    assert row["success_a"] == a["success"].mean()
    assert row["label_agreement"] == (a["pred_adv"] == b["pred_adv"]).mean()
    assert row["n"] == 12


def test_files_are_left_as_promised(agreed: Any) -> None:
    table = pd.read_csv(agreed.folder / "agreement.csv")
    assert list(table.columns) == list(COLUMNS)
    content = json.loads((agreed.folder / "agreement.json").read_text())
    assert len(content["pairs"]) == len(table) == len(agreed.pairs)
    assert content["rules"]["identical"]
    assert len(list((agreed.folder / "agreement").glob("*.svg"))) == 2


def test_a_finished_run_is_compared_as_it_is(agreed: Any, tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(SUITE)
    done = run(tmp_path / "pairs.yaml", out=tmp_path / "out")
    agreement = agree(str(done.folder))
    assert set(agreement.pairs["library_a"]) | set(agreement.pairs["library_b"]) == {"art", "torchattacks"}
    with pytest.raises(InputError, match="--reconcile"):
        agree(str(done.folder), reconcile=True)
    with pytest.raises(InputError, match="no results here"):
        agree(str(tmp_path))


def test_tables_show_the_same_verdicts_in_every_format(agreed: Any) -> None:
    for form in ("md", "csv", "json"):
        text = agreement_table.render(agreed, form)
        assert "fgsm" in text
    sheet = agreement_table.make(agreed)
    assert sheet.texts.loc["fgsm (eps=0.1)", "art – torchattacks"].split()[0] in ("identical", "equal")
    assert f"{len(agreed.pairs)} pairs" in sheet.summary


def test_an_entry_whose_difference_is_gone_is_stale(agreed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparring.adapters.libraries.ledger.entries", lambda: {"invented": entry()})
    monkeypatch.setattr("sparring.suites.compare.agreement.entries", lambda: {"invented": entry()})
    assert measure(agreed.folder).stale == ("invented",)
    for quiet in ({"always": False}, {"libraries": {"art": "<0.1"}}, {"when": {"eps": 0.2}}, {"attacks": ["bim linf"]}):
        monkeypatch.setattr(
            "sparring.adapters.libraries.ledger.entries", lambda quiet=quiet: {"invented": entry(**quiet)}
        )
        monkeypatch.setattr(
            "sparring.suites.compare.agreement.entries", lambda quiet=quiet: {"invented": entry(**quiet)}
        )
        assert measure(agreed.folder).stale == ()


def test_the_referee_joins_where_it_can() -> None:
    suite = with_referee(load_suite({**_content(), "attacks": [*_content()["attacks"], _noise()]}))
    assert suite.libraries == ("art", "torchattacks", "referee")
    assert suite.attacks[1].libraries == ("art", "torchattacks", "referee")
    assert suite.attacks[2].libraries == ("foolbox",)
    assert with_referee(suite) == suite
    assert with_referee(suite, reconcile=True).reconcile


def test_the_ledger_names_a_difference_only_where_one_side_has_it() -> None:
    restricted = entry(when={"eps": ">0.05"})
    assert restricted.applies("fgsm", "linf", {"eps": 0.1}, "art", "1.20")
    assert not restricted.applies("fgsm", "linf", {"eps": 0.05}, "art", "1.20")
    assert not restricted.applies("fgsm", "linf", {"eps": 0.1}, "foolbox", "3")
    assert ledger.habits("fgsm", "linf", {"eps": 0.1}, "nobody", "1") == ()


def _content() -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(SUITE))


def _noise() -> dict[str, Any]:
    return {"attack": "uniform-noise", "eps": 0.1, "libraries": ["foolbox"]}


def command(sparring: Any, tmp_path: Path, *words: str) -> Any:
    (tmp_path / "pairs.yaml").write_text(SUITE)
    model = "models=[{name: net, architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}}]"
    attack = "attacks=[{attack: fgsm, eps: 0.1}]"
    return sparring("agree", "pairs.yaml", "--set", model, "--set", attack, *words, PYTHONPATH=HELPERS)


def test_a_working_copy_that_is_the_same_agrees(sparring: Any, tmp_path: Path) -> None:
    done = command(sparring, tmp_path, "--set", "libraries=[torchattacks, 'working_copies:SAME']", "--format", "json")
    assert done.returncode == 0, done.stderr
    pairs = json.loads(done.stdout)["pairs"]
    assert {pair["library_b"] for pair in pairs} == {"torchattacks", "working_copies:SAME", "referee"}


def test_a_working_copy_with_another_step_is_unexplained_and_fails(sparring: Any, tmp_path: Path) -> None:
    done = command(sparring, tmp_path, "--set", "libraries=[torchattacks, 'working_copies:LONGER']")
    assert done.returncode == 1, done.stderr
    output = " ".join(done.stdout.split())
    parties = r"torchattacks torch \w+ – working_copies:LONGER torch \w+ \(and 3 more of their routes and frameworks\)"
    assert re.search(rf"unexplained: fgsm \(eps=0.1\): {parties}: max \|Δ\| 0.0083", output)


def test_a_library_that_crashes_fails_and_is_named(sparring: Any, tmp_path: Path) -> None:
    done = command(sparring, tmp_path, "--set", "libraries=[art, 'working_copies:BROKEN']")
    assert done.returncode == 1
    assert "working_copies:BROKEN: " in done.stdout
    assert "NoSuchAttack" in done.stdout


def test_bad_input_is_one_message(sparring: Any, tmp_path: Path) -> None:
    done = sparring("agree", "no-such-suite")
    assert done.returncode == 2
    assert "unknown suite" in done.stderr
    done = command(sparring, tmp_path, "--format", "html")
    assert done.returncode == 2
    assert "json" in done.stderr


def test_a_failure_is_explained_where_its_cause_taken_away_it_is_gone(agreed: Any) -> None:
    pairs = agreed.pairs[agreed.pairs["attack"] == "fgsm"].copy()
    pairs[["verdict", "ledger_id", "reason"]] = ["failed", "momentum-of-signs", "art: it raised"]
    checked = verified(replace(agreed, pairs=pairs), agreed)
    assert set(checked.pairs["verdict"]) == {"explained"}
    assert set(checked.pairs["reason"]) == {"art: it raised"}
    still = agreed.pairs.assign(verdict="failed")
    checked = verified(replace(agreed, pairs=pairs), replace(agreed, pairs=still))
    assert set(checked.pairs["verdict"]) == {"failed"}
    assert checked.disagreements == len(pairs)


def test_a_working_copy_has_the_habits_of_its_original() -> None:
    copy = load_library("art")
    assert ledger.ledger_name(replace(copy, name="working-copy")) == "art"
    assert ledger.ledger_name(replace(copy, name="mine", package="numpy")) == "mine"


def test_pairs_are_of_one_data_set_defense_and_attacker(agreed: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(agreed.folder, tmp_path / "run")
    frame = pd.read_parquet(agreed.folder / "results.parquet").assign(defense="none", attacker="")
    parts = [frame, frame.assign(dataset="other")]
    parts += [frame.assign(defense="blur", attacker=who) for who in ("unaware", "aware")]
    pd.concat(parts, ignore_index=True).to_parquet(tmp_path / "run" / "results.parquet", index=False)
    agreement = measure(tmp_path / "run")
    assert len(agreement.pairs) == 4 * len(agreed.pairs)
    sizes = agreement.pairs.groupby(["dataset", "defense", "attacker"]).size()
    assert dict(sizes) == dict.fromkeys(
        [("digits", "none", ""), ("other", "none", ""), ("digits", "blur", "unaware"), ("digits", "blur", "aware")],
        len(agreed.pairs),
    )
    rows = agreement_table.make(agreement).texts.index
    assert len(rows) == 4 * len(agreement_table.make(agreed).texts.index)
    assert "fgsm (eps=0.1), digits, blur, aware" in rows
