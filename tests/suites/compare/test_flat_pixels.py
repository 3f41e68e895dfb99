"""Pixels without a gradient: found, and nothing else is."""

from __future__ import annotations

import numpy as np
import torch
from models_for_tests import cnn, images, labels
from torch import nn

from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.suites.compare.flat_pixels import flat_pixels


class Left(nn.Module):
    """Looks at the left half of the image only; its logits are ``scale`` times as large."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.layer = scale, nn.Linear(8 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[..., :4].flatten(1)) * self.scale


def test_what_the_classifier_does_not_look_at_is_flat() -> None:
    classifier = TorchClassifier(Left(1), input_shape=(1, 8, 8), device="cpu")
    flat = flat_pixels(classifier, images(), labels(classifier, images()))
    assert flat[..., 4:].all()
    assert not flat[..., :4].any()


def test_an_image_whose_softmax_is_certain_is_flat_as_a_whole() -> None:
    classifier = TorchClassifier(Left(1e6), input_shape=(1, 8, 8), device="cpu")
    assert flat_pixels(classifier, images(), labels(classifier, images())).all()


def test_an_ordinary_network_has_hardly_any() -> None:
    flat = flat_pixels(cnn(), images(), labels(cnn(), images()))
    assert flat.mean() < 0.02
    assert flat_pixels(cnn(), images(0), np.zeros(0, np.int64)).shape == (0, 1, 8, 8)
