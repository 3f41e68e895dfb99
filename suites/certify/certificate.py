"""The certificate of two models: what was measured of both on the same images, and why they are not one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-4
"""The largest difference allowed between two models' logits."""
TIE = 1e-4
"""Two classes are tied where their logits, the two highest of an image, differ by less."""
COSINE = 0.9999
"""The least cosine allowed between the two gradients of an image."""
KINK = 0.25
"""An image lies at a kink where the model's own gradient turns below ``COSINE``, and by at least this share of what
the two models' gradients are apart (both as 1 - cosine)."""
NOISE = 1e-6
"""The sign of a pixel's gradient counts where the gradient is above this share of the image's largest."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogitsCompared:
    """Two models' logits (N, classes) on the same images.

    ``disagreeing``: the numbers of the images that the two put into different classes. ``ties`` don't count: there the
    two highest logits of either model are as good as equal.
    """

    max_abs: float
    mean_abs: float
    scale: float
    """the largest absolute logit of the first"""
    ties: int
    agreement: float
    disagreeing: tuple[int, ...]

    @property
    def relative(self) -> float:
        """``max_abs`` as a share of the largest logit: about 1e-6 for rounding."""
        return self.max_abs / max(self.scale, 1e-30)


@dataclass(frozen=True)
class GradientsCompared:
    """Two models' gradients of the loss with respect to the same images.

    ``cosines`` (N,): 1 where both gradients are exactly zero, 0 where one is. ``signs``: the share of pixels whose
    gradients have the same sign, of the pixels that have a gradient in either model.

    ``kinks``: the numbers of the images that lie within rounding of a kink (of a ReLU, of a maximum). There the first
    model's own gradient turns, too, when the pixels move so little that its logits change no more than they differ
    between the models. These images don't count for ``least``.
    """

    cosines: Floats
    signs: float
    kinks: tuple[int, ...] = ()

    @property
    def turned(self) -> tuple[int, ...]:
        """The numbers of the images whose cosine is too small, the smallest first."""
        order = np.argsort(self.cosines, kind="stable")
        return tuple(int(i) for i in order if not self.cosines[i] >= COSINE and i not in self.kinks)

    @property
    def least(self) -> float:
        """The smallest cosine of an image that doesn't lie at a kink."""
        counted = np.delete(self.cosines, list(self.kinks))
        return float(counted.min(initial=1.0))


@dataclass(frozen=True)
class Flip:
    """An adversarial image that one model classifies correctly and the other doesn't.

    A margin is the label's logit minus the highest other logit: above zero the image is classified correctly.
    """

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
    """The images of one attack on one of the models, judged by both: accuracies, and the images they disagree on."""

    attack: str
    made_on: str
    images: int
    accuracy_a: float
    accuracy_b: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class Difference:
    """The first layer that differs: its name in each model (None where there is no such layer), and why it differs.

    ``max_abs``: the largest difference of its outputs, None where their shapes don't match. ``after``: the names of
    the last two layers that agree.
    """

    layer_a: str | None
    layer_b: str | None
    max_abs: float | None
    why: str
    after: tuple[str, str] | None = None


@dataclass(frozen=True)
class Certificate:
    """What was measured, and the ``reasons`` why the two are not one function: none when they pass."""

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    data: Mapping[str, Any]
    n: int
    compared: str
    """``logits``, or ``log-probabilities`` where a model gives probabilities, which give logits up to a constant"""
    logits: LogitsCompared
    gradients: GradientsCompared | None
    judged: tuple[Judged, ...]
    first_difference: Difference | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the two models are one function, as far as the measures show."""
        return not self.reasons

    @property
    def flips(self) -> tuple[Flip, ...]:
        """The flips of all attacks."""
        return tuple(flip for judged in self.judged for flip in judged.flips)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; null for what was not measured or is not a finite number."""
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
            "gradient_kinks": _kinks(gradients) if gradients else [],
            "gradient_sign_agreement": gradients.signs if gradients else None,
            "verdict_flips": len(self.flips) if self.judged else None,
            "flips": [asdict(flip) for flip in self.flips],
            "attacks": [{key: value for key, value in asdict(each).items() if key != "flips"} for each in self.judged],
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


def _kinks(gradients: GradientsCompared) -> list[dict[str, Any]]:
    return [{"image": i, "cosine": float(gradients.cosines[i])} for i in gradients.kinks]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
