"""ONNX operators on single elements, with NumPy's broadcasting: arithmetic, logic, casts, activations, dequantization.

At their kinks activations have the derivatives of torch's own. Quantization rounds, so it has no gradient and is not in
the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import ElementType, Floats, Table, dtype_of

_NARROW = (torch.uint16, torch.uint32, torch.uint64)


def widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Computes unsigned integers of 16 bits and more in int64, for torch has hardly any operator for them."""

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
    """The remainder, with the sign of the divisor, or, like C's fmod, with that of the dividend."""
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
    """Of two equal numbers each gets half the gradient, as in torch; in TensorFlow's files the first gets all."""
    if producer == "tf2onnx":
        return reduce(lambda a, b: torch.where((a <= b) | (a != a), a, b), inputs)
    return reduce(torch.minimum, inputs)


def add_all(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs)


def mean_of_all(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def shift(x: Tensor, y: Tensor, *, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """A shift by the width or more, or by a negative number, leaves the sign alone."""
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
    """A cast to float, integer or bool. ``saturate`` and ``round_mode`` concern 8-bit floats, which we don't have."""
    return _to(x, dtype_of(to))


def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return _to(x, like.dtype)


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_floating_point() and not dtype.is_floating_point and dtype != torch.bool:
        x = x.to(torch.int64)  # a direct cast of a negative float to an unsigned integer is undefined
    return x.to(dtype)


# Activations


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, alpha, 0.0)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * F.elu(x, alpha)


def gelu(x: Tensor, *, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def swiglu(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    return swish(a, alpha=alpha) * b


def mish(x: Tensor) -> Tensor:
    return F.mish(x)


def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return F.hardtanh(alpha * x + beta, 0.0, 1.0)


def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, zero)).to(x.dtype)


def clip(
    x: Tensor,
    least: Floats | None = None,
    most: Floats | None = None,
    *,
    min: float | None = None,
    max: float | None = None,
) -> Tensor:
    """At a bound the derivative is 0, as for nn.ReLU6, nn.Hardtanh, torch 2.15's clamp and TensorFlow's relu6.

    In a network that begins with a Clip to [0, 1], every black and every white pixel is at a bound and has no gradient.
    The same module does so in torch. TensorFlow's ``clip_by_value`` has 1 there; in files it is a Min and a Max.
    """
    low = min if least is None else least[0]
    high = max if most is None else most[0]
    if low is None and high is None:
        return x
    if low is not None and high is not None and low < high and x.is_floating_point():
        return F.hardtanh(x, low, high)
    wide = x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
    return torch.clamp(wide, low, high).to(x.dtype)


# Quantized numbers


def dequantize(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: ElementType | None = None,
) -> Tensor:
    """(x - zero) * scale, with one scale for all, for each place on the axis, or for each block of places."""
    dtype = dtype_of(output_dtype) if output_dtype else scale.dtype
    steps = x.to(dtype) if zero is None else x.to(dtype) - _spread(zero.to(dtype), x, axis, block_size)
    return steps * _spread(scale.to(dtype), x, axis, block_size)


def _spread(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    if values.numel() == 1:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


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
    "Celu": celu,
    "Clip": clip,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "DequantizeLinear": dequantize,
    "Div": widened(div),
    "Elu": elu,
    "Equal": widened(torch.eq),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Gelu": gelu,
    "Greater": widened(torch.gt),
    "GreaterOrEqual": widened(torch.ge),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "IsInf": is_inf,
    "IsNaN": torch.isnan,
    "LeakyRelu": leaky_relu,
    "Less": widened(torch.lt),
    "LessOrEqual": widened(torch.le),
    "Log": torch.log,
    "Max": widened(maximum),
    "Mean": mean_of_all,
    "Min": widened(minimum),
    "Mish": mish,
    "Mod": widened(mod),
    "Mul": widened(torch.mul),
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": torch.reciprocal,
    "Relu": relu,
    "Round": torch.round,  # half to even, as in ONNX
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": torch.sigmoid,
    "Sign": widened(torch.sign),
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": softplus,
    "Softsign": softsign,
    "Sqrt": torch.sqrt,
    "Sub": widened(torch.sub),
    "Sum": add_all,
    "SwiGLU": swiglu,
    "Swish": swish,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "ThresholdedRelu": thresholded_relu,
    "Xor": torch.logical_xor,
}
