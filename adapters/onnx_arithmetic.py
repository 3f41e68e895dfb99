"""ONNX operators that work element by element, with NumPy's broadcasting: arithmetic, comparisons, logic, casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from typing import Literal

import torch
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx_read import dtype_of
from sparring.adapters.onnx_table import ElementType, Table

_NARROW = (torch.uint16, torch.uint32, torch.uint64)


def widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Unsigned integers of 16 bits and more, for which torch has hardly any operator, go through int64."""

    @wraps(function)
    def through_int64(*inputs: Tensor, **attributes: object) -> Tensor:
        if inputs[0].dtype not in _NARROW:
            return function(*inputs, **attributes)
        wide = [x.to(torch.int64) if x.dtype in _NARROW else x for x in inputs]
        if inputs[0].dtype == torch.uint64 and any(bool((x < 0).any()) for x in wide):
            raise NotSupported("numbers of 2**63 and more")
        result = function(*wide, **attributes)
        return result if result.dtype == torch.bool else result.to(inputs[0].dtype)

    return through_int64


def div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """With the sign of the divisor, or like C's fmod with that of the dividend."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def power(x: Tensor, y: Tensor) -> Tensor:
    if y.numel() == 1 and y.ndim <= x.ndim and y.device.type == "cpu" and not y.requires_grad:
        return torch.pow(x, y.item()).to(x.dtype)  # its derivative needs no logarithm
    return torch.pow(x, y.to(x.dtype) if x.is_floating_point() else y).to(x.dtype)


def maximum(*inputs: Tensor, producer: str) -> Tensor:
    if producer == "tf2onnx":
        return reduce(lambda a, b: torch.where((a >= b) | (a != a), a, b), inputs)
    return reduce(torch.maximum, inputs)


def minimum(*inputs: Tensor, producer: str) -> Tensor:
    """Of two equal ones torch gives each half the gradient, and TensorFlow all to the first: as the file's writer."""
    if producer == "tf2onnx":
        return reduce(lambda a, b: torch.where((a <= b) | (a != a), a, b), inputs)
    return reduce(torch.minimum, inputs)


def add_all(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs)


def mean_of_all(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def shift(x: Tensor, y: Tensor, *, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """By the width or more, or by less than nothing: all is shifted out, and the sign stays."""
    bits = torch.iinfo(x.dtype).bits
    left = direction == "LEFT"
    far, within = (y < 0) | (y >= bits), y.clamp(0, bits - 1)
    shifted = torch.bitwise_left_shift(x, within) if left else torch.bitwise_right_shift(x, within)
    return torch.where(far, torch.zeros_like(x) if left else -(x < 0).to(x.dtype), shifted)


def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    infinite = torch.isinf(x)
    if not detect_negative:
        infinite = infinite & (x > 0)
    return infinite if detect_positive else infinite & (x < 0)


def cast(x: Tensor, *, to: ElementType, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """To a float, an integer or bool; ``saturate`` and ``round_mode`` are about 8-bit floats, which we don't have."""
    return _to(x, dtype_of(to))


def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return _to(x, like.dtype)


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_floating_point() and not dtype.is_floating_point and dtype != torch.bool:
        x = x.to(torch.int64)  # a negative float straight to an unsigned integer is anything
    return x.to(dtype)


TABLE: Table = {
    "Abs": widened(torch.abs),
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": widened(torch.add),
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitShift": widened(shift),
    "BitwiseAnd": widened(torch.bitwise_and),
    "BitwiseNot": widened(torch.bitwise_not),
    "BitwiseOr": widened(torch.bitwise_or),
    "BitwiseXor": widened(torch.bitwise_xor),
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Div": widened(div),
    "Equal": widened(torch.eq),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": widened(torch.gt),
    "GreaterOrEqual": widened(torch.ge),
    "IsInf": is_inf,
    "IsNaN": torch.isnan,
    "Less": widened(torch.lt),
    "LessOrEqual": widened(torch.le),
    "Log": torch.log,
    "Max": widened(maximum),
    "Mean": mean_of_all,
    "Min": widened(minimum),
    "Mod": widened(mod),
    "Mul": widened(torch.mul),
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": power,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # half to even, as ONNX has it
    "Sign": widened(torch.sign),
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Sub": widened(torch.sub),
    "Sum": add_all,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Xor": torch.logical_xor,
}
