"""ONNX reductions over axes, softmax, sorting and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sparring.adapters.onnx.operators.signature import Function, Ints, Table

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def reduction(reduce: Reduce, alone: Callable[[Tensor], Tensor] | None = None) -> Function:
    """A reduction whose ``axes`` are an input since opset 18 (ReduceSum: 13), before an attribute.

    Without axes it reduces over all of them, or over none with ``noop_with_empty_axes``. ``alone`` is what a reduction
    over no axes does to each number; None changes nothing.
    """

    def function(
        x: Tensor,
        axes_input: Ints | None = None,
        *,
        axes: list[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        over = axes_input or axes or []
        if not over and noop_with_empty_axes:
            return x if alone is None else alone(x)
        every = over or list(range(x.ndim))
        return reduce(x, every, bool(keepdims)).to(x.dtype) if every else (x if alone is None else alone(x))

    return function


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keepdim=keep), count, rounding_mode="trunc")


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    exact = x if x.is_floating_point() else x.to(torch.float64)
    norm: Tensor = torch.linalg.vector_norm(exact, 2, axes, keepdim=keep)
    return norm


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.logsumexp(axes, keepdim=keep)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return (x * x).sum(axes, keepdim=keep)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(reduce: Callable[..., Tensor], largest: bool) -> Reduce:
    def extreme(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel():
            return torch.as_tensor(reduce(x, axes, keepdim=keep))
        if x.dtype == torch.bool:
            return x.any(axes[0], keepdim=keep) if largest else x.all(axes[0], keepdim=keep)
        # of no numbers: the least or the greatest number of the type
        info = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        bound = (info.min if largest else info.max) if not x.is_floating_point() else math.inf * (-1 if largest else 1)
        return x.sum(axes, keepdim=keep).fill_(bound)

    return extreme


def softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    """Before opset 13 it is over all axes from ``axis`` on."""
    if opset >= 13:
        return x.softmax(-1 if axis is None else axis)
    first = 1 if axis is None else axis % x.ndim
    return x.flatten(first).softmax(-1).reshape(x.shape) if first < x.ndim else x.softmax(-1)


def log_softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    if opset >= 13:
        return x.log_softmax(-1 if axis is None else axis)
    first = 1 if axis is None else axis % x.ndim
    return x.flatten(first).log_softmax(-1).reshape(x.shape)


def hardmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    """1 at the first of the greatest, 0 elsewhere."""
    if opset >= 13:
        axis = -1 if axis is None else axis
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)
    first = 1 if axis is None else axis % x.ndim
    flat = x.flatten(first)
    return torch.zeros_like(flat).scatter(-1, flat.argmax(-1, keepdim=True), 1).reshape(x.shape)


def _arg(reduce: Callable[..., Tensor]) -> Function:
    def arg(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if not select_last_index:
            return reduce(x, axis, keepdim=bool(keepdims))
        return x.shape[axis] - 1 - reduce(x.flip(axis), axis, keepdim=bool(keepdims))

    return arg


def top_k(
    x: Tensor, count: Ints | None = None, *, k: int = 0, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """Of equal numbers the first comes first, which torch's topk doesn't promise. ``k`` is an input since opset 10."""
    wide = x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
    values, indices = torch.sort(wide, dim=axis, descending=bool(largest), stable=True)
    number = count[0] if count else k
    return values.narrow(axis, 0, number).to(x.dtype), indices.narrow(axis, 0, number)


def _running(accumulate: Callable[..., Tensor], start: int) -> Function:
    def running(x: Tensor, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
        (along,) = axis
        x = x.flip(along) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(along, 0, 1), start)
            x = torch.cat([first, x.narrow(along, 0, x.shape[along] - 1)], along)
        total = accumulate(x, along, dtype=x.dtype)
        return total.flip(along) if reverse else total

    return running


TABLE: Table = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumProd": _running(torch.cumprod, 1),
    "CumSum": _running(torch.cumsum, 0),
    "Hardmax": hardmax,
    "LogSoftmax": log_softmax,
    "ReduceL1": reduction(_l1, torch.abs),
    "ReduceL2": reduction(_l2, torch.abs),
    "ReduceLogSum": reduction(_log_sum, torch.log),
    "ReduceLogSumExp": reduction(_log_sum_exp),
    "ReduceMax": reduction(_extreme(torch.amax, True)),
    "ReduceMean": reduction(_mean),
    "ReduceMin": reduction(_extreme(torch.amin, False)),
    "ReduceProd": reduction(_prod),
    "ReduceSum": reduction(_sum),
    "ReduceSumSquare": reduction(_sum_square, torch.square),
    "Softmax": softmax,
    "TopK": top_k,
}
