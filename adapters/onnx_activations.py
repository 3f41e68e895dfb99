"""ONNX activation functions; at their kinks they have the derivatives of torch's own."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.onnx_table import Floats, Table


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
    """At a bound the derivative is 0, that of nn.ReLU6, nn.Hardtanh, torch 2.15's clamp and TensorFlow's relu6.

    Of a Clip to [0, 1] in front of a network, every black and every white pixel is at a bound and has no gradient. That
    is what the same module does in torch; TensorFlow's ``clip_by_value``, which has 1 there, reaches us as Min and Max.
    """
    low = min if least is None else least[0]
    high = max if most is None else most[0]
    if low is None and high is None:
        return x
    if low is not None and high is not None and low < high and x.is_floating_point():
        return F.hardtanh(x, low, high)
    wide = x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
    return torch.clamp(wide, low, high).to(x.dtype)


TABLE: Table = {
    "Celu": celu,
    "Clip": clip,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": leaky_relu,
    "Mish": mish,
    "PRelu": prelu,
    "Relu": relu,
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": torch.sigmoid,
    "Softplus": softplus,
    "Softsign": softsign,
    "SwiGLU": swiglu,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
}
