"""Two models compared in numbers: logits, cotangents, gradients and verdicts, with ties and kinks set apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparring.suites.certify import comparison
from sparring.suites.certify.certificate import GradientsCompared


def test_logits_compared_with_ties_set_apart() -> None:
    a = np.array([[1, 0, 0], [2, 2.00005, 0], [0, 3, 1], [0, 0, 4]], np.float32)
    b = np.array([[1, 0.5, 0], [2.00005, 2, 0], [0, 1, 3], [0, 0, 4]], np.float32)
    compared = comparison.compare_logits(a, b)
    assert compared.max_abs == pytest.approx(2)
    assert compared.mean_abs == pytest.approx((0.5 + 1e-4 + 4) / 12, rel=1e-4)
    assert (compared.ties, compared.disagreeing, compared.scale) == (1, (2,), 4.0)
    assert compared.agreement == pytest.approx(2 / 3)
    assert compared.relative == pytest.approx(0.5)
    assert comparison.reasons(comparison.compare_logits(a, a), None) == ()
    assert [text.split(" ")[0] for text in comparison.reasons(compared, None)] == ["logits", "1"]
    nan = comparison.compare_logits(a, np.full_like(a, np.nan))
    assert comparison.reasons(nan, None)


def test_cotangents_are_the_gradient_of_cross_entropy_even_where_that_underflows() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(0, 3, (20, 5)).astype(np.float32), rng.integers(0, 5, 20)
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(z, torch.tensor(y), reduction="sum").backward()
    assert z.grad is not None
    expected = z.grad.numpy()
    cotangents = comparison.cotangents(logits, y).astype(np.float64)
    cosines = (cotangents * expected).sum(1) / np.linalg.norm(cotangents, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 1 - 1e-9
    certain = comparison.cotangents(np.array([[500, 0, -1]], np.float32), np.array([0]))
    assert certain[0] == pytest.approx([-1 - np.exp(-1), 1, np.exp(-1)])


def test_gradients_compared() -> None:
    a = np.zeros((4, 1, 1, 3), np.float32)
    b = a.copy()
    a[0, 0, 0], b[0, 0, 0] = [1, 2, 3], [2, 4, 6]
    a[1, 0, 0], b[1, 0, 0] = [1, 1e-7, 0], [1, -1e-7, 0]  # the sign of what is rounding doesn't count
    a[2, 0, 0] = [1, 0, 0]  # one of the two is exactly zero; of the last both are
    compared = comparison.compare_gradients(a, b)
    assert compared.cosines == pytest.approx([1, 1, 0, 1])
    assert compared.signs == pytest.approx(4 / 5)
    assert (compared.least, compared.turned) == (0.0, (2,))
    apart = GradientsCompared(compared.cosines, compared.signs, kinks=(2,))
    assert (apart.least, apart.turned) == (pytest.approx(1), ())
    assert comparison.at_kinks([5, 7], np.full(8, 0.9), np.array([0.97, 0.99], np.float32)) == (5,)


def test_verdicts_that_flip() -> None:
    y = np.array([0, 1, 2])
    a = np.array([[2, 1, 0], [0, 1, 3], [0, 0, 1]], np.float32)
    b = np.array([[1, 2, 0], [0, 1, 3], [0, 0, 1]], np.float32)
    compared = comparison.judge("fgsm", "a", y, a, b)
    (flip,) = compared.flips
    assert (flip.image, flip.label, flip.prediction_a, flip.prediction_b) == (0, 0, 0, 1)
    assert (flip.margin_a, flip.margin_b) == (1.0, -1.0)
    assert (compared.accuracy_a, compared.accuracy_b) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
