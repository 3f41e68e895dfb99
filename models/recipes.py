"""What a prepared model follows from, as a digest: under it, the cache keeps what was trained or exported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models.storage import cache_folder

RECIPE_VERSION = 1
"""Raised when prepared models of before can no longer be used."""


def folder(recipe: Mapping[str, Any]) -> Path:
    """Where the cache keeps the model of that recipe."""
    return cache_folder() / "models" / digest({"version": RECIPE_VERSION, **recipe})[:32]


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
