"""What a prepared model follows from, as a digest: under it, the cache keeps what was trained or exported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sparring.adapters import arrays as big
from sparring.adapters.errors import InputError
from sparring.models.storage import cache_folder, write_whole

RECIPE_VERSION = 1
"""Raised when prepared models of before can no longer be used."""


RECORD, SHA256 = "ref.json", "file_sha256"


def folder(recipe: Mapping[str, Any]) -> Path:
    """Where the cache keeps the model of that recipe."""
    return cache_folder() / "models" / digest({"version": RECIPE_VERSION, **recipe})[:32]


def record(folder: Path, ref: Mapping[str, Any], artifact: str | None) -> None:
    """Write what a prepared model is beside its file, with the file's own digest if it lies there too."""
    own = artifact is not None and Path(artifact).parent == folder
    content = {**ref, SHA256: file_digest(Path(str(artifact))) if own else None}
    write_whole(folder / RECORD, json.dumps(content, indent=1))


def recorded(folder: Path) -> dict[str, Any] | None:
    """What ``record`` wrote; None where there is nothing that can be read, or where the file is gone or damaged."""
    try:
        content: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
        content.setdefault(SHA256, None)  # which earlier versions did not write
        artifact = Path(content["artifact"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    whole = artifact.is_file() and content[SHA256] in (None, file_digest(artifact))
    return content if whole else None


def damaged(artifact: Path) -> bool:
    """Whether a prepared model's file is no longer what was written; then it is made anew by the next who wants it."""
    record = artifact.parent / RECORD
    if artifact.parent.parent != cache_folder() / "models" or not record.is_file():
        return False
    content = recorded(artifact.parent)
    if content is not None and content[SHA256]:
        return False
    record.unlink(missing_ok=True)
    return True


def digest(value: Any) -> str:
    """sha256, as hexadecimal, of the canonical JSON of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes. Raises ``InputError`` if it can't be read."""
    sha = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha.update(chunk)
    except OSError as exc:
        raise InputError(f"{path} can't be read: {exc.strerror}") from exc
    return sha.hexdigest()


def onnx_digest(path: Path) -> str:
    """sha256 over an ONNX file and the files beside it that hold its weights. ``InputError`` if one is absent."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    own = file_digest(path)
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return own  # opening it will say what is wrong with it
    places = sorted({e.value for tensor in graph.initializer for e in tensor.external_data if e.key == "location"})
    return digest([own, *(file_digest(path.parent / place) for place in places)]) if places else own


def array_digest(*arrays: npt.NDArray[Any]) -> str:
    """sha256 of dtype, shape and bytes of the arrays, as hexadecimal."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        for (piece,) in big.pieces(array) if array.ndim else [(array,)]:
            sha.update(piece.tobytes())
    return sha.hexdigest()
