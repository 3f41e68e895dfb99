"""The transfer matrix of a small run, recomputed here by hand from the stored images and the models themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import binomtest

from sparring.adapters.errors import InputError
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import is_prepared
from sparring.suites import load_suite, run
from sparring.suites.cli.transfer import transfer
from sparring.suites.plan.file import home
from sparring.suites.plan.plan import plan
from sparring.suites.runner.preparation import prepared
from sparring.suites.transfer.judge_cell import as_saved
from sparring.suites.transfer.matrix import check, matrix
from sparring.suites.transfer.same_function import families
from sparring.suites.transfer.table import remarks, render, sheet

TRAIN = {"epochs": 3, "seed": 0, "samples": 400}
SUITE = {
    "name": "travel",
    "data": {"name": "digits", "samples": 48},
    "models": [
        {"name": "cnn", "architecture": "cnn", "framework": "torch", "train": TRAIN},
        {"name": "dnn", "architecture": "dnn", "framework": "torch", "train": TRAIN},
        {"name": "cnn-onnx", "export": "cnn"},
        {"name": "both", "ensemble": ["cnn", "dnn"]},
        {"name": "both-onnx", "ensemble": ["cnn-onnx", "dnn"]},
        {"name": "vote", "ensemble": ["cnn", "dnn", "cnn-onnx"], "combine": "vote"},
    ],
    "transfer": {"surrogates": ["cnn", "dnn", "both", "vote"], "targets": ["cnn", "dnn", "cnn-onnx", "both", "vote"]},
    "libraries": ["foolbox"],
    "attacks": [
        {"attack": "fgsm", "eps": "32/255"},
        {"attack": "pgd", "norm": "linf", "eps": 0.15, "eps_step": "1.6/255", "steps": 40, "targeted": True},
    ],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("travel")
    return run(SUITE, out=folder / "run", device="cpu")


def models_of(suite) -> dict[str, ModelRef]:
    refs: dict[str, ModelRef] = {}
    for spec in suite.models:
        refs[spec.name] = is_prepared(spec, data=suite.data, base=home(SUITE), others=refs)
    return refs


@pytest.fixture(scope="module")
def opened(done):
    return {name: open_model(ref, device="cpu") for name, ref in models_of(load_suite(SUITE)).items()}


def test_every_number_by_hand_from_the_stored_images(done, opened) -> None:
    rows = pd.read_parquet(done.folder / "transfer.parquet")
    assert len(rows) == 4 * 5 * 2
    finished = rows[rows["status"] == "done"]
    assert len(finished) == 3 * 5 * 2
    for _, row in finished.iterrows():
        with np.load(done.folder / "cells" / row["cell_id"] / "images.npz", allow_pickle=False) as stored:
            x, adversarial, y, aim = (stored[name] for name in ("x", "x_adv", "y", "target"))
        surrogate, target = opened[row["surrogate"]], opened[row["target"]]
        right = target.logits(x).argmax(axis=1) == y
        both = right & (surrogate.logits(x).argmax(axis=1) == y)
        decided = target.logits(adversarial).argmax(axis=1)
        hit = decided == aim if row["targeted"] else decided != y
        saved = target.logits(from_png(adversarial)).argmax(axis=1)
        hit8 = saved == aim if row["targeted"] else saved != y
        assert (row["n"], row["n_correct"], row["n_target_correct"]) == (48, both.sum(), right.sum())
        assert row["target_clean_error"] == pytest.approx(1 - right.mean())
        for name, hits in (
            ("success_all", hit),
            ("success_on_correct", hit[both]),
            ("success_on_target_correct", hit[right]),
            ("success_8bit", hit8),
            ("success_8bit_on_correct", hit8[both]),
        ):
            interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
            assert row[name] == pytest.approx(hits.mean())
            assert row[f"{name}_low"] == pytest.approx(interval.low, abs=1e-9)
            assert row[f"{name}_high"] == pytest.approx(interval.high, abs=1e-9)


def from_png(images: np.ndarray) -> np.ndarray:
    """Through a real file."""
    import io

    restored = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(np.round(image[0] * 255).astype(np.uint8)).save(buffer, "png")
        restored.append(np.asarray(Image.open(buffer), np.float32)[None] / np.float32(255))
    return np.stack(restored)


def test_saving_is_what_a_png_file_does() -> None:
    x = np.random.default_rng(0).random((3, 1, 9, 9), np.float32)
    np.testing.assert_array_equal(as_saved(x), from_png(x))
    np.testing.assert_array_equal(as_saved(as_saved(x)), as_saved(x))


def test_the_matrix_has_something_to_say(done) -> None:
    """The diagonal is the strongest, the ensemble's images travel, and what can't be attacked says why."""
    rows = done.transfer.rows
    fgsm = rows[(rows["attack"] == "fgsm") & (rows["status"] == "done")].set_index(["surrogate", "target"])
    assert fgsm.loc[("cnn", "cnn"), "success_on_correct"] > fgsm.loc[("dnn", "cnn"), "success_on_correct"] > 0
    assert fgsm.loc[("both", "dnn"), "success_on_correct"] > fgsm.loc[("cnn", "dnn"), "success_on_correct"]
    assert set(rows.loc[rows["surrogate"] == "vote", "reason"]) == {
        f"{attack} needs gradients, and a majority vote only decides" for attack in ("fgsm", "pgd")
    }
    assert set(rows.loc[rows["target"] == "both", "target_framework"]) == {"torch"}
    assert set(rows.loc[rows["target"] == "vote", "target_framework"]) == {"torch+onnx"}


def test_two_runtimes_of_one_model_have_the_same_column(done) -> None:
    rows = done.transfer.rows
    assert set(rows.loc[rows["same_function"], ["surrogate", "target"]].itertuples(index=False, name=None)) == {
        ("cnn", "cnn"),
        ("cnn", "cnn-onnx"),
        ("dnn", "dnn"),
        ("both", "both"),
        ("vote", "vote"),
    }
    rates = rows[rows["status"] == "done"].pivot(index=["surrogate", "attack"], columns="target", values="success_all")
    pd.testing.assert_series_equal(rates["cnn"], rates["cnn-onnx"], check_names=False)
    assert done.transfer.deviations.empty
    assert len(done.transfer.runtimes) == 6
    assert any("runtimes of one model, one pair: they decide alike" in line for line in remarks(done.transfer))


def test_a_deviation_between_runtimes_is_reported(done, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done.folder, folder)
    suite = load_suite(SUITE)
    refs = models_of(suite)
    (path,) = (p for p in judged(folder, done, "cnn", "fgsm") if p.stem == key_of(refs["cnn-onnx"]))
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["pred_adv"][7] = (arrays["pred_adv"][7] + 1) % 10
    np.savez(path, **arrays)
    again = run(SUITE, out=folder, device="cpu")
    (row,) = again.transfer.deviations.to_dict("records")
    assert (row["target_a"], row["target_b"], row["differing"], row["images"]) == ("cnn", "cnn-onnx", 1, "7")
    assert any(line.startswith("DEVIATION: cnn and cnn-onnx are one model") for line in remarks(again.transfer))


def judged(folder: Path, done, surrogate: str, attack: str) -> list[Path]:
    rows = done.transfer.rows
    (cell,) = rows.loc[(rows["surrogate"] == surrogate) & (rows["attack"] == attack), "cell_id"].unique()
    return list((folder / "judged" / cell).iterdir())


def key_of(ref: ModelRef) -> str:
    from sparring.suites.transfer.judge_cell import target_key

    return target_key(ref)


def test_families() -> None:
    suite = load_suite(SUITE)
    identities = families(suite, models_of(suite))
    assert identities["cnn"] == identities["cnn-onnx"]
    assert identities["both"] == identities["both-onnx"]
    assert len({identities[name] for name in ("cnn", "dnn", "both", "vote")}) == 4


def test_another_target_runs_no_attack_again(done, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*") if path.is_file()}
    old = {path: path.stat().st_mtime_ns for path in (folder / "judged").rglob("*.npz")}
    wider = {**SUITE, "transfer": {**SUITE["transfer"], "targets": [*SUITE["transfer"]["targets"], "both-onnx"]}}
    again = run(wider, out=folder, device="cpu")
    assert again.computed == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*") if path.is_file()}
    new = {path: path.stat().st_mtime_ns for path in (folder / "judged").rglob("*.npz")}
    assert {path: new[path] for path in old} == old
    assert len(new) == len(old) + 6
    assert len(again.transfer.rows) == 4 * 6 * 2
    assert again.transfer.deviations.empty


def test_a_target_that_fails_is_rows_that_say_why(done, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done.folder, folder)
    shutil.rmtree(folder / "judged")
    suite = load_suite(SUITE)
    refs = models_of(suite)
    planned = plan(suite, done_data(suite), refs)
    cell = planned[0].cell.id
    failures = {
        (cell, "dnn"): ("failed", "dnn could not judge: it broke"),
        (cell, "both"): ("missing", "it was killed"),
    }
    transfer = matrix(suite, planned, refs, folder, failures)
    rows = transfer.rows[transfer.rows["cell_id"] == cell].set_index("target")
    assert (rows.loc["dnn", "status"], rows.loc["dnn", "reason"]) == ("failed", "dnn could not judge: it broke")
    assert (rows.loc["both", "status"], rows.loc["both", "reason"]) == ("missing", "it was killed")
    assert (rows.loc["cnn", "status"], rows.loc["cnn", "reason"]) == ("missing", "")
    assert transfer.failed


def done_data(suite):
    from sparring.models.data import datasets

    return datasets.load(suite.data, base=home(SUITE))


def test_asymmetry_and_means_follow_from_the_rows(done, opened) -> None:
    rows = done.transfer.rows.query("status == 'done' and attack == 'fgsm'").set_index(["surrogate", "target"])
    row = done.transfer.asymmetry.query("a == 'cnn' and b == 'dnn' and attack == 'fgsm'").iloc[0]
    assert row["success_a_to_b"] == pytest.approx(rows.loc[("cnn", "dnn"), "success_on_correct"])
    assert row["success_b_to_a"] == pytest.approx(rows.loc[("dnn", "cnn"), "success_on_correct"])
    assert row["difference"] == pytest.approx(row["success_a_to_b"] - row["success_b_to_a"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    mean = done.transfer.surrogates.query("surrogate == 'cnn' and attack == 'fgsm'").iloc[0]
    others = [rows.loc[("cnn", name), "success_on_correct"] for name in ("dnn", "both", "vote")]
    assert (mean["targets"], mean["mean_success_on_correct"]) == (3, pytest.approx(np.mean(others)))


def test_what_is_left_in_the_folder(done) -> None:
    assert {path.name for path in (done.folder / "transfer").iterdir()} == {
        "surrogates.csv",
        "asymmetry.csv",
        "runtimes.csv",
        "01-fgsm-foolbox.svg",
        "02-pgd-foolbox.svg",
    }
    csv = pd.read_csv(done.folder / "transfer.csv")
    assert list(csv.columns) == list(done.transfer.rows.columns)
    assert csv["success_all"].equals(done.transfer.rows["success_all"].astype(float))


def test_the_table_marks_the_diagonal_and_other_runtimes(done) -> None:
    texts = sheet(done.transfer).query("attack.str.startswith('fgsm')").set_index("surrogate → target")
    assert texts.loc["cnn", "cnn"].startswith("[")
    assert texts.loc["cnn", "cnn-onnx"].startswith("(")
    assert texts.loc["vote", "cnn"] == "–"
    assert json.loads(render(done.transfer, "json"))["rows"][0]["surrogate"] == "cnn"
    assert "clean error: cnn" in render(done.transfer, "md")
    assert r"\begin{tabular}" in render(done.transfer, "latex")


def test_a_suite_that_asks_for_no_matrix_gets_one_by_the_command() -> None:
    plain = {key: value for key, value in SUITE.items() if key != "transfer"}
    with pytest.raises(InputError, match=r"--targets: unknown model 'dn'.*dnn"):
        transfer(plain, targets="cnn,dn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transfer": {"targets": ["cn"]}}, r"transfer\.targets: unknown model 'cn'.*cnn"),
        ({"transfer": {"surogates": ["cnn"]}}, r"transfer\.surogates: unknown key 'surogates'.*surrogates"),
        (
            {"models": [*SUITE["models"], {"name": "e", "ensemble": ["cnn", "gone"]}]},
            "takes in 'gone', which is no model",
        ),
        ({"models": [*SUITE["models"], {"name": "e", "ensemble": ["cnn"]}]}, r"models\.6\.ensemble"),
        (
            {"models": [*SUITE["models"], {"name": "e", "ensemble": ["cnn", "dnn"], "framework": "torch"}]},
            "leave `framework`",
        ),
        ({"models": [{**SUITE["models"][0], "combine": "vote"}]}, "`combine` is for an `ensemble`"),
    ],
)
def test_typos_are_named(change, message) -> None:
    with pytest.raises(InputError, match=message):
        load_suite({**SUITE, **change})


def test_a_target_with_other_classes_than_the_surrogate(tmp_path) -> None:
    (tmp_path / "wide.py").write_text(
        "import torch\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12))\n"
    )
    suite = {
        **SUITE,
        "models": [SUITE["models"][0], {"name": "wide", "object": "wide:net"}],
        "transfer": {},
    }
    path = tmp_path / "wide.yaml"
    path.write_text(yaml.safe_dump(suite))
    with pytest.raises(
        InputError, match=r"wide\.yaml: transfer: the target cnn .* gives 10 classes, the surrogate wide .* 12"
    ):
        run(path, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_members_that_are_not_alike(tmp_path) -> None:
    (tmp_path / "wide.py").write_text(
        "import torch\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12))\n"
    )
    models = [SUITE["models"][0], {"name": "wide", "object": "wide:net"}, {"name": "e", "ensemble": ["cnn", "wide"]}]
    path = tmp_path / "wide.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "models": models, "transfer": {}}))
    with pytest.raises(InputError, match=r"models\.2 \(e\): ensemble: cnn takes .* gives 10 classes, wide .* gives 12"):
        run(path, out=tmp_path / "out", device="cpu")


def test_a_suite_without_a_matrix_is_as_before() -> None:
    suite = load_suite({key: value for key, value in SUITE.items() if key != "transfer"})
    assert (len(suite.attacked), suite.targets) == (6, ())
    check(suite, {})
    assert prepared("here", suite, done_data(suite), home(SUITE)).keys() <= {model.name for model in suite.models}
