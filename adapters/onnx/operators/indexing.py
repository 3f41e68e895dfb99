"""ONNX operators that choose elements by index or by condition."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import Ints, Table

Reduction = Literal["none", "add", "mul", "max", "min"]
_TORCH_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    axis %= x.ndim
    elements = x.index_select(axis, _from_the_start(indices, x.shape[axis]).flatten())
    return elements if indices.ndim == 1 else torch.unflatten(elements, axis, indices.shape)


def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, _from_the_start(indices, x.shape[axis]))


def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """The last axis of ``indices`` holds positions on the axes of x after the first ``batch_dims``."""
    batch = x.shape[:batch_dims]
    rows = x.reshape(-1, *x.shape[batch_dims:])
    positions = indices.to(torch.int64).reshape(len(rows), -1, indices.shape[-1])
    first = torch.arange(len(rows), device=x.device)[:, None].expand(positions.shape[:2])
    elements = rows[(first, *positions.unbind(-1))]
    return elements.reshape(*batch, *indices.shape[batch_dims:-1], *elements.shape[2:])


def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: Reduction = "none"
) -> Tensor:
    positions = _from_the_start(indices, x.shape[axis])
    if reduction == "none":
        lines = positions.sort(axis).values
        _once(lines.diff(dim=axis) == 0)
        return x.scatter(axis, positions, updates)
    return x.scatter_reduce(axis, positions, updates, _TORCH_REDUCTIONS[reduction])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: Reduction = "none") -> Tensor:
    depth = indices.shape[-1]
    parts = [_from_the_start(part, side) for part, side in zip(indices.unbind(-1), x.shape, strict=False)]
    row = torch.zeros_like(parts[0])
    for part, side in zip(parts, x.shape, strict=False):
        row = row * side + part
    if reduction == "none":
        _once(row.flatten().sort().values.diff() == 0)
    if reduction in ("none", "add"):
        return x.index_put(tuple(parts), updates, accumulate=reduction == "add")
    flat = x.reshape(-1, *x.shape[depth:])
    values = updates.reshape(-1, *x.shape[depth:])
    index = row.reshape(-1, *[1] * (flat.ndim - 1)).expand(values.shape)
    return flat.scatter_reduce(0, index, values, _TORCH_REDUCTIONS[reduction]).reshape(x.shape)


def _once(again: Tensor) -> None:
    """Refuses several updates of one place: ONNX leaves open which one stays, and torch's gradient goes to all."""
    if bool(again.any()):
        raise NotSupported("several updates of one place, without a reduction")


def _from_the_start(indices: Tensor, length: int) -> Tensor:
    """Indices as int64; negative ones count from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def one_hot(indices: Tensor, depth: Ints, values: Tensor, *, axis: int = -1) -> Tensor:
    """``values`` are (off, on). An index outside [-depth, depth) is off everywhere."""
    (classes,) = depth
    whole = indices.to(torch.int64)
    numbers = torch.arange(classes, device=indices.device)
    on = torch.where(whole < 0, whole + classes, whole)[..., None] == numbers
    return torch.where(on, values[1], values[0]).movedim(-1, axis)


def non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    x = x.flatten() if axis is None else x
    return x.index_select(axis or 0, torch.nonzero(condition)[:, 0])


TABLE: Table = {
    "Compress": compress,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Where": where,
}
