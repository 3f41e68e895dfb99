"""Another model of the suite, its weights moved into a framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models import recipes
from sparring.models.model_spec import ConvertModel
from sparring.models.networks import build, convert, weights
from sparring.models.prepared.composed import converted_ensemble
from sparring.models.prepared.kinds.exported import source_facts, source_recipe
from sparring.models.prepared.kinds.kind import Kind, Made, Prepare, Task
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_here
from sparring.models.storage import atomically


def composed(spec: ConvertModel, base: Path, others: Mapping[str, ModelRef], prepare: Prepare) -> ModelRef | None:
    """Of an ensemble every member is converted on its own."""
    source = others[spec.convert]
    return converted_ensemble(spec, base, source, prepare) if source.members else None


def recipe(spec: ConvertModel, task: Task) -> dict[str, Any]:
    """The source, and the version of the conversion."""
    return {"convert": source_recipe(convert.CONVERT_VERSION, task.others[spec.convert])}


def make(spec: ConvertModel, task: Task) -> Made:
    """Move the weights and write them. Raises ``InputError`` where they can't be moved."""
    source, framework = task.others[spec.convert], spec.runtime
    if source.framework in (framework, "onnx"):
        why = f"on {framework} already" if source.framework == framework else "an ONNX graph, not a network"
        raise InputError(f"convert: {source.name!r} is {why}")
    if framework != "torch":
        build.use_keras(framework)
    opened = open_here(source)
    moved = convert.moved(opened, framework)
    file = task.folder / ("weights.safetensors" if framework == "torch" else "model.keras")
    if framework == "torch":
        weights.save_torch(moved.network, file)
    else:
        atomically(file, moved.network.save)
    content = recipes.digest(source_recipe(convert.CONVERT_VERSION, source))
    options, facts_of_source = dict(moved.options), source_facts(source)
    return Made(file, content, moved.architecture, options, source.classes, facts_of_source, opened)


KIND = Kind(work=lambda spec: f"convert {spec.convert} to {spec.runtime}", composed=composed, recipe=recipe, make=make)
