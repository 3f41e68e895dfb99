"""ONNX normalizations. They take the statistics of a batch only in the training mode of a node."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import ElementType, Floats, Table, dtype_of


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: Literal[1] = 1,
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    if not training_mode:
        if outputs != 1:
            raise NotSupported("more outputs than one, which are for training")
        if not mean.requires_grad and not var.requires_grad:
            return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)
        return _batch_norm(x, scale, bias, mean, var, epsilon)
    axes = (0, *range(2, x.ndim))
    now_mean, now_var = x.mean(axes), x.var(axes, unbiased=False)
    y = _batch_norm(x, scale, bias, now_mean, now_var, epsilon)
    return y, mean * momentum + now_mean * (1 - momentum), var * momentum + now_var * (1 - momentum)


def _batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float) -> Tensor:
    """The statistics have derivatives, which those of torch's own function don't have."""
    scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
    return (x - mean) * torch.rsqrt(var + epsilon) * scale + bias


def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: ElementType = 1,
    opset: int,
) -> Tensor:
    """Scale and bias are per group until opset 20, and per channel since then."""
    if opset < 21:
        scale, bias = (v.repeat_interleave(x.shape[1] // num_groups) for v in (scale, bias))
    wide = dtype_of(stash_type) if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return F.group_norm(x.to(wide), num_groups, scale.to(wide), bias.to(wide), epsilon).to(x.dtype)


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: ElementType = 1,
    outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    first = axis % x.ndim
    wide = x.to(dtype_of(stash_type)) if x.dtype in (torch.float16, torch.bfloat16) else x
    if outputs == 1:
        sides = x.shape[first:]
        if scale.shape == sides and (bias is None or bias.shape == sides) and wide is x:
            return F.layer_norm(x, sides, scale, bias, epsilon)
    axes = tuple(range(first, x.ndim))
    mean = wide.mean(axes, keepdim=True)
    inverse = torch.rsqrt((wide - mean).square().mean(axes, keepdim=True) + epsilon)
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias, mean, inverse)[:outputs]


def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: ElementType = 1
) -> Tensor:
    wide = x.to(dtype_of(stash_type)) if x.dtype in (torch.float16, torch.bfloat16) else x
    axes = tuple(range(axis % x.ndim, x.ndim))
    return (wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale


def local_response(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """A sum over neighboring channels: of an even number one more lies behind than before."""
    squares = F.pad(x.square().flatten(2), (0, 0, (size - 1) // 2, size // 2))
    sums = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    return x / (bias + alpha / size * sums) ** beta


def mean_variance(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    over = axes or [0, 2, 3]
    mean = x.mean(over, keepdim=True)
    deviation = ((x * x).mean(over, keepdim=True) - mean * mean).sqrt()
    return (x - mean) / (deviation + 1e-9)


def lp_normalization(x: Tensor, *, axis: int = -1, p: Literal[1, 2] = 2) -> Tensor:
    """Zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


def dropout(
    x: Tensor,
    rate: Floats | None = None,
    training: Floats | None = None,
    *,
    ratio: float = 0.5,
    seed: int = 0,
    opset: int,
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """A training mode exists since opset 12. Before, the mask means nothing; ONNX Runtime's is false."""
    if training and training[0] and (rate is None or rate[0]):
        raise NotSupported("training, which is random")
    return (x, torch.full_like(x, opset >= 12, dtype=torch.bool)) if outputs == 2 else x


TABLE: Table = {
    "BatchNormalization": batch_normalization,
    "Dropout": dropout,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance,
    "RMSNormalization": rms_normalization,
}
