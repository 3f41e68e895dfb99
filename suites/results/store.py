"""The store: one folder for each cell's result, named by the cell's id, and complete or absent."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sparring.adapters import arrays as big
from sparring.adapters.errors import InputError
from sparring.suites.plan.cell import Result
from sparring.suites.results.disruptions import stored_by_mistake

Images = npt.NDArray[np.float32]
"""float32, in [0, 1]: one image (C, H, W), or several (n, C, H, W)"""
PADDING = 0xD935
"""The id of the padding in a zip header: the one that Android's zipalign uses."""


def cell_folder(run: Path, cell_id: str) -> Path:
    """The folder of a cell's result, which may not exist yet."""
    return run / "cells" / cell_id


def has(run: Path, cell_id: str) -> bool:
    """Whether the cell has a result, of any status. Raises ``InputError`` for a damaged one."""
    return _content(run, cell_id) is not None


def write(run: Path, cell_id: str, identity: Mapping[str, Any], result: Result, *, replace: bool = False) -> None:
    """Store a result by one rename: if the process is killed, the folder is complete or absent.

    When two processes computed the same cell, the first to finish wins. ``replace`` (for a retry) lets the last win.
    """
    home = cell_folder(run, cell_id)
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{cell_id}-", dir=home.parent))
    try:
        if result.arrays:
            save(temporary / "images.npz", result.arrays)
        content = {
            "cell_id": cell_id,
            "cell": dict(identity),
            "status": result.status,
            "reason": result.reason,
            "notes": list(result.notes),
            "forwards": result.forwards,
            "backwards": result.backwards,
            "seconds": result.seconds,
            "facts": dict(result.facts),
        }
        (temporary / "result.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
        os.chmod(temporary, 0o755)
        if home.exists() and (replace or not has(run, cell_id)):
            aside = Path(tempfile.mkdtemp(prefix=f".{cell_id}-", dir=home.parent))
            os.rename(home, aside / "old")
            os.rename(temporary, home)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(temporary, home)
    except OSError:
        if not has(run, cell_id):  # somebody else's result is as good as ours
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(run: Path, cell_id: str, *, images: bool = False) -> Result | None:
    """The stored result. None where there is none, or where an earlier version stored one by mistake. Never unpickles.

    Without ``images``, ``x`` and ``x_adv`` are left out. Large arrays are mapped, for reading only:
    ``adapters.arrays.pieces`` goes through them without holding them in memory.
    """
    home = cell_folder(run, cell_id)
    content = _content(run, cell_id)
    if content is None:
        return None
    arrays: dict[str, np.ndarray] = {}
    if (home / "images.npz").is_file():
        try:
            arrays = load(home / "images.npz", leave=() if images else ("x", "x_adv"))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{home / 'images.npz'} can't be read, delete its folder: {error}") from None
    return Result(
        content["status"],
        content["reason"],
        tuple(content["notes"]),
        content["forwards"],
        content["backwards"],
        content["seconds"],
        content["facts"],
        arrays,
    )


def _content(run: Path, cell_id: str) -> dict[str, Any] | None:
    file = cell_folder(run, cell_id) / "result.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return None if stored_by_mistake(content["status"], content["reason"]) else content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} can't be read: {error}") from None


def read_image(run: Path, cell_id: str, name: str, index: int) -> Images:
    """One image, (C, H, W), of ``x`` or ``x_adv``, without reading the images after it. Never unpickles.

    Raises ``InputError`` where it can't be read.
    """
    with _images(run, cell_id, name) as (file, shape):
        file.seek(index * int(np.prod(shape[1:])) * 4, io.SEEK_CUR)
        image: Images = _next(file, 1, shape)[0]
        return image


def read_image_blocks(run: Path, cell_id: str, name: str, size: int = 64) -> Iterator[Images]:
    """All images of ``x`` or ``x_adv``, in blocks of (at most ``size``, C, H, W). Raises as ``read_image`` does."""
    with _images(run, cell_id, name) as (file, shape):
        for start in range(0, shape[0], size):
            yield _next(file, min(size, shape[0] - start), shape)


def _next(file: IO[bytes], count: int, shape: tuple[int, ...]) -> Images:
    content = file.read(count * int(np.prod(shape[1:])) * 4)
    images: Images = np.frombuffer(content, np.float32).reshape(count, *shape[1:])
    return images


@contextmanager
def _images(run: Path, cell_id: str, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """An open file at the first value of an array of images, and the array's shape."""
    path = cell_folder(run, cell_id) / "images.npz"
    try:
        with zipfile.ZipFile(path) as whole, whole.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = head(file)
            if by_column or dtype != np.float32 or len(shape) != 4:
                raise ValueError(f"{name} is {dtype} {shape}, not float32 images")
            yield file, shape
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: can't be read: {error}") from None


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file as ``np.savez`` does, but piece by piece, and with every array where it can be mapped."""
    with open(path, "wb") as file, zipfile.ZipFile(file, "w", allowZip64=True) as whole:
        for name, array in arrays.items():
            array = np.asarray(array, order="C")
            member = zipfile.ZipInfo(f"{name}.npy")
            # the array begins at a multiple of 64 bytes, after 30 bytes of header, the name, zip64's 20 and our 4
            begins = file.tell() + 30 + len(member.filename.encode()) + 20 + 4
            member.extra = struct.pack("<HH", PADDING, -begins % 64) + bytes(-begins % 64)
            with whole.open(member, "w", force_zip64=True) as stream:
                if array.dtype.hasobject or not array.ndim:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
                    continue
                np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
                for (piece,) in big.pieces(array):
                    stream.write(piece.tobytes())


def load(path: Path, *, leave: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, except those to ``leave``; large ones are mapped. Raises what ``np.load`` raises."""
    with np.load(path, allow_pickle=False) as stored:
        names = [name for name in stored.files if name not in leave]
        mapped_arrays = {name: _mapped(path, stored.zip, name) for name in names}
        return {name: stored[name] if array is None else array for name, array in mapped_arrays.items()}


def _mapped(path: Path, whole: zipfile.ZipFile, name: str) -> np.ndarray | None:
    """An array of the archive, mapped from the file; None where it is small, compressed or not aligned."""
    member = whole.getinfo(f"{name}.npy")
    if member.file_size < big.LARGE or member.compress_type != zipfile.ZIP_STORED:
        return None
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<HH", file.read(30)[26:])
        file.seek(name_length + extra_length, os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = head(file)
        if by_column or dtype.hasobject or file.tell() % dtype.alignment:
            return None
        return big.mapped(path, dtype, shape, offset=file.tell())


def share(run: Path, other: Path) -> None:
    """Link every result of ``run`` into the store of ``other``: a cell's id finds its result, whoever computed it."""
    for home in (run / "cells").glob("[!.]*"):
        there = cell_folder(other, home.name)
        if has(run, home.name) and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=there.parent))
            shutil.copytree(home, temporary / home.name, copy_function=_link)
            os.rename(temporary / home.name, there)
            temporary.rmdir()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def sweep(run: Path) -> None:
    """Remove half-written folders of killed processes. Only those older than an hour: another run may be writing."""
    import time

    for leftover in (run / "cells").glob(".*"):
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > 3600:
            shutil.rmtree(leftover, ignore_errors=True)
