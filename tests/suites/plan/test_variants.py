"""Variants, targets by name, models on some data sets, and images that travel on one of several: a small real run."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sparring.adapters.errors import InputError
from sparring.suites import load_suite, run
from sparring.suites.plan.expand import parts
from sparring.suites.plan.plan import usual_batch
from sparring.suites.results import store
from sparring.suites.results.labels import row_labels

TRAIN = {"epochs": 3, "seed": 0, "samples": 600}
MEAN, STD = 0.3, 0.4
SUITE = {
    "name": "ways",
    "data": [{"name": "digits", "samples": 40}, {"name": "other", "path": "other.npz"}],
    "models": [
        {"name": "cnn", "architecture": "cnn", "train": TRAIN, "mean": [MEAN], "std": [STD]},
        {"name": "dnn", "architecture": "dnn", "train": TRAIN, "data": ["digits"]},
    ],
    "variants": [
        {"name": "corrected"},
        {"name": "normalised", "space": "normalised", "data": ["digits"], "models": ["cnn"]},
        {
            "name": "as-published",
            "space": "normalised-first",
            "libraries": ["torchattacks", "sparring"],
            "models": ["cnn"],
        },
        {"name": "soft", "temperature": 50, "attacks": ["fgsm"], "data": ["digits"], "models": ["dnn"]},
    ],
    "transfer": {"data": "digits", "attacks": ["pgd"]},
    "libraries": ["torchattacks", "foolbox"],
    "attacks": [
        {"attack": "none", "libraries": ["sparring"], "variants": ["corrected", "as-published"], "data": ["digits"]},
        {"attack": "fgsm", "eps": 0.1},
        {
            "attack": "pgd",
            "norm": "linf",
            "eps": 0.4,
            "steps": 20,
            "target": ["3", 7],
            "libraries": ["foolbox"],
            "variants": ["corrected"],
            "data": ["digits"],
        },
    ],
}


def suite(**changes):
    return {**SUITE, "data": [SUITE["data"][0], {"path": "other.npz"}], **changes}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    home = tmp_path_factory.mktemp("ways")
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8) / 16).astype(np.float32)[:, ::-1].copy()
    np.savez(home / "other.npz", x_train=x[:600], y_train=y[:600], x_test=x[600:630], y_test=y[600:630])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return run(suite(), out=home / "run", device="cpu")


def test_the_plan_has_each_attack_in_each_of_its_ways(done) -> None:
    rows = done.frame
    assert set(rows["status"]) == {"done"}
    told = {
        (data, model, variant, attack): set(group["library"])
        for (data, model, variant, attack), group in rows.groupby(["dataset", "model", "variant", "attack"])
    }
    both = {"torchattacks", "foolbox"}
    assert told == {
        ("digits", "cnn", "corrected", "none"): {"sparring"},
        ("digits", "cnn", "as-published", "none"): {"sparring"},
        ("digits", "cnn", "corrected", "fgsm"): both,
        ("digits", "cnn", "normalised", "fgsm"): both,
        ("digits", "cnn", "as-published", "fgsm"): {"torchattacks"},
        ("digits", "cnn", "corrected", "pgd"): {"foolbox"},
        ("digits", "dnn", "corrected", "none"): {"sparring"},
        ("digits", "dnn", "corrected", "fgsm"): both,
        ("digits", "dnn", "soft", "fgsm"): both,
        ("digits", "dnn", "corrected", "pgd"): {"foolbox"},
        ("other", "cnn", "corrected", "fgsm"): both,
        ("other", "cnn", "as-published", "fgsm"): {"torchattacks"},
    }
    assert {key: set(group) for key, group in rows.groupby("variant")["space"]} == {
        "corrected": {"pixels"},
        "normalised": {"normalised"},
        "as-published": {"normalised-first"},
        "soft": {"pixels"},
    }
    assert set(rows[rows["variant"] == "soft"]["temperature"]) == {50.0}


def test_the_budget_is_in_the_units_of_the_variant(done) -> None:
    for variant, most in (("corrected", 0.1), ("normalised", 0.1 * STD)):
        for cell in done.frame[(done.frame["variant"] == variant) & (done.frame["attack"] == "fgsm")]["cell_id"]:
            moved = store.read(done.folder, cell).arrays["linf"]
            assert moved.max() == pytest.approx(most, abs=2e-6)


def test_as_published_loses_what_lies_below_the_mean(done) -> None:
    rows = done.frame[(done.frame["variant"] == "as-published") & (done.frame["attack"] == "none")]
    arrays = store.read(done.folder, rows["cell_id"].iloc[0], images=True).arrays
    np.testing.assert_allclose(arrays["x_adv"], np.clip((arrays["x"] - MEAN) / STD, 0, 1) * STD + MEAN, atol=1e-6)


def test_a_variant_is_part_of_the_cell_and_its_name_is_not(done) -> None:
    cells = [
        json.loads((done.folder / "cells" / cell / "result.json").read_text())["cell"]
        for cell in done.frame[done.frame["attack"] == "fgsm"]["cell_id"]
    ]
    assert {cell.get("space", "") for cell in cells} == {"", "normalised", "normalised-first"}
    assert {cell.get("temperature", 1) for cell in cells} == {1, 50.0}
    assert not any("variant" in cell for cell in cells)


def test_every_image_is_aimed_at_the_class_that_is_named(done) -> None:
    rows = done.frame[done.frame["attack"] == "pgd"]
    assert set(rows["target"]) == {"3", "7"}
    assert {label.split(" (")[0] for label in row_labels(rows)} == {"pgd linf → 3", "pgd linf → 7"}
    for row in rows.to_dict("records"):
        arrays = store.read(done.folder, row["cell_id"]).arrays
        aim = int(row["target"])
        assert set(arrays["target"]) == {aim}
        others = arrays["y"] != aim
        logits = arrays["logits_adv"][others]
        assert row["target_top1"] == pytest.approx((logits.argmax(axis=1) == aim).mean())
        rank = (logits > logits[:, [aim]]).sum(axis=1)
        assert row["target_top5"] == pytest.approx((rank < 5).mean())
        assert row["target_top1"] > 0.3
    assert done.frame[done.frame["attack"] == "fgsm"]["target_top1"].isna().all()


def test_only_the_images_of_the_named_attacks_and_data_travel(done) -> None:
    found = done.transfer.rows
    assert set(found["dataset"]) == {"digits"}
    assert set(found["attack"]) == {"pgd"}
    assert set(zip(found["surrogate"], found["target"], strict=True)) == {
        (a, b) for a in ("cnn", "dnn") for b in ("cnn", "dnn")
    }
    assert set(found["aim"]) == {"3", "7"}
    itself = found[found["surrogate"] == found["target"]].set_index(["surrogate", "aim"])["success_all"]
    rows = done.frame[done.frame["attack"] == "pgd"].set_index(["model", "target"])
    for key, rate in itself.items():
        arrays = store.read(done.folder, rows.loc[key]["cell_id"]).arrays
        assert rate == pytest.approx((arrays["pred_adv"] == arrays["target"]).mean())
    stored = pd.read_parquet(done.folder / "transfer.parquet")
    assert len(stored) == len(found)


def test_running_again_computes_nothing(done, monkeypatch) -> None:
    monkeypatch.chdir(done.folder.parent)
    assert run(suite(), out=done.folder, device="cpu").computed == 0


ATTACKS = SUITE["attacks"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": [{"name": "a", "space": "normalized"}]},
            "variants.0.space: Input should be 'pixels', 'normalised'",
        ),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "two variants are called 'a'"),
        ({"variants": [{"name": "a", "temperature": 0}]}, "variants.0.temperature: Input should be greater than 0"),
        ({"variants": [{"name": "a", "models": ["cn"]}]}, "variants.0.models: unknown model 'cn'. Did you mean 'cnn'"),
        ({"variants": [{"name": "a", "attacks": ["bim"]}]}, "variants.0.attacks: unknown attack 'bim'"),
        (
            {"attacks": [{"attack": "fgsm", "eps": 0.1, "variants": ["correct"]}]},
            "attacks.0.variants: unknown variant 'correct'",
        ),
        ({"transfer": {}}, "say which: transfer.data"),
        ({"transfer": {"data": "digit"}}, "transfer.data: unknown data set 'digit'. Did you mean 'digits'"),
        (
            {"models": [{"name": "cnn", "architecture": "cnn", "train": TRAIN, "data": ["digit"]}]},
            "models.0 (cnn): data: unknown data set",
        ),
        (
            {"models": [{"name": "cnn", "architecture": "cnn", "train": TRAIN, "data": ["digits"]}]},
            "no model is attacked on 'other'",
        ),
        (
            {"draws": {"sizes": [10, 20], "count": 3}},
            "draws: 3 draws of 20 other images each need 60 images, and digits has 40",
        ),
        (
            {
                "variants": [{"name": "a", "space": "normalised"}],
                "attacks": [{"attack": "foolbox:LinfPGD", "params": {"eps": 0.1}}],
            },
            "attacks.0: foolbox:LinfPGD has parameters of its own",
        ),
    ],
)
def test_what_can_not_be_meant_is_said_with_its_place(changes, message) -> None:
    one = {key: value for key, value in suite(**changes).items() if key != "transfer" or "transfer" in changes}
    if "variants" in changes and "attacks" not in changes:
        one["attacks"] = [{"attack": "fgsm", "eps": 0.1}]
    if "models" in changes:
        del one["variants"]
        one["attacks"] = [{"attack": "fgsm", "eps": 0.1}]
    with pytest.raises(InputError) as said:
        load_suite(one)
    assert message in str(said.value)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"attack": "pgd", "eps": 0.1, "target": "toaster"}, "pgd: target: unknown class of digits 'toaster'"),
        ({"attack": "pgd", "eps": 0.1, "target": 10}, "pgd: target: 10 is no class of digits: 0 to 9"),
        (
            {"attack": "patch", "size": 3},
            "patch is trained on other images first: say how many, `fit` of the data digits",
        ),
    ],
)
def test_what_the_data_lack_is_said_before_anything_is_made(attack, message, tmp_path) -> None:
    one = {
        "name": "one",
        "data": {"name": "digits", "samples": 8},
        "models": [SUITE["models"][0]],
        "libraries": ["sparring", "foolbox"],
        "attacks": [attack],
    }
    with pytest.raises(InputError, match="attacks") as said:
        run(one, out=tmp_path / "run", device="cpu")
    assert message in str(said.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shape", "batch"),
    [((1, 28, 28), 128), ((3, 64, 64), 128), ((3, 96, 96), 32), ((3, 224, 224), 8), ((3, 2000, 2000), 1)],
)
def test_large_images_come_in_small_batches(shape, batch) -> None:
    assert usual_batch(shape) == batch


def test_a_model_is_only_on_its_data_sets() -> None:
    held = {part.one_data.label: [spec.name for spec in part.models] for part in parts(load_suite(suite()))}
    assert held == {"digits": ["cnn", "dnn"], "other": ["cnn"]}
