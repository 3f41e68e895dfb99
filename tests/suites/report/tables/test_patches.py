"""A small real run of patches: every share by hand from the stored images, its tables and its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.libraries.own.patch_placement import Range, paste, place
from sparring.adapters.parameters import REQUIRED
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import is_prepared
from sparring.suites import load_suite, run
from sparring.suites.plan.file import home
from sparring.suites.report.figures.all import svg
from sparring.suites.report.figures.patches import patches as figures
from sparring.suites.report.study import Study
from sparring.suites.report.tables.patches import patches, transfer
from sparring.suites.results import store

TRAIN = {"epochs": 3, "seed": 0, "samples": 400}
SHORT = {"steps": 20, "target": "3"}
SUITE = {
    "name": "patches",
    "data": {"name": "digits", "samples": 48, "fit": 32},
    "models": [
        {"name": "cnn", "architecture": "cnn", "framework": "torch", "train": TRAIN},
        {"name": "dnn", "architecture": "dnn", "framework": "torch", "train": TRAIN},
    ],
    "transfer": {"attacks": ["patch"], "surrogates": ["cnn"], "targets": ["cnn", "dnn"]},
    "attacks": [
        {"attack": "patch", "size": [2, 6], "libraries": ["sparring"], **SHORT},
        {"attack": "patch", "size": 6, "libraries": ["art"], **SHORT},
        {"attack": "none", "libraries": ["sparring"]},
    ],
    "batch_size": 20,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(SUITE, out=tmp_path_factory.mktemp("patches") / "run", device="cpu")


@pytest.fixture(scope="module")
def study(done):
    return Study.open(done.folder)


@pytest.fixture(scope="module")
def opened():
    suite = load_suite(SUITE)
    return {
        spec.name: open_model(is_prepared(spec, data=suite.data, base=home(SUITE)), device="cpu")
        for spec in suite.models
    }


def test_every_share_by_hand_from_the_stored_images(done, opened) -> None:
    rows = pd.read_parquet(done.folder / "results.parquet")
    rows = rows[rows["attack"] == "patch"]
    assert rows["status"].tolist() == ["done"] * 3
    for _, row in rows.iterrows():
        stored = store.read(done.folder, row["cell_id"], images=True).arrays
        others = stored["y"] != 3
        assert row["target"] == "3"
        assert (stored["target"] == 3).all()
        logits = opened[row["model"]].logits(np.array(stored["x_adv"]))
        for scores in (logits, stored["logits_adv"]):
            best = np.argsort(-scores, axis=1)[others]
            assert row["target_top1"] == pytest.approx((best[:, 0] == 3).mean())
            assert row["target_top5"] == pytest.approx((best[:, :5] == 3).any(axis=1).mean())


def test_the_stored_pictures_are_the_clean_ones_with_the_stored_patch(done) -> None:
    rows = pd.read_parquet(done.folder / "results.parquet")
    mine = rows[(rows["library"] == "sparring") & (rows["attack"] == "patch")]
    assert len(mine) == 2
    for _, row in mine.iterrows():
        stored = store.read(done.folder, row["cell_id"], images=True).arrays
        params = json.loads(row["params"])
        where = Range(params["size"], False, params["rotation"], (params["scale_min"], params["scale_max"]))
        places = [place(one, where, 8, 8) for one in stored["extra_placement"]]
        assert stored["extra_patch"].shape == (1, params["size"], params["size"])
        np.testing.assert_allclose(paste(np.array(stored["x"]), stored["extra_patch"], places), stored["x_adv"])


def test_the_table(done, study) -> None:
    table, order = patches(study)
    rows = pd.read_parquet(done.folder / "results.parquet")
    frame = table.frame
    assert frame[["model", "library", "size"]].to_numpy().tolist() == [
        ["cnn", "sparring", 2],
        ["cnn", "sparring", 6],
        ["cnn", "art", 6],
    ]
    for _, line in frame.iterrows():
        sizes = rows["params"].map(lambda text: json.loads(text).get("size"))
        mine = rows[(rows["model"] == line["model"]) & (rows["library"] == line["library"]) & (sizes == line["size"])]
        stored = store.read(done.folder, mine["cell_id"].item()).arrays
        others = stored["y"] != 3
        assert line["images"] == others.sum()
        assert line["already"] == pytest.approx((stored["pred_clean"][others] == 3).mean())
        assert line["top1"] == mine["target_top1"].item()
        assert line["top1_low"] < line["top1"] or line["top1"] == 0
    assert order.frame[["from", "to", "stronger"]].to_numpy().tolist() == [[2, 6, "yes"]]
    own = frame[frame["library"] == "sparring"].set_index("size")["top1"]
    assert order.frame["more"].item() == pytest.approx(own[6] - own[2])
    assert 0 < order.frame["more_low"].item() < order.frame["more_high"].item()


def test_on_other_networks(done, study, opened) -> None:
    (table,) = transfer(study)
    rows = pd.read_parquet(done.folder / "results.parquet")
    cells = rows[(rows["model"] == "cnn") & (rows["attack"] == "patch")]
    assert len(table.frame) == len(cells) == 3
    for (_, line), (_, cell) in zip(table.frame.iterrows(), cells.iterrows(), strict=True):
        stored = store.read(done.folder, cell["cell_id"], images=True).arrays
        decided = {name: model.logits(np.array(stored["x_adv"])).argmax(axis=1) for name, model in opened.items()}
        assert (line["made on"], line["target"], line["library"]) == ("cnn", "3", cell["library"])
        assert line["cnn"] == pytest.approx((decided["cnn"] == 3).mean())
        assert line["others"] == line["dnn"] == pytest.approx((decided["dnn"] == 3).mean())


def test_the_figures(study) -> None:
    drawn = {figure.name: svg(figure) for figure in figures(study)}
    assert list(drawn) == [
        "patches-digits-cnn-sparring",
        "patched-digits-cnn-sparring",
        "patches-digits-cnn-art",
        "patched-digits-cnn-art",
        "patch-size-digits",
    ]
    assert drawn["patches-digits-cnn-sparring"].count("<image") == 2
    assert "6 px: " in drawn["patches-digits-cnn-art"]
    examples = drawn["patched-digits-cnn-sparring"]
    assert examples.count("before: ") == examples.count("<image") == 3


def test_the_documented_suite_is_valid() -> None:
    text = (Path(__file__).parents[4] / "docs" / "patches.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (asked,) = load_suite(yaml.safe_load(block)).attacks
    assert [one.params["size"] for one in asked.requests()] == [32, 48, 64]
    assert asked.targets == ("toaster", "piggy bank")
    for name, parameter in find("patch").parameters.items():
        (line,) = [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert parameter.default is REQUIRED or str(parameter.default).lower() in line
