"""Adversarial patches on the protocol, in NumPy: one small picture that changes the class of any image, anywhere in it.

Brown, Mané, Roy, Abadi, Gilmer 2017, "Adversarial Patch", section 2: the patch maximizes the expected log-probability
of the target over images, places and transformations, here (as there) by gradients of draws from them. The text leaves
some things open. Here the optimizer is Adam, with a learning rate that may fall to 0. Places are uniform within the
image, and so are rotation and scale. Untargeted the patch minimizes the expected log-probability of the true classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import Call, Crafted, Fit
from sparring.adapters.errors import InputError
from sparring.adapters.libraries.own.patch_placement import Range, Reals, draw, mask, paste, place, pull
from sparring.adapters.protocol import Classifier, Differentiable, Images, Labels, Logits, linearized
from sparring.adapters.wrappers.transformed import coins

START = 0.5
"""The patch begins as gray."""
BETAS = (0.9, 0.999)
"""Of Adam: Kingma, Ba 2015, algorithm 1."""
PLACING = ("size", "shape", "rotation", "scale_min", "scale_max")
"""The parameters that say how a patch is put into an image."""


def patch(
    classifier: Differentiable,
    x: Images,
    *,
    fit: Fit,
    targeted: bool,
    seed: int,
    size: int,
    shape: str,
    steps: int,
    learning_rate: float,
    decay: bool,
    batch: int,
    rotation: float,
    scale_min: float,
    scale_max: float,
) -> Crafted:
    """A patch trained on ``fit`` and pasted into x (N, C, H, W), one place an image, drawn from seed and content.

    ``size`` in pixels, ``shape`` square or circle, ``rotation`` in degrees either way. A step takes ``batch`` training
    images, each with a place of its own. Samples: ``placement`` (N, 4), row and column of the middle, degrees
    counterclockwise, scale. Whole: ``patch`` float32 (C, size, size) in [0, 1], ``mask`` bool (size, size), its visible
    pixels. Raises ``InputError`` for a patch larger than the images, and without images to train on.
    """
    where = ranged(x.shape[1:], size, shape, rotation, scale_min, scale_max)
    trained = train(
        classifier,
        fit,
        where,
        targeted=targeted,
        seed=seed,
        steps=steps,
        learning_rate=learning_rate,
        decay=decay,
        batch=batch,
    )
    return put(x, trained, where, seed)


def session(classifier: Classifier) -> Callable[[Call], Crafted]:
    """Runs calls of ``patch``: one patch is trained for all batches of a cell, and no place depends on the batch."""
    trained: dict[tuple[object, ...], tuple[Fit, npt.NDArray[np.float32], int]] = {}

    def run(call: Call) -> Crafted:
        if call.fit is None or call.context is None:
            raise InputError("patch is trained on other images than it is tested on: give it some (data: fit)")
        settings = dict(call.kwargs)
        where = ranged(call.x.shape[1:], **{key: settings.pop(key) for key in PLACING})
        key = id(call.fit), call.targeted, *sorted(call.kwargs.items())
        if key not in trained:
            assert isinstance(classifier, Differentiable)  # the catalogue says that it needs gradients
            seed = call.context.seed
            picture = train(classifier, call.fit, where, targeted=call.targeted, seed=seed, **settings)
            trained[key] = call.fit, picture, seed  # the images are kept, so that no others get their id
        _, picture, seed = trained[key]
        return put(call.x, picture, where, seed)

    return run


def ranged(image: tuple[int, ...], size: int, shape: str, rotation: float, scale_min: float, scale_max: float) -> Range:
    """The placements that these parameters allow. Raises ``InputError`` where the patch doesn't fit into the image."""
    if size > min(image[1:]):
        raise InputError(f"patch: size {size} is more than the images have, {image[1]} x {image[2]} pixels")
    if scale_min > scale_max:
        raise InputError(f"patch: scale_min {scale_min:g} is more than scale_max {scale_max:g}")
    return Range(size, shape == "circle", rotation, (scale_min, scale_max))


def train(
    classifier: Differentiable,
    fit: Fit,
    where: Range,
    *,
    targeted: bool,
    seed: int,
    steps: int,
    learning_rate: float,
    decay: bool,
    batch: int,
) -> npt.NDArray[np.float32]:
    """The patch, (C, size, size) in [0, 1]. Raises ``InputError`` without images to train on."""
    generator = np.random.default_rng(seed)
    pixels = np.full((fit.x.shape[1], where.size, where.size), START)
    mean, square = np.zeros_like(pixels), np.zeros_like(pixels)
    for step, rows in enumerate(batches(generator, len(fit.x), batch, steps), start=1):
        x, labels = fit.x[rows], fit.labels[rows]
        places = [place(draw(generator, where, *x.shape[2:]), where, *x.shape[2:]) for _ in rows]
        pasted = paste(x, pixels, places)
        logits, back = linearized(classifier, pasted)
        cotangent = towards(logits, labels)
        slope = pull(back(cotangent if targeted else -cotangent), places, where.size)
        mean = BETAS[0] * mean + (1 - BETAS[0]) * slope
        square = BETAS[1] * square + (1 - BETAS[1]) * slope**2
        length = np.sqrt(square / (1 - BETAS[1] ** step))
        move = np.divide(mean / (1 - BETAS[0] ** step), length, out=np.zeros_like(pixels), where=length > 0)
        rate = learning_rate * (1 - (step - 1) / steps if decay else 1)
        pixels = np.clip(pixels - rate * move, 0, 1)
    return pixels.astype(np.float32)


def batches(generator: np.random.Generator, n: int, batch: int, steps: int) -> list[npt.NDArray[np.int64]]:
    """The rows of each step's images: all in a random order, then all in another. Raises ``InputError`` if n is 0."""
    if not n:
        raise InputError("patch: there are no images to train it on")
    size = min(batch, n)
    rounds = [generator.permutation(n)[: n - n % size].reshape(-1, size) for _ in range(-(-steps // (n // size)))]
    return [rows for rows in np.concatenate(rounds)[:steps].astype(np.int64)]


def towards(logits: Logits, labels: Labels) -> Logits:
    """The gradient of the mean cross-entropy with respect to the logits: descending it leads to the labels.

    Computed in float64. A label's own share is minus the sum of the others, which doesn't vanish near certainty.
    """
    from scipy.special import softmax

    share = softmax(logits.astype(np.float64), axis=1)
    own = np.arange(len(share)), labels
    share[own] = 0
    share[own] = -share.sum(axis=1)
    gradient: Logits = (share / max(len(share), 1)).astype(np.float32)
    return gradient


def put(x: Images, patch: npt.NDArray[np.float32], where: Range, seed: int) -> Crafted:
    """The patch in each image, at a place drawn from the seed and the image's own content."""
    coin = coins(seed, x, 0)
    height, width = x.shape[2:]
    placements = [draw(coin(row), where, height, width) for row in range(len(x))]
    placement: Reals = np.reshape(placements, (len(x), 4)).astype(np.float64)
    pasted = paste(x, patch, [place(one, where, height, width) for one in placement])
    visible = mask(where.size, where.round)
    return Crafted(pasted, {"placement": placement}, {"patch": patch, "mask": visible})
