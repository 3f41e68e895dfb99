"""Images from arrays: .npz files, and what a data set of another package returns."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images
from sparring.models.data.pool import NoPart, Pool, Split, class_names, refuse
from sparring.models.spec import DataSpec

# --- arrays ---------------------------------------------------------------------------------------------------------


def from_npz(path: Path, spec: DataSpec, split: Split) -> Pool:
    """A pool of an .npz file: x_train, y_train, x_test, y_test, or x, y (a test part alone), as for ``from_arrays``.

    Class names are the lines of ``class_names.txt`` beside the file. Raises ``InputError`` for a file that is missing,
    damaged, pickled or lacks arrays.
    """
    refuse(spec, str(path))
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is not an .npz archive but a single array")
        with archive:
            keys = set(archive.files)
            suffix = f"_{split}" if {f"x_{split}", f"y_{split}"} & keys else ""
            for key in (f"x{suffix}", f"y{suffix}"):
                if key not in keys:
                    held = ", ".join(sorted(keys)) or "nothing"
                    wanted = "wanted x_train, y_train, x_test, y_test, or x, y"
                    raise InputError(f"{path} has no array {key!r} for the {split} part: it holds {held}; {wanted}")
            if not suffix and split == "train":
                raise NoPart(f"{path} has no training part: it holds x, y; training needs x_train, y_train")
            x, y = archive[f"x{suffix}"], archive[f"y{suffix}"]
            # the classes are those of both parts: a small test part need not hold every class
            label_arrays = [archive[key] for key in sorted(keys & {"y", "y_train", "y_test"})]
            # of a file that is no array NumPy gives its bytes
            if not all(isinstance(array, np.ndarray) for array in (x, y, *label_arrays)):
                raise ValueError("it holds files that are no arrays")
    except InputError:
        raise
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as exc:
        pickled = "pickle" in str(exc)
        why = "it holds pickled objects, which are never loaded" if pickled else f"damaged or not an .npz file ({exc})"
        raise InputError(f"{path} can't be read: {why}") from exc
    names = class_names(path.parent)
    if names is None:
        highest = max(
            (int(labels.max()) for labels in label_arrays if labels.dtype.kind in "iu" and labels.size), default=-1
        )
        names = tuple(map(str, range(highest + 1)))
    return from_arrays(x, y, split, names or None, str(path))


def from_arrays(
    x: npt.NDArray[Any], y: npt.NDArray[Any], split: Split, names: tuple[str, ...] | None, what: str
) -> Pool:
    """A pool of arrays: images uint8 0..255 or float in [0, 1], (N, H, W, C), (N, C, H, W) or (N, H, W); labels (N,) or
    (N, 1), integers from 0. Raises ``InputError``, which begins with ``what``, for anything else."""
    if x.ndim not in (3, 4):
        raise InputError(f"{what}: the images have shape {x.shape}; wanted (N, H, W, C), (N, C, H, W) or (N, H, W)")
    if not x.size:
        raise InputError(f"{what}: the {split} part is empty: its images have shape {x.shape}")
    if x.dtype.kind == "f":
        if bad := int(np.count_nonzero(~np.isfinite(x))):
            raise InputError(f"{what}: the images of the {split} part hold {bad} values that are NaN or infinite")
        if x.min() < 0 or x.max() > 1:
            span = f"[{x.min():g}, {x.max():g}]"
            raise InputError(f"{what}: the images lie in {span}; wanted floats in [0, 1], or uint8 in 0..255")
    elif x.dtype != np.uint8:
        raise InputError(f"{what}: the images have dtype {x.dtype}; wanted uint8 (0..255) or floats in [0, 1]")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        hint = ", which looks one-hot: use y.argmax(1)" if y.ndim == 2 else ""
        raise InputError(f"{what}: the labels have shape {y.shape}{hint}; wanted (N,)")
    if y.dtype.kind not in "iu":
        raise InputError(f"{what}: the labels have dtype {y.dtype}; wanted integers, class indices from 0")
    if len(x) != len(y):
        raise InputError(f"{what}: {len(x)} images but {len(y)} labels in the {split} part")
    names = names or tuple(map(str, range(int(y.max()) + 1)))
    if y.min() < 0 or y.max() >= len(names):
        span = f"they go from {y.min()} to {y.max()}, and there are {len(names)} classes"
        raise InputError(f"{what}: labels out of range: {span}")
    channels_first = x[:, None] if x.ndim == 3 else np.moveaxis(x, channel_axis(x.shape, what), 1)
    return Pool(y.astype(np.int64), names, lambda chosen, _: _as_float(channels_first[chosen]))


def channel_axis(shape: tuple[int, ...], what: str) -> int:
    """The axis of the channels of a batch of images: the one of 1, 3 or 4. ``InputError`` if both or none are."""
    candidates = [axis for axis in (1, 3) if shape[axis] in (1, 3, 4)]
    if len(candidates) == 1:
        return candidates[0]
    problem = "the channels could be first or last" if candidates else "neither axis 1 nor 3 has 1, 3 or 4 channels"
    raise InputError(f"{what}: images of shape {shape}: {problem}; wanted (N, H, W, C), (N, C, H, W) or (N, H, W)")


def _as_float(x: npt.NDArray[Any]) -> Images:
    floats = np.ascontiguousarray(x, dtype=np.float32)
    return floats / np.float32(255) if x.dtype == np.uint8 else floats
