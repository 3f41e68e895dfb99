"""ONNX operators on windows of an image: convolution, sums over windows, and pooling.

Of equal maxima the same one gets the gradient as in torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.shapes import padding
from sparring.adapters.onnx.operators.signature import AutoPad, Ints, Table

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def widths(
    sides: Sequence[int],
    kernel: Sequence[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
    auto_pad: str,
) -> tuple[list[int], list[int]]:
    """The padding before and after each side. With SAME a side has ceil(side / stride) windows."""
    n = len(sides)
    if auto_pad == "NOTSET":
        return (pads[:n], pads[n:]) if pads else ([0] * n, [0] * n)
    if auto_pad == "VALID":
        return [0] * n, [0] * n
    missing = [
        max(0, (-(-side // s) - 1) * s + (k - 1) * d + 1 - side)
        for side, k, s, d in zip(sides, kernel, strides, dilations, strict=True)
    ]
    less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after = widths(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    if before != after or min(before) < 0:
        x = F.pad(x, padding(before, after))
        before = [0] * n
    return _CONVOLUTIONS[n](x, w, b, strides, before, dilations, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """A transposed convolution without padding, whose edges ``pads`` cut off. ``output_padding`` adds at the end."""
    n = x.ndim - 2
    strides, dilations, extra = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
    before, after = (pads[:n], pads[n:]) if pads else ([0] * n, [0] * n)
    if output_shape or auto_pad.startswith("SAME"):
        sides_out = (
            output_shape[-n:] if output_shape else [side * s for side, s in zip(x.shape[2:], strides, strict=True)]
        )
        whole = [
            (side - 1) * s + (k - 1) * d + 1 + e
            for side, k, s, d, e in zip(x.shape[2:], w.shape[2:], strides, dilations, extra, strict=True)
        ]
        cut = [side_whole - side_out for side_whole, side_out in zip(whole, sides_out, strict=True)]
        if any(c < 0 and not (output_shape and -c < s) for c, s in zip(cut, strides, strict=True)):
            # SAME with a stride beyond the kernel: ONNX has zeros at the end, ONNX Runtime has none
            raise NotSupported(f"an output of {sides_out}, which is more than there is")
        before = [(max(c, 0) + (auto_pad != "SAME_UPPER")) // 2 for c in cut]
        after = [c - b for c, b in zip(cut, before, strict=True)]
    if (
        before == after
        and min(before) >= 0
        and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    ):
        return _TRANSPOSED[n](x, w, b, strides, before, extra, group, dilations)
    out: Tensor = _TRANSPOSED[n](x, w, None, strides, 0, 0, group, dilations)
    out = F.pad(out, padding([-c for c in before], [e - c for e, c in zip(extra, after, strict=True)]))
    return out if b is None else out + b.reshape(-1, *[1] * n)


def col2im(
    x: Tensor,
    image: Ints,
    block: Ints,
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """An image from its blocks (columns), added up where they overlap."""
    if len(image) != 2:
        raise NotSupported(f"images of {len(image)} axes")
    pads = pads or [0] * 4
    size = [image[0] + pads[0] + pads[2], image[1] + pads[1] + pads[3]]
    out = F.fold(x, tuple(size), tuple(block), tuple(dilations or (1, 1)), 0, tuple(strides or (1, 1)))
    return F.pad(out, padding([-p for p in pads[:2]], [-p for p in pads[2:]]))


# Pooling


def _frame(
    x: Tensor,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[list[int], list[int], list[int]]:
    """The padding before, after, and beyond: what ``ceil_mode`` adds, or an incomplete window leaves out.

    A window that begins beyond the image and its first padding doesn't count, in torch, and in ONNX since opset 22.
    """
    sides = x.shape[2:]
    if auto_pad.startswith("SAME") and max(dilations) > 1:
        raise NotSupported(f"auto_pad={auto_pad!r} with dilations, where ONNX and ONNX Runtime differ")
    before, after = widths(sides, kernel, strides, dilations, pads, auto_pad)
    beyond = []
    for side, k, s, d, b, a in zip(sides, kernel, strides, dilations, before, after, strict=True):
        span, reach = side + b + a, (k - 1) * d + 1
        steps = (span - reach) / s
        windows = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
        if ceil_mode and (windows - 1) * s >= side + b:
            windows -= 1
        beyond.append((windows - 1) * s + reach - span)
    return before, after, beyond


def max_pool(
    x: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    storage_order: int = 0,
    strides: list[int] | None = None,
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    x_float = x if x.is_floating_point() else x.to(torch.float32)  # exact, for these integers have 8 bits
    n, dtype = x.ndim - 2, x.dtype
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after, beyond = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    ends = [a + extra for a, extra in zip(after, beyond, strict=True)]
    inside = [0] * n
    if before == after and max(beyond) <= 0 and all(2 * b <= k for b, k in zip(before, kernel_shape, strict=True)):
        inside = before
    elif any(before) or any(ends):
        x_float = F.pad(x_float, padding(before, ends), value=-math.inf)
    arguments = (kernel_shape, strides, inside, dilations)
    if outputs == 1:
        return _MAXIMA[n](x_float, *arguments).to(dtype)
    values, indices = _MAXIMA[n](x_float, *arguments, return_indices=True)
    shift = before if inside != before else [0] * n
    return values.to(dtype), _flat_indices(x, indices, x_float.shape[2:], shift, storage_order)


def _flat_indices(x: Tensor, indices: Tensor, padded: torch.Size, shift: list[int], column_major: int) -> Tensor:
    """ONNX's indices over the whole tensor, ``column_major`` or not, from torch's indices within a plane."""
    places: list[Tensor] = []
    for side, before in zip(reversed(padded), reversed(shift), strict=True):
        places.insert(0, indices % side - before)
        indices = indices // side
    order = list(range(len(places)))
    flat = torch.zeros_like(indices)
    for axis in reversed(order) if column_major else order:
        flat = flat * x.shape[2 + axis] + places[axis]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(order))
    return flat + planes * math.prod(x.shape[2:])


def max_unpool(
    x: Tensor,
    indices: Tensor,
    shape: Ints | None = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """Puts each number at its index over the whole tensor; zeros elsewhere."""
    n = x.ndim - 2
    strides, (before, after) = strides or [1] * n, (pads[:n], pads[n:]) if pads else ([0] * n, [0] * n)
    sides = [
        (side - 1) * s + k - b - a
        for side, s, k, b, a in zip(x.shape[2:], strides, kernel_shape, before, after, strict=True)
    ]
    if shape is not None and shape[2:] != sides:
        raise NotSupported(f"an output of {shape[2:]} instead of {sides}, where ONNX and ONNX Runtime differ")
    flat = x.new_zeros(x.shape[0] * x.shape[1] * math.prod(sides)).scatter(0, indices.flatten(), x.flatten())
    return flat.reshape(*x.shape[:2], *sides)


def average_pool(
    x: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The mean of each window, over the image alone, or with ``count_include_pad`` over its padding, too."""
    n = x.ndim - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after, beyond = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    plain = before == after and max(beyond) <= 0 and set(dilations) == {1}
    if plain and all(2 * b <= k for b, k in zip(before, kernel_shape, strict=True)):
        return _MEANS[n](x, kernel_shape, strides, before, False, bool(count_include_pad))
    sums = _window_sums(_framed(x, before, after, beyond), kernel_shape, strides, dilations)
    ones = x.new_ones((1, 1, *x.shape[2:]))
    if count_include_pad:
        ones = F.pad(ones, padding(before, after), value=1.0)
        before, after = [0] * n, [0] * n
    return sums / _window_sums(_framed(ones, before, after, beyond), kernel_shape, strides, dilations)


def _framed(x: Tensor, before: list[int], after: list[int], beyond: list[int]) -> Tensor:
    return F.pad(x, padding(before, [a + extra for a, extra in zip(after, beyond, strict=True)]))


def _window_sums(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """The sums of all windows of a tensor that is already padded."""
    planes = x.reshape(-1, 1, *x.shape[2:])
    ones = x.new_ones((1, 1, *kernel))
    sums: Tensor = _CONVOLUTIONS[len(kernel)](planes, ones, None, strides, 0, dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def lp_pool(
    x: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    p: int = 2,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after, beyond = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    powers = _framed(x.abs() ** p, before, after, beyond)
    return _window_sums(powers, kernel_shape, strides, dilations) ** (1 / p)


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    return x.flatten(2).max(2).values.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)
    return norm


TABLE: Table = {
    "AveragePool": average_pool,
    "Col2Im": col2im,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}
