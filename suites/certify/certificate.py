"""Whether two models are one function, in numbers: logits, decisions, gradients and verdicts on the same images.

Everything here is a function of arrays: no model is opened, and nothing is known of runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images, Labels, Logits

TOLERANCE = 1e-4
"""Largest difference of a logit."""
TIE = 1e-4
"""Two classes are tied where their logits, the two highest of an image, differ by less."""
COSINE = 0.9999
"""Least cosine of the two gradients of an image."""
KINK = 0.25
"""An image lies at a kink where the model's own gradient turns at least so far, as a share of what it is between both
models (in 1 - cosine), and below the least cosine."""
NOISE = 1e-6
"""A pixel's gradient counts for the sign where it is above this share of the image's largest."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogitsCompared:
    """Two models' logits (N, classes) on the same images. ``disagreeing`` are the images, by number, that they put into
    other classes, but for ``ties``: those where the two highest logits of either model are as good as equal."""

    max_abs: float
    mean_abs: float
    scale: float
    """the largest absolute logit of the first"""
    ties: int
    agreement: float
    disagreeing: tuple[int, ...]

    @property
    def relative(self) -> float:
        """What is left of ``max_abs`` as a share of the largest logit: of rounding, some 1e-6."""
        return self.max_abs / max(self.scale, 1e-30)


@dataclass(frozen=True)
class GradientsCompared:
    """Two models' gradients of the loss with respect to the same images. ``cosines`` (N,): 1 where both are exactly
    zero, 0 where one is. ``signs``: share of the pixels that have a gradient in either model whose sign is the same.

    ``kinks`` are images, by number, that lie within rounding of a kink (of a ReLU, of a maximum): there the first
    model's own gradient turns, too, when the pixels move so little that its logits change no more than from model to
    model. They don't count for ``least``.
    """

    cosines: Floats
    signs: float
    kinks: tuple[int, ...] = ()

    @property
    def turned(self) -> tuple[int, ...]:
        """The images whose cosine is too small, the smallest first."""
        order = np.argsort(self.cosines, kind="stable")
        return tuple(int(i) for i in order if not self.cosines[i] >= COSINE and i not in self.kinks)

    @property
    def least(self) -> float:
        counted = np.delete(self.cosines, list(self.kinks))
        return float(counted.min(initial=1.0))


@dataclass(frozen=True)
class Flip:
    """An adversarial image that one model reads rightly and the other not. A margin is the label's logit minus the
    highest other one: what is above zero is read rightly."""

    attack: str
    made_on: str
    image: int
    label: int
    prediction_a: int
    prediction_b: int
    margin_a: float
    margin_b: float


@dataclass(frozen=True)
class Judged:
    """The images of one attack on one of the models, judged by both: accuracies, and what they don't agree on."""

    attack: str
    made_on: str
    images: int
    accuracy_a: float
    accuracy_b: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class Difference:
    """The first layer that differs, by name in either model, None where there is none; and what is known of it.

    ``max_abs`` is the largest difference of its outputs, None where they can't be laid over one another; ``after`` are
    the last two layers that agree.
    """

    layer_a: str | None
    layer_b: str | None
    max_abs: float | None
    why: str
    after: tuple[str, str] | None = None


@dataclass(frozen=True)
class Certificate:
    """What was measured, and ``reasons``, why the two are not the same function: none when they pass."""

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    data: Mapping[str, Any]
    n: int
    compared: str
    """``logits``, or ``log-probabilities`` where a model gives probabilities: its logits are known to a constant"""
    logits: LogitsCompared
    gradients: GradientsCompared | None
    judged: tuple[Judged, ...]
    first_difference: Difference | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def flips(self) -> tuple[Flip, ...]:
        return tuple(flip for judged in self.judged for flip in judged.flips)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what was not measured, or is not a finite number, is null."""
        gradients, logits = self.gradients, self.logits
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "logits_max_abs": _finite(logits.max_abs),
            "logits_mean_abs": _finite(logits.mean_abs),
            "logits_max_relative": _finite(logits.relative),
            "logits_largest": _finite(logits.scale),
            "argmax_agreement": logits.agreement,
            "ties": logits.ties,
            "disagreeing_images": list(logits.disagreeing),
            "gradient_cosine_min": gradients.least if gradients else None,
            "gradient_cosine_mean": float(gradients.cosines.mean()) if gradients else None,
            "gradient_kinks": [
                {"image": i, "cosine": float(one.cosines[i])} for one in [gradients] if one for i in one.kinks
            ],
            "gradient_sign_agreement": gradients.signs if gradients else None,
            "verdict_flips": len(self.flips) if self.judged else None,
            "flips": [asdict(flip) for flip in self.flips],
            "attacks": [{key: value for key, value in asdict(one).items() if key != "flips"} for one in self.judged],
            "first_difference": asdict(self.first_difference) if self.first_difference else None,
            "compared": self.compared,
            "n": self.n,
            "data": dict(self.data),
            "a": dict(self.a),
            "b": dict(self.b),
            "tolerances": {
                "logits": TOLERANCE,
                "tie": TIE,
                "argmax_agreement": 1.0,
                "gradient_cosine_min": COSINE,
                "gradient_noise": NOISE,
            },
            "notes": list(self.notes),
        }


def compare_logits(a: Logits, b: Logits) -> LogitsCompared:
    """Both (N, classes)."""
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
    """The gradient of each image's cross-entropy with respect to its logits (N, classes), up to a positive factor.

    softmax - onehot is all zeros in float32 where the model is certain. Divided by the largest probability but the
    label's, which changes neither the direction nor the signs of the gradient that follows, it never is.
    """
    z = logits.astype(np.float64)
    label = np.arange(z.shape[1]) == y[:, None]
    others = np.where(label, -np.inf, z)
    shares = np.exp(others - others.max(axis=1, keepdims=True))
    return np.asarray(np.where(label, -shares.sum(axis=1, keepdims=True), shares), np.float32)


def compare_gradients(a: Images, b: Images) -> GradientsCompared:
    """Both (N, C, H, W); image by image, for they may be more than fit into memory."""
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
    """Those of the chosen images on which the first model's own gradient turns as the two models' part, by the cosines
    of both (N,) and the least of its own (chosen,)."""
    return tuple(sorted(i for i, c in zip(chosen, own, strict=True) if c < COSINE and 1 - c >= KINK * (1 - cosines[i])))


def judge(attack: str, made_on: str, y: Labels, a: Logits, b: Logits) -> Judged:
    """The verdicts of both models, by their logits (N, classes), on the images of one attack."""
    margins = _margins(a, y), _margins(b, y)
    predictions = a.argmax(axis=1), b.argmax(axis=1)
    right = predictions[0] == y, predictions[1] == y

    def flip(i: int) -> Flip:
        said = int(predictions[0][i]), int(predictions[1][i])
        return Flip(attack, made_on, i, int(y[i]), *said, float(margins[0][i]), float(margins[1][i]))

    flips = tuple(flip(int(i)) for i in np.flatnonzero(right[0] != right[1]))
    return Judged(attack, made_on, len(y), float(right[0].mean()), float(right[1].mean()), flips)


def reasons(logits: LogitsCompared, gradients: GradientsCompared | None) -> tuple[str, ...]:
    """Why it can't be one function, in words; empty where the certificate is passed."""
    found = []
    if not logits.max_abs <= TOLERANCE:
        found.append(f"logits differ by up to {logits.max_abs:.2e}, and {TOLERANCE:g} is allowed")
    if logits.disagreeing:
        found.append(f"{len(logits.disagreeing)} images are put into other classes")
    if gradients is not None and gradients.turned:
        found.append(
            f"the gradients of {len(gradients.turned)} images point elsewhere: a cosine down to {gradients.least:.6f}, "
            f"and {COSINE} is the least allowed"
        )
    return tuple(found)


def log_probabilities(logits: Logits) -> Logits:
    """log softmax, float32 (N, classes)."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits.astype(np.float64), axis=1), np.float32)


def _lead(logits: Floats) -> Floats:
    """By how much the highest logit of each image is above the next."""
    top: Floats = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:]
    found: Floats = top[:, 1] - top[:, 0]
    return found


def _margins(logits: Logits, y: Labels) -> Floats:
    z = logits.astype(np.float64)
    rows = np.arange(len(z))
    label = z[rows, y].copy()
    z[rows, y] = -np.inf
    found: Floats = label - z.max(axis=1)
    return found


def _above_noise(g: Floats) -> npt.NDArray[np.bool_]:
    size = np.abs(g)
    found: npt.NDArray[np.bool_] = size > NOISE * size.max(initial=0)
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def inputs_tried(x: Images, given: npt.NDArray[np.float32] | None) -> dict[str, npt.NDArray[np.float32]]:
    """Images as a wrong conversion may take them, by what they are; ``given`` is what the other model's network takes
    of them, after its preprocessing, if it has one."""
    found: dict[str, npt.NDArray[Any]] = {}
    if x.shape[1] == 3:
        found["its three channels reversed (RGB against BGR)"] = x[:, ::-1]
    if x.shape[2] == x.shape[3]:
        found["its rows and columns swapped"] = x.swapaxes(2, 3)
    found |= {"pixels from 0 to 255": x * 255, "pixels from 0 to 1/255": x / 255}
    found |= {"pixels from -1 to 1": 2 * x - 1, "pixels from 1/2 to 1": (x + 1) / 2}
    if given is not None and given.shape == x.shape:
        found["the preprocessing of the other (its range, mean and std)"] = given
    return {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}


def differing_most(a: Logits, b: Logits, count: int) -> Sequence[int]:
    """The numbers of the images whose logits differ most, largest first."""
    delta = np.nan_to_num(np.abs(a - b).max(axis=1), nan=np.inf)
    return [int(i) for i in np.argsort(-delta, kind="stable")[:count]]
