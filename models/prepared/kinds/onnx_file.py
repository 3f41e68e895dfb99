"""An ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models import recipes
from sparring.models.model_spec import OnnxModel
from sparring.models.prepared.kinds.kind import Kind, Made, Task, options_of


def find_file(spec: OnnxModel, base: Path) -> Path:
    """The file. Raises ``InputError`` where there is none."""
    path = (base / Path(spec.onnx).expanduser()).absolute()
    if not path.is_file():
        raise InputError(f"onnx: there is no file {path}")
    return path


def recipe(_: OnnxModel, task: Task) -> dict[str, Any]:
    """The file, and the digest of its graph and weights."""
    assert task.file is not None
    return {"file": [str(task.file), recipes.onnx_digest(task.file)]}


def make(spec: OnnxModel, task: Task) -> Made:
    """The file as it is."""
    assert task.file is not None
    return Made(task.file, recipes.onnx_digest(task.file), task.file.name, options_of(spec), task.classes)


KIND = Kind(work=lambda spec: f"load {spec.onnx}", file=find_file, recipe=recipe, make=make)
