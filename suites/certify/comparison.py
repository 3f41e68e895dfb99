"""Two models compared in numbers: their logits, gradients and verdicts on the same images.

Everything here is a function of arrays: no model is opened, and nothing is known of runtimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from sparring.adapters.protocol import Images, Labels, Logits
from sparring.suites.certify.certificate import (
    COSINE,
    KINK,
    NOISE,
    TIE,
    TOLERANCE,
    Flip,
    Floats,
    GradientsCompared,
    Judged,
    LogitsCompared,
)


def compare_logits(a: Logits, b: Logits) -> LogitsCompared:
    """Compare two models' logits, both (N, classes), on the same images."""
    one, other = a.astype(np.float64), b.astype(np.float64)
    delta = np.abs(one - other)
    tied = np.minimum(_lead(one), _lead(other)) < TIE
    differ = (one.argmax(axis=1) != other.argmax(axis=1)) & ~tied
    counted = int((~tied).sum())
    return LogitsCompared(
        max_abs=float(delta.max(initial=0)),
        mean_abs=float(delta.mean()) if delta.size else 0.0,
        scale=float(np.abs(one).max(initial=0)),
        ties=int(tied.sum()),
        agreement=1 - float(differ.sum()) / counted if counted else 1.0,
        disagreeing=tuple(map(int, np.flatnonzero(differ))),
    )


def cotangents(logits: Logits, y: Labels) -> Logits:
    """The gradient of each image's cross-entropy with respect to its logits, (N, classes), up to a positive factor.

    Where the model is certain, softmax - onehot is all zeros in float32. Divided by the largest probability of another
    class it never is, and the gradient that follows keeps its direction and its signs.
    """
    z = logits.astype(np.float64)
    label = np.arange(z.shape[1]) == y[:, None]
    others = np.where(label, -np.inf, z)
    shares = np.exp(others - others.max(axis=1, keepdims=True))
    return np.asarray(np.where(label, -shares.sum(axis=1, keepdims=True), shares), np.float32)


def compare_gradients(a: Images, b: Images) -> GradientsCompared:
    """Compare two models' gradients, both (N, C, H, W), image by image: all of them may not fit into memory."""
    cosines, same, counted = np.ones(len(a)), 0, 0
    for i in range(len(a)):
        one, other = (np.asarray(g[i], np.float64).ravel() for g in (a, b))
        lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
        if any(lengths):
            product = lengths[0] * lengths[1]
            cosines[i] = min(float(one @ other) / product, 1.0) if product and np.isfinite(product) else 0.0
        counts = _above_noise(one) | _above_noise(other)
        same, counted = same + int((np.sign(one) == np.sign(other))[counts].sum()), counted + int(counts.sum())
    return GradientsCompared(cosines, same / counted if counted else 1.0)


def at_kinks(chosen: Sequence[int], cosines: Floats, own: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """Those of the chosen images at a kink: there the first model's own gradient turns as the two models' part.

    ``cosines`` (N,) are those between the two models, ``own`` (chosen,) the least ones of the first model's own.
    """
    return tuple(sorted(i for i, c in zip(chosen, own, strict=True) if c < COSINE and 1 - c >= KINK * (1 - cosines[i])))


def judge(attack: str, made_on: str, y: Labels, a: Logits, b: Logits) -> Judged:
    """Compare the verdicts of both models, by their logits (N, classes), on the images of one attack."""
    margins = _margins(a, y), _margins(b, y)
    predictions = a.argmax(axis=1), b.argmax(axis=1)
    right = predictions[0] == y, predictions[1] == y

    def flip(i: int) -> Flip:
        classes = int(predictions[0][i]), int(predictions[1][i])
        return Flip(attack, made_on, i, int(y[i]), *classes, float(margins[0][i]), float(margins[1][i]))

    flips = tuple(flip(int(i)) for i in np.flatnonzero(right[0] != right[1]))
    return Judged(attack, made_on, len(y), float(right[0].mean()), float(right[1].mean()), flips)


def reasons(logits: LogitsCompared, gradients: GradientsCompared | None) -> tuple[str, ...]:
    """Why the two can't be one function, in words; empty where the certificate is passed."""
    texts = []
    if not logits.max_abs <= TOLERANCE:
        texts.append(f"logits differ by up to {logits.max_abs:.2e}, and {TOLERANCE:g} is allowed")
    if logits.disagreeing:
        texts.append(f"{len(logits.disagreeing)} images are put into other classes")
    if gradients is not None and gradients.turned:
        texts.append(
            f"the gradients of {len(gradients.turned)} images point elsewhere: a cosine down to {gradients.least:.6f}, "
            f"and {COSINE} is the least allowed"
        )
    return tuple(texts)


def log_probabilities(logits: Logits) -> Logits:
    """log softmax, float32 (N, classes)."""

    return np.asarray(log_softmax(logits.astype(np.float64), axis=1), np.float32)


def _lead(logits: Floats) -> Floats:
    """By how much the highest logit of each image is above the next."""
    top = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def _margins(logits: Logits, y: Labels) -> Floats:
    z = logits.astype(np.float64)
    rows = np.arange(len(z))
    label = z[rows, y].copy()
    z[rows, y] = -np.inf
    return np.asarray(label - z.max(axis=1))


def _above_noise(g: Floats) -> npt.NDArray[np.bool_]:
    size = np.abs(g)
    return np.asarray(size > NOISE * size.max(initial=0))


def wrong_inputs(x: Images, inputs: npt.NDArray[np.float32] | None) -> dict[str, npt.NDArray[np.float32]]:
    """The images, (N, C, H, W), as a wrong conversion may take them, by a description.

    ``inputs``: the images after the other model's preprocessing, if it has one.
    """
    variants: dict[str, npt.NDArray[Any]] = {}
    if x.shape[1] == 3:
        variants["its three channels reversed (RGB against BGR)"] = x[:, ::-1]
    if x.shape[2] == x.shape[3]:
        variants["its rows and columns swapped"] = x.swapaxes(2, 3)
    variants |= {"pixels from 0 to 255": x * 255, "pixels from 0 to 1/255": x / 255}
    variants |= {"pixels from -1 to 1": 2 * x - 1, "pixels from 1/2 to 1": (x + 1) / 2}
    if inputs is not None and inputs.shape == x.shape:
        variants["the preprocessing of the other (its range, mean and std)"] = inputs
    return {name: np.ascontiguousarray(values, np.float32) for name, values in variants.items()}


def differing_most(a: Logits, b: Logits, count: int) -> Sequence[int]:
    """The numbers of the images whose logits differ most, largest first."""
    delta = np.nan_to_num(np.abs(a - b).max(axis=1), nan=np.inf)
    return [int(i) for i in np.argsort(-delta, kind="stable")[:count]]
