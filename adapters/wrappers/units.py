"""What an attack sees of a classifier: images in other units, logits divided by a temperature.

The classifier that judges stays as it is, and so do the stored images: pixels in [0, 1]. A library works on what
``view`` makes of them, and its result is brought back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits, check_cotangent, check_images, lacks

Space = Literal["pixels", "normalised", "normalised-first"]
"""``pixels``: images in [0, 1]. ``normalised``: eps and eps_step are in units of the standardized input, (x - mean)
/ std; the valid images stay the same. ``normalised-first``: the library gets standardized images and still takes [0,
1] for their range. Scripts that normalize before they attack do this: a library that clamps to its range then loses
what lies outside."""
SPACES: tuple[Space, ...] = get_args(Space)
IN_UNITS_OF_THE_IMAGE = ("eps", "eps_step")
"""The parameters of canonical attacks that are lengths."""


@dataclass(frozen=True)
class View:
    """What a library gets in place of a classifier and its images.

    eps and eps_step are multiplied by ``unit``. ``bounded`` says whether the library's images lie in the box, so that
    box and budget can be checked there.
    """

    classifier: Classifier
    to: Callable[[Images], Images]
    """images in [0, 1] -> the library's images; float32, the same shape"""
    back: Callable[[Images], Images]
    """the library's images -> images in [0, 1]"""
    unit: float = 1.0
    bounded: bool = True


class Viewed:
    """A classifier of ``scale * x + shift`` per channel, whose logits are divided by ``temperature``."""

    framework = "defended"
    """libraries have no native door to it"""

    def __init__(self, inner: Classifier, scale: Images, shift: Images, temperature: float) -> None:
        self.inner, self.scale, self.shift = inner, scale, shift
        self.temperature = np.float32(temperature)
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.lacks = lacks(inner)

    def logits(self, x: Images) -> Logits:
        """Logits (N, classes), float32. Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        logits: Logits = self.inner.logits(self._pixels(x)) / self.temperature
        return logits

    def _pixels(self, x: Images) -> Images:
        return x * self.scale + self.shift


class ViewedDifferentiable(Viewed):
    """A ``Viewed`` with gradients."""

    inner: Differentiable

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The exact gradient. Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        gradient: Images = self.inner.vjp(self._pixels(x), cotangent / self.temperature) * self.scale
        return gradient


def view(
    classifier: Classifier, *, space: Space = "pixels", temperature: float = 1.0, before: Preprocessing | None = None
) -> View | None:
    """The view of a classifier in a space, its logits divided by ``temperature``; None where both change nothing.

    ``before`` is what the model does to pixels first (``preprocessing``); None means that it takes pixels. A network
    that was distilled at a high temperature saturates, and dividing its logits takes that away (Carlini, Wagner 2016,
    "Defensive Distillation is Not Robust to Adversarial Examples", section 4). Raises ``InputError`` for another space
    or a temperature that isn't above 0.
    """
    if space not in SPACES:
        raise InputError(unknown("space", space, SPACES))
    if not temperature > 0:
        raise InputError(f"temperature: {temperature} is not above 0")
    if space == "pixels" and temperature == 1:
        return None
    one = np.ones((classifier.input_shape[0], 1, 1), np.float32)
    # of the standardised input n = scale * x + shift, in the images' channel order
    scale, shift = (one, one * 0) if before is None or before.affine is None else before.affine
    if before is not None and before.reverse:
        scale, shift = scale[::-1], shift[::-1]
    unit = 1.0
    if space == "pixels":
        scale, shift = one, one * 0
    elif space == "normalised":
        # the least box that holds all channels becomes [0, 1]
        low, high = float(shift.min()), float((shift + scale).max())
        unit = 1 / (high - low)
        scale, shift = scale * np.float32(unit), (shift - np.float32(low)) * np.float32(unit)
    kind = ViewedDifferentiable if isinstance(classifier, Differentiable) else Viewed
    inverse = 1 / scale
    return View(
        kind(classifier, inverse, -shift * inverse, temperature),  # type: ignore[arg-type]
        lambda x: np.ascontiguousarray(x * scale + shift, np.float32),
        lambda x: np.ascontiguousarray(np.clip((x - shift) * inverse, 0, 1), np.float32),
        unit,
        bounded=space != "normalised-first",
    )
