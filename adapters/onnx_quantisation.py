"""ONNX's way back from quantised weights. The way there rounds, so it has no gradient and is not in the table."""

from __future__ import annotations

from torch import Tensor

from sparring.adapters.onnx_read import dtype_of
from sparring.adapters.onnx_table import ElementType, Table


def dequantize(
    x: Tensor, scale: Tensor, zero: Tensor | None = None,
    *, axis: int = 1, block_size: int = 0, output_dtype: ElementType | None = None,
) -> Tensor:  # fmt: skip
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
    "DequantizeLinear": dequantize,
}
