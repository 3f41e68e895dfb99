"""A target's judgement of a cell's adversarial images: computed once, and stored beside the cells."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.errors import InputError
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.storage import write_whole
from sparring.suites.plan.plan import releases
from sparring.suites.results import store

if TYPE_CHECKING:
    from sparring.adapters.protocol import Classifier, Images

JUDGING_VERSION = 1
"""Raise this number whenever the same images and the same target would give other decisions than before."""

Judgement = dict[str, np.ndarray]
"""``pred_clean``, ``pred_adv``, ``pred_8bit``: classes, int64 (n,). ``margin``: the adversarial image's largest logit
minus the second largest, float32 (n,)."""


def target_key(ref: ModelRef) -> str:
    """The first 20 hexadecimal digits of the sha256 of everything that a target's decisions depend on."""
    identity = [JUDGING_VERSION, ref.framework, ref.digest, releases(ref)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def place(run: Path, cell_id: str, key: str) -> Path:
    """The file for the judgement of one target on one cell."""
    return run / "judged" / cell_id / f"{key}.npz"


def read(run: Path, cell_id: str, key: str) -> Judgement | None:
    """The stored judgement, or None. Raises ``InputError`` for a damaged file."""
    path = place(run, cell_id, key)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} can't be read, delete it: {error}") from None


def judge(classifier: Classifier, run: Path, cell_id: str, key: str, *, batch_size: int) -> None:
    """Have a target judge the images of a finished cell, clean, adversarial and rounded to 8 bits, and store that.

    ``batch_size`` is the attack's: where an image lies within rounding of the boundary, its class depends on its batch.
    Raises ``InputError`` for images that the target doesn't take, and for logits that are NaN or infinite.
    """
    cell = store.read(run, cell_id, images=True)
    assert cell is not None
    x, adversarial = cell.arrays["x"], cell.arrays["x_adv"]
    if tuple(classifier.input_shape) != x.shape[1:]:
        raise InputError(f"it takes images of {tuple(classifier.input_shape)}, and these are of {x.shape[1:]}")
    scores = _logits(classifier, adversarial, batch_size)
    best = np.sort(scores, axis=1)[:, -2:]
    judgement: Judgement = {
        "pred_clean": _logits(classifier, x, batch_size).argmax(axis=1),
        "pred_adv": scores.argmax(axis=1),
        "pred_8bit": _logits(classifier, adversarial, batch_size, as_saved).argmax(axis=1),
        "margin": best[:, 1] - best[:, 0],
    }
    buffer = io.BytesIO()
    np.savez(buffer, **judgement)  # type: ignore[arg-type]
    write_whole(place(run, cell_id, key), buffer.getvalue())


def as_saved(x: Images) -> Images:
    """The images as an 8-bit file (PNG) gives them back: each value is the nearest of 0/255, 1/255, ..., 255/255."""
    return np.asarray(np.round(x * 255).astype(np.float32) / np.float32(255))


def _logits(
    classifier: Classifier, x: Images, batch_size: int, change: Callable[[Images], Images] = arrays.own
) -> np.ndarray:
    parts = []
    for start in range(0, len(x), batch_size):
        parts.append(classifier.logits(change(x[start : start + batch_size])))
        arrays.let_go(x)
    whole = np.concatenate(parts)
    if not np.isfinite(whole).all():
        raise InputError("it gives NaN or infinite logits")
    return whole
