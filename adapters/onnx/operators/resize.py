"""ONNX resampling: Resize and Upsample multiply each axis by a matrix; GridSample and AffineGrid use torch's grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import Floats, Ints, Table

Mode = Literal["nearest", "linear", "cubic"]
Coordinates = Literal[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
]
Nearest = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]

_ROUNDING: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda at: math.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: math.floor(at + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def resize(
    x: Tensor,
    roi: Floats | None = None,
    scales: Floats | None = None,
    sizes: Ints | None = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: Coordinates = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: Literal["stretch", "not_larger", "not_smaller"] = "stretch",
    mode: Mode = "nearest",
    nearest_mode: Nearest = "round_prefer_floor",
    opset: int,
) -> Tensor:
    """In opset 10 the scales are the second input, and coordinates and rounding are fixed."""
    coordinates, rounding = str(coordinate_transformation_mode), str(nearest_mode)
    if opset < 11:
        roi, scales, coordinates, rounding = None, roi, "asymmetric", "opset 10"
    over = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    if sizes:
        scales = [size / x.shape[axis] for size, axis in zip(sizes, over, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            one = (min if keep_aspect_ratio_policy == "not_larger" else max)(scales)
            scales = [one] * len(over)
            sizes = [math.floor(one * x.shape[axis] + 0.5) for axis in over]
    if not scales:
        raise NotSupported("neither scales nor sizes")
    if not sizes:  # ONNX Runtime's scales are float32, where 1.2 * 5 is 6, not a little less
        sizes = [math.floor(np.float32(s) * np.float32(x.shape[axis])) for s, axis in zip(scales, over, strict=True)]
    cropped = coordinates == "tf_crop_and_resize"
    if not cropped and sizes == [x.shape[axis] for axis in over]:
        return x  # as in ONNX Runtime, whatever the scales; below, with antialiasing, each axis alone
    dtype, x = x.dtype, x if x.is_floating_point() else x.to(torch.float64)
    outside = None
    for i, axis in enumerate(over):
        side, scale, out = x.shape[axis], scales[i], sizes[i]
        if out == side and (scale == 1 or antialias) and not cropped:
            continue
        region = (roi[i], roi[len(over) + i]) if roi and cropped else None
        at = _places(side, out, scale, coordinates, region)
        if mode == "nearest":
            round_ = math.ceil if rounding == "opset 10" and scale < 1 else _ROUNDING.get(rounding, math.floor)
            index = [min(max(round_(place), 0), side - 1) for place in at]
            x = x.index_select(axis, torch.tensor(index, dtype=torch.int64, device=x.device))
        else:
            filters = _weights(mode, tuple(at), side, scale if antialias else 1.0, cubic_coeff_a, bool(exclude_outside))
            x = torch.tensordot(x, filters.to(x), ([axis], [1])).movedim(-1, axis)
        if region is not None:
            shape = [1] * x.ndim
            shape[axis] = out
            beyond = torch.tensor([place < 0 or place > side - 1 for place in at], device=x.device).reshape(shape)
            outside = beyond if outside is None else outside | beyond
    if outside is not None:
        x = torch.where(outside, torch.full_like(x, extrapolation_value), x)
    return x if x.dtype == dtype else x.round().to(dtype)


def _places(side: int, out: int, scale: float, coordinates: str, region: tuple[float, float] | None) -> list[float]:
    """The center of each output on the input's axis, in pixels; in float32, as in ONNX Runtime, for the same ties."""
    index, factor = np.arange(out, dtype=np.float32), np.float32(scale)
    if coordinates == "align_corners":
        places = index * (side - 1) / (out - 1) if out > 1 else index * 0
    elif coordinates == "asymmetric":
        places = index / factor
    elif coordinates == "pytorch_half_pixel" and out == 1:
        places = index * 0
    elif coordinates == "tf_half_pixel_for_nn":
        places = (index + 0.5) / factor
    elif coordinates == "tf_crop_and_resize":
        start, end = region or (0.0, 1.0)
        if out > 1:
            places = start * (side - 1) + index * (end - start) * (side - 1) / (out - 1)
        else:
            places = index + 0.5 * (start + end) * (side - 1)
    elif coordinates == "half_pixel_symmetric":
        # the part beyond a whole number of pixels is cut off at both ends
        places = (side - np.float32(out) / factor) / 2 + (index + 0.5) / factor - 0.5
    else:
        places = (index + 0.5) / factor - 0.5
    positions: list[float] = places.tolist()
    return positions


@lru_cache(maxsize=64)
def _weights(mode: str, places: tuple[float, ...], side: int, scale: float, a: float, exclude_outside: bool) -> Tensor:
    """(outputs, inputs), float64. Beyond its edge an image repeats its last pixel; with exclude_outside it ends."""
    narrow = min(1.0, scale)  # antialiasing widens the filter of an image that shrinks
    reach = (1 if mode == "linear" else 2) / narrow
    matrix = np.zeros((len(places), side))
    for row, place in enumerate(places):
        first = math.ceil(place - reach)
        neighbors = np.arange(first, math.floor(place + reach) + 1)
        distance = np.abs(neighbors - place) * narrow
        weight = np.maximum(0, 1 - distance) if mode == "linear" else _cubic(distance, a)
        if exclude_outside:
            inside = (neighbors >= 0) & (neighbors < side)
            weight = np.where(inside, weight, 0)
        np.add.at(matrix[row], np.clip(neighbors, 0, side - 1), weight / weight.sum())
    return torch.from_numpy(matrix)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def upsample(
    x: Tensor, factors: Floats | None = None, *, mode: Mode = "nearest", scales: list[float] | None = None
) -> Tensor:
    return resize(
        x,
        None,
        factors or scales,
        None,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        opset=11,
    )


def affine_grid(theta: Tensor, size: Ints, *, align_corners: int = 0) -> Tensor:
    return F.affine_grid(theta, size, align_corners=bool(align_corners))


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: Literal["linear", "bilinear", "nearest", "cubic", "bicubic"] = "linear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """Of images and volumes; torch has no cubic mode for volumes."""
    if x.ndim == 5 and mode in ("cubic", "bicubic"):
        raise NotSupported(f"mode {mode!r} of a volume")
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid, torch_mode, padding_mode, bool(align_corners))


TABLE: Table = {
    "AffineGrid": affine_grid,
    "GridSample": grid_sample,
    "Resize": resize,
    "Upsample": upsample,
}
