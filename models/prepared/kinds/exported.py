"""Another model of the suite as an ONNX file."""

from __future__ import annotations

from typing import Any

from sparring.adapters.errors import InputError
from sparring.adapters.wrap import wrap
from sparring.models import recipes
from sparring.models.model_spec import ExportModel
from sparring.models.networks import export
from sparring.models.prepared.kinds.kind import Kind, Made, Task
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_network, wrapped
from sparring.models.weights_enums import FACTS


def source_recipe(version: int, source: ModelRef) -> list[Any]:
    """What a model that is made of another one follows from."""
    return [version, source.framework, source.digest]


def source_facts(source: ModelRef) -> dict[str, Any]:
    """What is known of the source's weights, and holds for what is made of them."""
    return {key: source.facts[key] for key in FACTS if key in source.facts}


def recipe(spec: ExportModel, task: Task) -> dict[str, Any]:
    """The source, and the version of the export."""
    return {"export": source_recipe(export.EXPORT_VERSION, task.others[spec.export])}


def make(spec: ExportModel, task: Task) -> Made:
    """Write the ONNX file, and compare it with the source. Raises ``InputError`` where they differ."""
    source, file = task.others[spec.export], task.folder / "model.onnx"
    if source.framework == "onnx":
        raise InputError(f"export: {source.name!r} is an ONNX model already")
    if source.members:
        raise InputError(f"export: {source.name!r} is an ensemble: export its members, and put those together")
    network = open_network(source)
    classifier = wrapped(network, source, "cpu")
    export.export(classifier, network, file, dict(source.options), source.architecture)
    export.check(classifier, wrap(str(file), device="cpu"), task.sample.x)
    content = recipes.digest(source_recipe(export.EXPORT_VERSION, source))
    return Made(file, content, source.architecture, {}, task.classes, source_facts(source))


KIND = Kind(work=lambda spec: f"export {spec.export} to ONNX", recipe=recipe, make=make)
