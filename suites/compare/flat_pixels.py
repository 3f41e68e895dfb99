"""Pixels whose gradient is zero within rounding: its sign is noise, and a step along it says nothing of an attack."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.suites.results import store

ROUNDING = 1e-6
"""Of the largest gradient of an image: what sums in float32 may be off by."""


def flat_pixels(classifier: Differentiable, x: Images, y: Labels) -> npt.NDArray[np.bool_]:
    """Where the gradient of the cross-entropy is zero within rounding; bool, (N, C, H, W).

    The whole image, where its softmax is so certain that nothing is left of its gradient.
    """
    from scipy.special import softmax

    if not len(x):
        return np.zeros(x.shape, bool)
    cotangent = softmax(classifier.logits(x).astype(np.float64), axis=1)
    cotangent[np.arange(len(y)), y] -= 1
    gradient = np.abs(classifier.vjp(x, cotangent.astype(np.float32)).astype(np.float64))
    flat: npt.NDArray[np.bool_] = gradient <= ROUNDING * gradient.max(axis=(1, 2, 3), keepdims=True)
    return flat


def mark(classifier: Differentiable, run: Path, cell_id: str) -> None:
    """Store beside a cell's images where their gradient is flat: at the clean image or at the adversarial one."""
    if _file(run, cell_id).exists():
        return
    result = store.read(run, cell_id, images=True)
    assert result is not None
    arrays = result.arrays
    flat = flat_pixels(classifier, arrays["x"], arrays["y"]) | flat_pixels(classifier, arrays["x_adv"], arrays["y"])
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(flat), allow_pickle=False)
    store.write_whole(_file(run, cell_id), buffer.getvalue())


def marked(run: Path, cell_id: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """What ``mark`` stored, in the images' shape; None when it has not."""
    try:
        packed = np.load(_file(run, cell_id), allow_pickle=False)
    except FileNotFoundError:
        return None
    return np.unpackbits(packed, count=int(np.prod(shape))).astype(bool).reshape(shape)


def _file(run: Path, cell_id: str) -> Path:
    return store.cell_folder(run, cell_id) / "flat.npy"
