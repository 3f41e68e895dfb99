"""Small samples out of a large one: recomputed from the stored arrays, and on a run whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from study_run import write_study

from sparring.adapters.errors import InputError
from sparring.suites.plan.file import load_suite
from sparring.suites.report.study import Study
from sparring.suites.report.tables import all as study_tables

SIZES, COUNT = (5, 10, 20), 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("draws")
    write_study(folder)
    _asked(folder, {"sizes": [20, 5, 10], "count": COUNT})
    return folder


def _asked(folder, draws):
    told = json.loads((folder / "manifest.json").read_text())
    told["suite"]["draws"] = draws
    (folder / "manifest.json").write_text(json.dumps(told))


def test_each_size_is_mean_and_deviation_over_draws_of_other_images(run):
    table = study_tables.find(Study.open(run), "draws").frame
    results = pd.read_parquet(run / "results.parquet")
    assert list(dict.fromkeys(table["images"])) == list(SIZES)
    defense = "adversarial-training"
    asked = {"dataset": "gtsrb", "model": "rnn", "attack": "pgd", "library": "art", "defense": defense}
    cells = results[(results[list(asked)] == pd.Series(asked)).all(axis=1) & (results["status"] == "done")]
    assert len(cells) == 2
    stored = [np.load(run / "cells" / cell / "images.npz") for cell in cells["cell_id"]]
    for size in SIZES:
        row = table[(table[list(asked)] == pd.Series(asked)).all(axis=1) & (table["images"] == size)]
        for name, side in (("clean", "pred_clean"), ("attacked", "pred_adv")):
            # draw by draw, image by image, each seed for itself
            of_draws = []
            for k in range(COUNT):
                hits = [each[side][i] == each["y"][i] for each in stored for i in range(20 * k, 20 * k + size)]
                of_draws.append(sum(hits) / len(hits))
            assert row[name].item() == pytest.approx(np.mean(of_draws))
            deviation = np.sqrt(sum((value - np.mean(of_draws)) ** 2 for value in of_draws) / (COUNT - 1))
            assert row[f"{name}_deviation"].item() == pytest.approx(deviation)
        assert row["ratio"].item() == pytest.approx(row["attacked"].item() / row["clean"].item())


def test_the_same_images_of_everything_that_is_attacked(run):
    """So that clean accuracies of one network are the same under all attacks."""
    table = study_tables.find(Study.open(run), "draws").frame
    for _, rows in table.groupby(["dataset", "model", "defense", "images"]):
        assert rows["clean"].nunique() == 1


def test_ratios_are_of_all_images(run):
    table = study_tables.find(Study.open(run), "ratios").frame
    results = pd.read_parquet(run / "results.parquet")
    keys = ["dataset", "model", "defense", "attack", "library"]
    row = table[table["attack"] == "fgsm eps=0.2"].iloc[0]
    keys = ["dataset", "model", "defense", "library", "attacker"]
    cells = results[(results[keys] == row[keys]).all(axis=1) & (results["attack"] == "fgsm") & (results["eps"] == 0.2)]
    assert len(cells) == 2
    assert row["attacked"] == pytest.approx(cells["robust_accuracy"].mean())
    assert row["ratio"] == pytest.approx(cells["robust_accuracy"].mean() / cells["clean_accuracy"].mean())


def test_a_size_that_the_sample_can_t_give_is_left_out(run, tmp_path):
    write_study(tmp_path, datasets=("mnist",), models=("cnn",), defenses={"none": ("",)}, n=55)
    with pytest.raises(InputError, match="draws"):
        study_tables.find(Study.open(tmp_path), "draws")
    _asked(tmp_path, {"sizes": [10, 20], "count": 3})
    frame = study_tables.find(Study.open(tmp_path), "draws").frame
    assert set(frame["images"]) == {10}


def test_a_suite_needs_images_for_its_draws():
    suite = {
        "name": "small",
        "data": {"name": "digits", "samples": 50},
        "models": [{"name": "a", "architecture": "cnn"}],
        "attacks": [{"attack": "fgsm", "eps": 0.1}],
        "draws": {"sizes": [10, 20], "count": 3},
    }
    with pytest.raises(InputError, match=r"draws: 3 draws of 20 other images each need 60 images"):
        load_suite(suite)
    assert load_suite({**suite, "data": {"name": "digits", "samples": 60}}).draws.count == 3
