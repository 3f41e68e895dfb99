"""The checked input of an attack: images, labels, the classes to reach, and images to train on."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.attacks.library import Fit
from sparring.adapters.attacks.request import Request
from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Classifier, Images, Labels, check_images


def check_box(images: Any, input_shape: tuple[int, int, int]) -> None:
    """Raise ``InputError`` unless the images are float32 (N, *input_shape), finite and in [0, 1]."""
    if not isinstance(images, np.ndarray) or not images.ndim:
        check_images(images, input_shape)
    for (piece,) in arrays.pieces(images):
        check_images(piece, input_shape)
        if piece.size and (piece.min() < 0 or piece.max() > 1):
            raise InputError(f"images must lie in [0, 1], but go from {piece.min():g} to {piece.max():g}")


def check_labels(labels: Any, n: int, classes: int, what: str) -> Labels:
    """The labels as int64 (n,). Raises ``InputError`` for another length, type, or a class that the model lacks."""
    y = np.asarray(labels)
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise InputError(f"{what} must be {n} whole numbers, not {y.dtype} of shape {y.shape}")
    if n and (y.min() < 0 or y.max() >= classes):
        bad = y[(y < 0) | (y >= classes)][0]
        raise InputError(f"{what}: {bad} is out of range, for the model has {classes} classes, 0 to {classes - 1}")
    return y.astype(np.int64)


def labels_of_call(request: Request, y: Labels, targets: Any, classes: int, seed: int) -> Labels:
    """The labels that a library gets, int64 (N,): the true ones, or, where the request ``aims``, the classes to reach.

    A targeted attack without ``targets`` draws another class than y for each image from ``seed``. An untargeted attack
    that always aims at a class takes the next one. Raises ``InputError`` for bad targets.
    """
    if not request.aims:
        return y
    if not request.targeted:
        return (y + 1) % classes
    if targets is not None:
        return check_labels(targets, len(y), classes, "targets")
    return (y + np.random.default_rng(seed).integers(1, classes, len(y))) % classes


def training_images(
    request: Request, fit: tuple[Images, Labels] | None, goals: Labels, classifier: Classifier
) -> Fit | None:
    """The images on which an attack such as a patch is trained, with the labels to leave or to reach; else None.

    Raises ``InputError`` where such an attack has no images, and where a targeted one has more than one goal.
    """
    if request.canonical is None or not request.canonical.fits:
        return None
    if fit is None or not len(fit[0]):
        raise InputError(f"{request.name} is trained on other images first: give them as fit=(images, labels)")
    x, labels = fit
    check_images(x, classifier.input_shape)
    if not request.targeted:
        return Fit(x, check_labels(labels, len(x), classifier.classes, "labels of fit"))
    if len(np.unique(goals)) > 1:
        raise InputError(f"{request.name} is trained once for all images: targets must all be one class")
    return Fit(x, np.full(len(x), goals[0] if len(goals) else 0, np.int64))
