"""ONNX operators that rearrange, cut, join and pad tensors, and that make tensors from shapes."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import ElementType, Floats, Ints, Table, dtype_of


def identity(x: Tensor) -> Tensor:
    return x


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


def reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    if not allowzero and 0 in shape:
        shape = [x.shape[i] if side == 0 else side for i, side in enumerate(shape)]
    return x.reshape(shape)


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return x.permute(tuple(perm) if perm is not None else tuple(range(x.ndim - 1, -1, -1)))


def squeeze(x: Tensor, axes_input: Ints | None = None, *, axes: list[int] | None = None) -> Tensor:
    """``axes`` is an input since opset 13."""
    axes_input = axes if axes_input is None else axes_input
    if axes_input is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes_input):
        raise NotSupported(f"axes {axes_input} of a tensor of shape {tuple(x.shape)}")
    return x.squeeze(tuple(axes_input))


def unsqueeze(x: Tensor, axes_input: Ints | None = None, *, axes: list[int] | None = None) -> Tensor:
    axes_input = axes_input or axes or []
    rank = x.ndim + len(axes_input)
    for axis in sorted(a % rank for a in axes_input):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Ints) -> Tensor:
    """Expands x to the broadcast of both shapes: a side of ``shape`` may be 1."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))  # type: ignore[no-untyped-call]


def tile(x: Tensor, repeats: Ints) -> Tensor:
    return x.repeat(repeats) if repeats else x


def concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


def split(
    x: Tensor,
    sizes: Ints | None = None,
    *,
    axis: int = 0,
    split: list[int] | None = None,
    num_outputs: int | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    """``split`` is an input since opset 13. Without it parts are equal; since opset 18 the last one may be smaller."""
    sizes = sizes or split
    return tuple(torch.split(x, sizes or max(1, -(-x.shape[axis] // outputs)), axis))


def slice_(
    x: Tensor,
    begin: Ints | None = None,
    end: Ints | None = None,
    over: Ints | None = None,
    steps: Ints | None = None,
    *,
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    axes: list[int] | None = None,
) -> Tensor:
    """Starts, ends and axes are attributes before opset 10."""
    begin, end, over = begin or starts or [], end or ends or [], over or axes
    for i, axis in enumerate(over if over else range(len(begin))):
        cut = slice(begin[i], end[i], steps[i] if steps else 1)
        if cut.step > 0:
            x = x[(*[slice(None)] * (axis % x.ndim), cut)]
        else:  # torch has no negative steps
            backwards = range(x.shape[axis])[cut]
            x = x.index_select(axis, torch.tensor(backwards, dtype=torch.int64, device=x.device))
    return x


def pad(
    x: Tensor,
    widths: Ints | None = None,
    fill: Floats | None = None,
    over: Ints | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
    pads: list[int] | None = None,
    value: float = 0.0,
) -> Tensor:
    """Negative widths cut off. ``pads`` and ``value`` are inputs since opset 11."""
    widths = widths or pads or []
    axes = range(x.ndim) if over is None else [axis % x.ndim for axis in over]
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(axes):
        before[axis], after[axis] = widths[i], widths[len(axes) + i]
    if mode == "constant":
        number = fill[0] if fill else value
        return F.pad(x, padding(before, after), value=number)
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        if first or last:
            x = x.index_select(axis, _edge(x.shape[axis], first, last, mode).to(x.device))
    return x


def padding(before: list[int], after: list[int]) -> list[int]:
    """The widths in torch's order: the last axis first."""
    return [width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair]


def _edge(length: int, before: int, after: int, mode: str) -> Tensor:
    index = torch.arange(-before, length + after)
    if mode == "edge":
        return index.clamp(0, length - 1)
    if mode == "wrap":
        return index % length
    period = max(1, 2 * (length - 1))
    index = index % period
    return torch.where(index < length, index, period - index)


def range_(start: Tensor, limit: Tensor, delta: Tensor, *, stash_type: int = 1) -> Tensor:
    if start.requires_grad or limit.requires_grad or delta.requires_grad:
        raise NotSupported("with numbers that depend on the input")
    first, last, step = start.item(), limit.item(), delta.item()
    count = max(0, math.ceil((last - first) / step))
    if not start.is_floating_point():
        return (torch.arange(count) * int(step) + int(first)).to(start.dtype)
    return (torch.arange(count, dtype=torch.float64) * step + first).to(start.dtype)


def constant(
    *,
    value: Tensor | None = None,
    sparse_value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
    value_string: str | None = None,
    value_strings: list[str] | None = None,
) -> Tensor:
    for tensor in (value, sparse_value):
        if tensor is not None:
            return tensor
    for integers in (value_int, value_ints):
        if integers is not None:
            return torch.tensor(integers, dtype=torch.int64)
    for floats in (value_float, value_floats):
        if floats is not None:
            return torch.tensor(floats, dtype=torch.float32)
    raise NotSupported("elements of type STRING")


def constant_of_shape(shape: Ints, *, value: Tensor | None = None) -> Tensor:
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


def eye_like(x: Tensor, *, dtype: ElementType | None = None, k: int = 0) -> Tensor:
    ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else dtype_of(dtype), device=x.device)
    return ones.triu(k).tril(k)


def trilu(x: Tensor, k: Ints | None = None, *, upper: int = 1) -> Tensor:
    return x.triu(k[0] if k else 0) if upper else x.tril(k[0] if k else 0)


def depth_to_space(x: Tensor, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b, deep = blocksize, c // blocksize**2
    if mode == "DCR":
        parts = x.reshape(n, b, b, deep, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, deep, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, deep, h * b, w * b)


def space_to_depth(x: Tensor, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    parts = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return parts.permute(order).reshape(n, c * b * b, h // b, w // b)


def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Reverses the first ``lengths`` steps of each row; the rest stays."""
    steps = torch.arange(x.shape[time_axis], device=x.device)[:, None]
    lengths = lengths.to(x.device)
    index = torch.where(steps < lengths, lengths - 1 - steps, steps)  # (time, batch)
    time_first = x.movedim((time_axis, batch_axis), (0, 1))
    full = index.reshape(*index.shape, *[1] * (x.ndim - 2)).expand(time_first.shape)
    return time_first.gather(0, full).movedim((0, 1), (time_axis, batch_axis))


def center_crop_pad(x: Tensor, shape: Ints, *, axes: list[int] | None = None) -> Tensor:
    for axis, target in zip(range(x.ndim) if axes is None else axes, shape, strict=True):
        side = x.shape[axis]
        if side > target:
            x = x.narrow(axis, (side - target) // 2, target)
        elif side < target:
            before, after = [0] * x.ndim, [0] * x.ndim
            before[axis] = (target - side) // 2
            after[axis] = target - side - before[axis]
            x = F.pad(x, padding(before, after))
    return x


TABLE: Table = {
    "CenterCropPad": center_crop_pad,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "Identity": identity,
    "Pad": pad,
    "Range": range_,
    "Reshape": reshape,
    "ReverseSequence": reverse_sequence,
    "Shape": shape,
    "Size": size,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
}
