"""A classifier behind a transform of its images: the deployed defense, and the gradients for who knows of it.

A transform is one function. It takes images and coins, and gives the transformed images and the way back for a
gradient. All randomness comes from the seed and the content of each image, so that the laws of the protocol hold. The
same image has the same logits in whatever batch. Another image, as in an attack's next step, has another draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits, check_cotangent, check_images, lacks

Coins: TypeAlias = Callable[[int], np.random.Generator]
"""From a row to the random generator of its image. A transform that draws calls it once a row; others never do."""
Pull: TypeAlias = Callable[[Images], Images]
"""From the gradient with respect to the transformed images to that of the images; both float32, (N, C, H, W)."""
Transform: TypeAlias = Callable[[Images, Coins], tuple[Images, Pull]]
"""From float32 images (N, C, H, W) to images of that shape in [0, 1] and the gradient's way back. Writes to neither."""

GRADIENTS = ("exact", "straight-through", "expectation", "none")


class Defended:
    """A classifier whose images are transformed first, as a ``Classifier``: use ``defended`` to make one."""

    framework = "defended"

    def __init__(self, inner: Classifier, transform: Transform, seed: int, gradients: str, draws: int) -> None:
        self.inner, self.transform, self.seed, self.gradients, self.draws = inner, transform, seed, gradients, draws
        self.input_shape, self.classes = inner.input_shape, inner.classes
        blocked = {"gradients": "needs gradients, and none pass through the defense"} if gradients == "none" else {}
        self.lacks = blocked | lacks(inner)

    def logits(self, x: Images) -> Logits:
        """Logits (N, classes), float32, of the transformed images. Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        images, _ = self.transform(x, coins(self.seed, x, 0))
        return self.inner.logits(images)


class DefendedDifferentiable(Defended):
    """A ``Defended`` with gradients: how they pass through the transform is in ``gradients``."""

    inner: Differentiable

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The mean over ``draws`` of the gradient through the transform. Raises as the protocol says.

        The draws are the attacker's own: none is the one that ``logits`` makes for this image.
        """
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        total = np.zeros(x.shape, np.float64)
        for draw in range(1, self.draws + 1):
            images, pull = self.transform(x, coins(self.seed, x, draw))
            gradient = self.inner.vjp(images, cotangent)
            total += gradient if self.gradients == "straight-through" else pull(gradient)
        return np.asarray(total / self.draws, np.float32)


def defended(
    inner: Classifier, transform: Transform, *, seed: int = 0, gradients: str = "exact", draws: int = 1
) -> Defended:
    """The classifier behind the transform; a ``Differentiable`` where the classifier is one and gradients pass.

    ``gradients`` says how gradients pass:

    - ``exact``: the derivative of a transform that draws nothing;
    - ``straight-through``: as if the transform did nothing (BPDA with the identity, Athalye, Carlini, Wagner 2018,
      section 4.1);
    - ``expectation``: the mean over ``draws`` (EOT, section 4.2 there);
    - ``none``.

    Raises ``InputError`` for another word.
    """
    if gradients not in GRADIENTS:
        raise InputError(f"gradients must be one of {', '.join(GRADIENTS)}, not {gradients!r}")
    if gradients != "none" and isinstance(inner, Differentiable):
        return DefendedDifferentiable(inner, transform, seed, gradients, draws)
    return Defended(inner, transform, seed, gradients, draws)


def coins(seed: int, x: Images, draw: int) -> Coins:
    """A generator for each row, from the seed, the row's content and the number of the draw."""

    def coin(row: int) -> np.random.Generator:
        # adding 0 makes one of the two zeros that are equal but not the same bytes
        content = hashlib.blake2b((x[row] + np.float32(0)).tobytes(), digest_size=16).digest()
        return np.random.default_rng([seed, int.from_bytes(content, "little"), draw])

    return coin
