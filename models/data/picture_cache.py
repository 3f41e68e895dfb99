"""Pictures that were decoded before: many of them lie in the cache as one array, which all processes map.

A sample of pictures is found again by the files with their sizes and times, and by how they become images.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sparring.adapters import arrays
from sparring.adapters.errors import StorageError
from sparring.adapters.protocol import Images
from sparring.models.storage import cache_folder

VERSION = 1
"""Raised whenever the same pictures would become other images than before."""
KEPT_SECONDS = 30 * 24 * 3600
"""Arrays that nobody asked for as long as this are removed when a new one is written."""


def images(
    files: Sequence[Path], shape: tuple[int, int, int], how: Mapping[str, Any], decode: Callable[[Images], None]
) -> Images:
    """The images (N, *shape) of these files; ``decode`` fills an array with them if they aren't there yet.

    ``how`` is all else that the images follow from, plain JSON values. A few are simply decoded; many are mapped, for
    reading only. Raises what ``decode`` raises, and ``StorageError`` where the cache can't be written.
    """
    size = 4 * len(files) * shape[0] * shape[1] * shape[2]
    if size < arrays.LARGE:
        x = np.empty((len(files), *shape), np.float32)
        decode(x)
        return x
    folder = cache_folder() / "decoded"
    states = [(str(file.absolute()), *_state(file)) for file in files]
    name = json.dumps([VERSION, metadata.version("pillow"), shape, dict(how), states], sort_keys=True)
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.float32"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # one process decodes, the others wait for its images
        with FileLock(path.with_suffix(".lock")):
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)
            else:
                _forget(folder)
                _write(path, (len(files), *shape), decode)
    except OSError as exc:
        raise StorageError(
            f"the cache {folder} can't be written ({exc.strerror}): set SPARRING_CACHE to a folder"
        ) from exc
    return arrays.mapped(path, np.float32, (len(files), *shape))


def _write(path: Path, shape: tuple[int, ...], decode: Callable[[Images], None]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        with temporary.open("wb+") as file:
            x = arrays.mapped(file, np.float32, shape, new=True)
            decode(x)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _state(file: Path) -> tuple[int, int]:
    """Size and time of a file; one that can't be read is told of by whoever opens it."""
    with suppress(OSError):
        status = file.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _forget(folder: Path) -> None:
    """Remove what nobody has asked for in a month; who still has it mapped keeps it."""
    for old in folder.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink()
