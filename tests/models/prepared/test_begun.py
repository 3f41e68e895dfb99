"""A network that is fine-tuned in several ways is trained once: what comes out is the same as trained from the start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.models.data import datasets
from sparring.models.defenses.catalogue import training_changes
from sparring.models.model_spec import model_spec
from sparring.models.networks import build as networks
from sparring.models.prepared import prepare as load
from sparring.models.spec import DataSpec, TrainSpec
from sparring.models.training.train import trained

DATA = DataSpec(name="digits", samples=20)
TRAIN = TrainSpec(epochs=2, samples=128, batch_size=32, augment="shift")
TUNED = {"defense": "adversarial-fine-tuning", "library": "art", "eps": 0.1, "samples": 64}


def spec(framework, *defenses):
    architecture = "cnn_batchnorm" if framework == "torch" else "cnn"
    return model_spec(name="net", architecture=architecture, framework=framework, train=TRAIN, defenses=defenses)


def prepared(framework, *defenses, said=None):
    told = None if said is None else lambda done, total, what: said.append(what)
    return load.prepare(spec(framework, *defenses), data=DATA, base=Path(), device="cpu", progress=told)


def logits(ref, x):
    from sparring.models.prepared.open import open_model

    return open_model(ref, device="cpu").logits(x)


@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow"])
def test_a_fine_tuning_takes_the_plain_training_from_the_cache(framework, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path))
    if framework != "torch":
        networks.use_keras(framework)
    first, second, plain = [], [], []
    tuned = prepared(framework, TUNED, said=first)
    prepared(framework, {**TUNED, "eps": 0.2}, said=second)
    base = prepared(framework, said=plain)
    assert any(what.startswith("epoch 2/2") for what in first)
    assert second
    assert all(what.startswith("fine-tuning") for what in second)
    assert not plain
    assert len(list(tmp_path.rglob("ref.json"))) == 3
    stages = [row.get("stage", "") for row in tuned.facts["history"]]
    assert stages == ["", "", "fine-tuning"]
    assert tuned.facts["history"][:2] == base.facts["history"]
    json.dumps(tuned.facts)

    # the same from the start, without the cache
    whole, sample = spec(framework, TUNED), datasets.load(DATA, base=Path())
    part = datasets.load_train(DATA, base=Path(), samples=TRAIN.samples, seed=0)
    options = {"layout": "channels-first" if framework == "torch" else "channels-last"}
    network, facts = trained(
        lambda: networks.build(whole.architecture, framework, (1, 8, 8), 10),
        framework,
        part.x,
        part.y,
        TRAIN,
        defenses=training_changes(whole.defenses),
        before=preprocessing((1, 8, 8), **options),
        options=options,
        device="cpu",
    )
    from sparring.adapters.wrap import wrap

    anew = wrap(network, input_shape=(1, 8, 8), device="cpu", **options).logits(sample.x)
    np.testing.assert_array_equal(logits(tuned, sample.x), anew)
    assert facts["history"] == tuned.facts["history"]


def test_a_training_that_begins_otherwise_is_carried_out_whole(tmp_path, monkeypatch):
    """Adversarial training from the first epoch on has nothing in common with the plain one."""
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path))
    said = []
    ref = prepared("torch", {"defense": "adversarial-training", "library": "art", "eps": 0.1}, said=said)
    assert any(what.startswith("epoch 1/2") for what in said)
    assert len(list(tmp_path.rglob("ref.json"))) == 1
    later = prepared("torch", {"defense": "adversarial-training", "library": "art", "eps": 0.1, "epochs": 1})
    assert len(list(tmp_path.rglob("ref.json"))) == 3
    assert len(later.facts["history"]) == 3
    x = datasets.load(DATA, base=Path()).x
    assert not np.array_equal(logits(ref, x), logits(later, x))
