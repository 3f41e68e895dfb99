"""ONNX convolutions, transposed ones, and sums over their windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx_shapes import padding
from sparring.adapters.onnx_table import AutoPad, Ints, Table

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def widths(
    sides: Sequence[int], kernel: Sequence[int], strides: list[int], dilations: list[int],
    pads: list[int] | None, auto_pad: str,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """How much is put before and after each side. SAME: so that it has ceil(side / stride) windows."""
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
    x: Tensor, w: Tensor, b: Tensor | None = None,
    *, auto_pad: AutoPad = "NOTSET", dilations: list[int] | None = None, group: int = 1,
    kernel_shape: list[int] | None = None, pads: list[int] | None = None, strides: list[int] | None = None,
) -> Tensor:  # fmt: skip
    n = x.ndim - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after = widths(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    if before != after or min(before) < 0:
        x = F.pad(x, padding(before, after))
        before = [0] * n
    return _CONVOLUTIONS[n](x, w, b, strides, before, dilations, group)


def conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None,
    *, auto_pad: AutoPad = "NOTSET", dilations: list[int] | None = None, group: int = 1,
    kernel_shape: list[int] | None = None, output_padding: list[int] | None = None,
    output_shape: list[int] | None = None, pads: list[int] | None = None, strides: list[int] | None = None,
) -> Tensor:  # fmt: skip
    """The whole of it, from which ``pads`` are cut off; ``output_padding`` adds at the end, where ``pads`` end."""
    n = x.ndim - 2
    strides, dilations, extra = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
    before, after = (pads[:n], pads[n:]) if pads else ([0] * n, [0] * n)
    if output_shape or auto_pad.startswith("SAME"):
        wanted = output_shape[-n:] if output_shape else [side * s for side, s in zip(x.shape[2:], strides, strict=True)]
        whole = [
            (side - 1) * s + (k - 1) * d + 1 + e
            for side, k, s, d, e in zip(x.shape[2:], w.shape[2:], strides, dilations, extra, strict=True)
        ]
        cut = [have - want for have, want in zip(whole, wanted, strict=True)]
        if any(c < 0 and not (output_shape and -c < s) for c, s in zip(cut, strides, strict=True)):
            # SAME with a stride beyond the kernel: ONNX has zeros at the end, ONNX Runtime leaves them out
            raise NotSupported(f"an output of {wanted}, which is more than there is")
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
    x: Tensor, image: Ints, block: Ints,
    *, dilations: list[int] | None = None, pads: list[int] | None = None, strides: list[int] | None = None,
) -> Tensor:  # fmt: skip
    """Columns added up where the blocks of an image overlap."""
    if len(image) != 2:
        raise NotSupported(f"images of {len(image)} axes")
    pads = pads or [0] * 4
    size = [image[0] + pads[0] + pads[2], image[1] + pads[1] + pads[3]]
    out = F.fold(x, tuple(size), tuple(block), tuple(dilations or (1, 1)), 0, tuple(strides or (1, 1)))
    return F.pad(out, padding([-p for p in pads[:2]], [-p for p in pads[2:]]))


TABLE: Table = {
    "Col2Im": col2im,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
}
