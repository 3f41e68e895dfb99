"""One layer of a network, and what it computed: the value that every framework's own file gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One step of a network on some images."""

    name: str
    """the framework's own: a module's path, a layer's name, a node's"""
    kind: str
    """its class, function or operator"""
    values: Floats
    """what comes out, float32, (N, ...); channels second where the framework says which they are"""
    takes: tuple[int, ...] = ()
    """the positions of the steps whose outputs it takes, as far as they are known"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """its parameters in terms that all frameworks share, where they can be read:

    - of convolutions and dense layers ``weight`` (out, in, ...), ``bias`` (out,), ``stride``, ``dilation``, ``padding``
      (pixels before each axis, then after), ``groups``;
    - of batch normalization ``scale``, ``offset``, ``mean``, ``variance`` (channels,) and ``epsilon``;
    - of pooling ``pool`` (max, average), ``window``, ``stride``, ``padding``, ``counts_padding``;
    - of LSTM, GRU and plain RNN ``kernel`` (gates, hidden, in) and ``recurrent`` (gates, hidden, hidden), the gates in
      the order input, forget, cell, output; or reset, update, new; ``activation``, and ``reset_after`` of a GRU.
    """


def from_framework(values: Any, n: int) -> Floats | None:
    """An array (N, ...) of what a framework calls an output, or None for what is none: no floats, no images.

    Sequences with time in front, (T, N, ...), and ONNX's recurrent outputs, (T, directions, N, ...) and (directions, N,
    ...), are turned.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f" or array.ndim < 2 or not array.size:
        return None
    axes = [axis for axis in range(min(array.ndim, 3)) if array.shape[axis] == n]
    if not axes:
        return None
    turned = np.moveaxis(array, axes[0], 0)
    return np.ascontiguousarray(turned, np.float32)
