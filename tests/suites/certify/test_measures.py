"""What a worker measures for a certificate: kinks are seen where there are some, and layers pass through files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_for_tests import linear
from torch import nn

from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.models.layers.layer import Layer
from sparring.suites.certify import comparison, measures


class Bent(nn.Module):
    """Two pixels; the second counts only above 1/2: an image there lies at a kink."""

    def forward(self, x: Any) -> Any:
        flat = x.flatten(1)
        return torch.stack([flat[:, 0], 3 * torch.relu(flat[:, 1] - 0.5)], dim=1)


def test_a_kink_is_seen_where_there_is_one(tmp_path: Path) -> None:
    x = np.array([[0.3, 0.5], [0.3, 0.8]], np.float32).reshape(2, 1, 1, 2)
    np.save(tmp_path / "images.npy", x)
    np.save(tmp_path / "cotangents.npy", np.array([[1, 1], [1, 1]], np.float32))
    files = {"images": "images.npy", "cotangents": "cotangents.npy", "out": "kinks.npy"}
    request = {**files, "chosen": [0, 1], "allowed": [1e-6, 1e-6]}
    classifier = TorchClassifier(Bent(), input_shape=(1, 1, 2), device="cpu")
    ref: Any = None
    measures.kinks(ref, classifier, tmp_path, request, lambda done, total, what: None)
    own = np.load(tmp_path / "kinks.npy")
    assert own == pytest.approx([1 / np.sqrt(10), 1])
    assert comparison.at_kinks([0, 1], np.array([0.4, 0.4]), own) == (0,)


def test_layers_pass_through_files(tmp_path: Path) -> None:
    classifier, _ = linear(3)
    x = np.random.default_rng(0).random((5, 1, 6, 6), np.float32)
    np.save(tmp_path / "x.npy", x)

    class Ref:
        members = ()
        options: dict[str, Any] = {}  # noqa: RUF012

    ref: Any = Ref()
    original = measures.open_network
    try:
        measures.open_network = lambda ref: classifier.network  # type: ignore[assignment]
        answer = measures.layers(ref, classifier, tmp_path, {"images": "x.npy", "out": "l.npz"}, lambda *_: None)
    finally:
        measures.open_network = original
    read: list[Layer] = measures.read_layers(json.loads(json.dumps(answer)), tmp_path / "l.npz")
    assert [layer.kind for layer in read] == ["images", "Flatten", "Linear", "output"]
    assert read[2].takes == (1,)
    assert read[2].facts["weight"].shape == (3, 36)
    assert np.array_equal(read[2].values, classifier.logits(x))
