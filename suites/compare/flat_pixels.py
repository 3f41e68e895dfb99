"""Flat pixels: their gradient is zero within rounding, so that its sign is noise and tells nothing of an attack."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.models.storage import write_whole
from sparring.suites.results import store

ROUNDING = 1e-6
"""The error of sums in float32, as a share of an image's largest gradient."""


def flat_pixels(classifier: Differentiable, x: Images, y: Labels) -> npt.NDArray[np.bool_]:
    """Where the gradient of the cross-entropy is zero within rounding: bool, (N, C, H, W).

    All pixels of an image are flat where its softmax is so certain that nothing is left of its gradient.
    """
    if not len(x):
        return np.zeros(x.shape, bool)
    logits = classifier.logits(x).astype(np.float64)
    cotangent = softmax(logits, axis=1)
    cotangent[np.arange(len(y)), y] -= 1
    gradient = np.abs(classifier.vjp(x, cotangent.astype(np.float32)).astype(np.float64))
    return np.asarray(gradient <= ROUNDING * gradient.max(axis=(1, 2, 3), keepdims=True))


def mark(classifier: Differentiable, run: Path, cell_id: str) -> None:
    """Store beside a cell's images which pixels are flat, at the clean image or at the adversarial one."""
    if _file(run, cell_id).exists():
        return
    result = store.read(run, cell_id, images=True)
    assert result is not None
    arrays = result.arrays
    flat = flat_pixels(classifier, arrays["x"], arrays["y"]) | flat_pixels(classifier, arrays["x_adv"], arrays["y"])
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(flat), allow_pickle=False)
    write_whole(_file(run, cell_id), buffer.getvalue())


def marked(run: Path, cell_id: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """The flat pixels that ``mark`` stored, in the images' shape; None where it stored none."""
    try:
        packed = np.load(_file(run, cell_id), allow_pickle=False)
    except FileNotFoundError:
        return None
    return np.unpackbits(packed, count=int(np.prod(shape))).astype(bool).reshape(shape)


def _file(run: Path, cell_id: str) -> Path:
    return store.cell_folder(run, cell_id) / "flat.npy"
