"""Large arrays of images: they lie in mapped files, and are worked through in pieces.

A thousand images of 224 pixels are 600 MB, before an attack and after it, in every process that reads them. The
operating system holds a mapped file once for all processes, and writes it out when memory is short. Each process lets
go of the pieces that it has read.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

LARGE = 32 << 20
"""An array of this many bytes or more goes into a file."""
PIECE = 16 << 20
"""The bytes of a piece. A single image may have more."""

_OURS: WeakSet[mmap.mmap] = WeakSet()
"""The maps that this module made. Those of others may hold changes that are stored nowhere else."""


def mapped(
    file: Path | BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...], *, offset: int = 0, new: bool = False
) -> npt.NDArray[Any]:
    """The array in a file from the byte ``offset`` on, for reading. ``new`` makes a file of zeros, for writing."""
    if new and not isinstance(file, Path) and hasattr(os, "posix_fallocate"):
        # a disk that is full is an error now, and not a signal that ends the process later on
        os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * np.dtype(dtype).itemsize))
    array = np.memmap(file, dtype=dtype, mode="w+" if new else "r", offset=offset, shape=shape)
    if (memory := _map(array)) is not None:
        _OURS.add(memory)
    return np.asarray(array)


def empty_like(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A new array of the same shape and type. A large one lies in a nameless file, which goes when the array goes."""
    if array.nbytes < LARGE:
        return np.empty_like(array, order="C")
    with tempfile.TemporaryFile(dir=_scratch()) as file:
        return mapped(file, array.dtype, array.shape, new=True)


def pieces(*arrays: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Pieces of the arrays along the first axis, side by side. The arrays have one length.

    There is at least one piece, which may be empty. A piece is let go when the next one comes, and must not be used any
    more.
    """
    n = len(arrays[0])
    each = max(array.nbytes for array in arrays) // n if n else 0
    count = max(1, PIECE // each) if each else max(1, n)
    for start in range(0, max(1, n), count):
        yield tuple(array[start : start + count] for array in arrays)
        let_go(*arrays)


def own(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, or a copy of one that can only be read: libraries may write to their input."""
    return array if array.flags.writeable else array.copy()


def let_go(*arrays: npt.NDArray[Any]) -> None:
    """Take the pages of mapped arrays out of this process's memory. Their content stays, and comes back when used."""
    for array in arrays:
        memory = _map(array)
        if memory is not None and memory in _OURS and hasattr(mmap, "MADV_DONTNEED"):
            memory.madvise(mmap.MADV_DONTNEED)


def trim() -> None:
    """Give freed memory back to the system. The C library would keep it in pieces, and more with each batch."""
    if (call := getattr(_c_library(), "malloc_trim", None)) is not None:
        call(0)


@cache
def _c_library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _map(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The map that an array lies in, itself or as a view; None for other arrays."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def _scratch() -> str | None:
    """A folder on a disk: ``/tmp`` is memory on many machines."""
    usual = "/var/tmp"
    return usual if "TMPDIR" not in os.environ and os.access(usual, os.W_OK) else None
