"""A run with defenses: who attacked what, recomputed here from the stored images and the models themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparring.adapters.protocol import Differentiable
from sparring.models.defenses.catalogue import wrap_defended
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import is_prepared
from sparring.suites import load_suite, run
from sparring.suites.plan.expand import single
from sparring.suites.plan.file import home
from sparring.suites.results import store

TRAIN = {"epochs": 3, "seed": 0, "samples": 400}
AT = {"defense": "adversarial-training", "attack": "fgsm", "library": "art", "eps": 0.1}
BLUR = {"defense": "gaussian-blur", "sigma": 1.0}
SUITE = {
    "name": "defended",
    "protocol": "A little of everything.",
    "data": {"name": "digits", "samples": 40},
    "models": [
        {"name": "cnn", "architecture": "cnn", "framework": "torch", "train": TRAIN},
        {"name": "two", "architecture": "dnn", "framework": "torch", "train": TRAIN, "members": 2},
        {"name": "onnx", "export": "cnn"},
    ],
    "defenses": [
        [],
        {"name": "blur", "chain": [BLUR]},
        {"name": "AT", "chain": [AT]},
        {"name": "AT + blur", "chain": [AT, BLUR]},
        {"name": "noise", "chain": ["gradient-noise"], "models": ["cnn"]},
        {"name": "shut", "chain": [{**BLUR, "gradients": "none"}], "models": ["cnn"]},
    ],
    "libraries": ["art", "foolbox"],
    "attacks": [{"attack": "fgsm", "eps": 0.1}, {"attack": "uniform-noise", "eps": 0.1, "libraries": ["foolbox"]}],
    "profiles": {"paper": {"data": {"samples": None}}},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(SUITE, out=tmp_path_factory.mktemp("defended") / "run", device="cpu", workers=2)


@pytest.fixture(scope="module")
def refs(done) -> dict[str, ModelRef]:
    part, found = single(load_suite(SUITE)), {}
    for spec in part.models:
        found[spec.name] = is_prepared(spec, data=part.one_data, base=home(SUITE), others=found)
    return found


def row(done, model, defense, attacker="", library="art", attack="fgsm"):
    keys = {"model": model, "defense": defense, "attacker": attacker, "library": library, "attack": attack}
    found = done.frame[np.logical_and.reduce([done.frame[key] == value for key, value in keys.items()])]
    assert len(found) == 1, f"{len(found)} rows of {keys}"
    return found.iloc[0]


def images(done, *which, **more):
    return store.read(done.folder, row(done, *which, **more)["cell_id"], images=True).arrays


def test_every_row_is_there_and_done_but_what_needs_gradients_that_do_not_pass(done):
    frame = done.frame
    assert len(frame) == (3 + 3 * 2 + 3 + 3 * 2 + 2 + 2) * 3
    assert set(frame[frame["status"] != "done"]["reason"]) == {
        "fgsm needs gradients, and gaussian-blur(sigma=1.0, gradients=none) passes none (by its defense)"
    }
    shut = frame[frame["defense"] == "shut"]
    assert set(shut[shut["status"] == "unsupported"]["attacker"]) == {"aware"}
    assert set(frame[frame["defense"].isin(["none", "AT"])]["attacker"]) == {""}
    assert json.loads((done.folder / "cells" / frame["cell_id"][0] / "result.json").read_text())["status"] == "done"


@pytest.mark.parametrize("model", ["cnn", "two", "onnx"])
@pytest.mark.parametrize(("defense", "under"), [("blur", "none"), ("AT + blur", "AT")])
def test_who_does_not_know_attacks_the_undefended_model_and_the_defended_one_decides(done, refs, model, defense, under):
    blind, bare = images(done, model, defense, "unaware"), images(done, model, under)
    assert np.array_equal(blind["x_adv"], bare["x_adv"])
    whole = open_model(refs[f"{model} [{defense}]"], device="cpu")
    assert np.array_equal(blind["logits_adv"], whole.logits(blind["x_adv"]))
    assert np.array_equal(blind["logits_clean"], whole.logits(blind["x"]))
    assert np.array_equal(blind["pred_adv"], blind["logits_adv"].argmax(axis=1))
    assert not np.array_equal(blind["logits_adv"], bare["logits_adv"])


@pytest.mark.parametrize("library", ["art", "foolbox"])
def test_who_knows_follows_the_gradient_of_the_whole(done, refs, library):
    seeing = images(done, "cnn", "blur", "aware", library)
    whole = open_model(refs["cnn [blur]"], device="cpu")
    assert isinstance(whole, Differentiable)
    logits = whole.logits(seeing["x"]).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    pull = powers / powers.sum(axis=1, keepdims=True) - np.eye(10)[seeing["y"]]
    gradient = whole.vjp(seeing["x"], pull.astype(np.float32))
    due = np.clip(seeing["x"] + np.float32(0.1) * np.sign(gradient), 0, 1)
    steep = np.abs(gradient) > 1e-6  # elsewhere the sign is that of a rounding
    assert steep.mean() > 0.5
    np.testing.assert_allclose(seeing["x_adv"][steep], due[steep], atol=1e-6)
    assert not np.array_equal(seeing["x_adv"], images(done, "cnn", "blur", "unaware", library)["x_adv"])


def test_noise_on_the_gradients_is_what_who_does_not_know_of_it_gets(done, refs):
    blind, seeing, bare = (
        images(done, "cnn", "noise", "unaware"),
        images(done, "cnn", "noise", "aware"),
        images(done, "cnn", "none"),
    )
    assert np.array_equal(blind["logits_clean"], bare["logits_clean"])
    assert not np.array_equal(blind["x_adv"], bare["x_adv"])
    noisy = wrap_defended(open_model(refs["cnn"]), refs["cnn [noise]"].wrappers, seed=0, attacker="unaware")
    assert not np.array_equal(noisy.vjp(bare["x"], np.eye(10, dtype=np.float32)[bare["y"]]), 0)
    same = [(one["x_adv"] == bare["x_adv"]).mean() for one in (blind, seeing)]
    assert same[1] > same[0], "the mean over draws is nearer to the true gradient than one of them"


def test_an_attack_without_gradients_sees_what_is_deployed_where_it_knows_of_it(done):
    for attacker in ("unaware", "aware"):
        assert row(done, "cnn", "shut", attacker, "foolbox", "uniform-noise")["status"] == "done"


def test_members_and_exports_are_those_of_the_trained_model_and_training_is_done_once(refs):
    at, both = refs["two [AT]"], refs["two [AT + blur]"]
    assert both.undefended.digest == at.digest != refs["two"].digest
    assert refs["cnn [AT + blur]"].undefended.artifact == refs["cnn [AT]"].artifact
    x = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    np.testing.assert_allclose(
        open_model(refs["onnx [AT]"]).logits(x), open_model(refs["cnn [AT]"]).logits(x), atol=1e-4
    )
    probabilities = [
        np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        for logits in (open_model(member).logits(x).astype(np.float64) for member in at.members)
    ]
    np.testing.assert_allclose(np.log(np.mean(probabilities, axis=0)), open_model(at).logits(x), atol=1e-5)


def test_the_manifest_says_what_was_run(done):
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert manifest["suite"]["protocol"] == "A little of everything."
    assert {"key": "data.samples", "here": 40, "paper": None} in manifest["reduced"]
    told = manifest["models"]["two [AT + blur]"]
    assert (told["model"], told["defense"], told["attacked"]) == ("two", "AT + blur", True)
    history = manifest["models"][told["members"][0]]["facts"]["history"]
    assert len(history) == 3


def test_again_nothing_is_computed_and_a_cell_is_known_by_who_attacked(done):
    again = run(SUITE, out=done.folder, device="cpu")
    assert again.computed == 0
    pd.testing.assert_frame_equal(again.frame, done.frame)
    ids = [row(done, "cnn", "blur", who)["cell_id"] for who in ("unaware", "aware")]
    told = [json.loads((Path(done.folder) / "cells" / one / "result.json").read_text())["cell"] for one in ids]
    assert [one["attacker"] for one in told] == ["unaware", "aware"]
    assert told[0]["defense"] == ["gaussian-blur(sigma=1.0)"]


def test_defended_models_judge_the_images_of_others(tmp_path):
    suite = {
        **SUITE,
        "models": SUITE["models"][:1],
        "defenses": SUITE["defenses"][:2],
        "attackers": ["aware"],
        "attacks": SUITE["attacks"][:1],
        "transfer": {"surrogates": ["cnn"]},
        "libraries": ["art"],
    }
    found = run(suite, out=tmp_path / "run", device="cpu").transfer
    assert sorted(set(found.rows["target"])) == ["cnn", "cnn [blur]"]
    assert sorted(set(found.rows["surrogate"])) == ["cnn", "cnn [blur]"]
    assert set(found.rows["status"]) == {"done"}
