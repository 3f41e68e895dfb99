"""Weights that are there: a file, a folder under SPARRING_DATA, or an enum of torchvision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError, first_line
from sparring.models import recipes
from sparring.models.architectures import catalogue as architectures
from sparring.models.model_spec import WeightsModel, model_spec
from sparring.models.networks import convert, portable, published
from sparring.models.networks import weights as files
from sparring.models.prepared.kinds.kind import Kind, Made, Task, options_of
from sparring.models.spec import facts
from sparring.models.storage import data_folder
from sparring.models.weights_enums import ENUM, refuse_bare


def check(spec: WeightsModel) -> None:
    """Raise ``InputError`` for an architecture that isn't there and for keys that don't go together."""
    if spec.architecture:
        check_architecture(spec)
    if spec.weights.endswith(".keras"):
        refuse_architecture(spec.weights, spec.architecture)
        if not spec.runtime.startswith("keras"):
            raise InputError(f"framework: {spec.weights} is a Keras model, not one of {spec.runtime}")
    elif not spec.architecture and not spec.weights.endswith(".safetensors"):
        raise InputError(no_architecture(spec.weights))


def check_architecture(spec: Any) -> None:
    """Raise ``InputError`` for an architecture that isn't there, and for keys that a named architecture decides."""
    if spec.framework == "onnx":
        raise InputError("framework: an ONNX model is a file (`onnx`) or an `export` of another model of the suite")
    architectures.find(spec.architecture, spec.runtime)
    if spec.layout:
        raise InputError(f"layout: {spec.architecture} has its own; `layout` is for a model of your own")
    if spec.output == "probabilities":
        raise InputError(f"output: {spec.architecture} gives logits; `probabilities` is for a model of your own")


def refuse_architecture(weights: str, other: str | None) -> None:
    """Raise ``InputError`` where a .keras file stands beside another source of the network."""
    if other:
        raise InputError(f"weights: {weights} holds its own architecture: leave `architecture` and `object` out")


def no_architecture(file: object) -> str:
    """What is wrong with weights whose network nobody knows."""
    return (
        f"weights: {file} needs an `architecture` to put them in; only a .keras file and a .safetensors file that "
        "`sparring convert` wrote have their own"
    )


def find_file(weights: str, base: Path, runtime: str, architecture: str | None = None) -> Path | None:
    """The file of weights; None for weights that torchvision publishes. Raises ``InputError`` where there is none."""
    path = (base / Path(weights).expanduser()).absolute()
    if path.is_file():
        return path
    root = data_folder()
    suffixes = (*files.TORCH_SUFFIXES, *files.KERAS_SUFFIXES, ".keras")
    if root and (root / weights).is_dir():
        candidates = sorted(p for p in (root / weights).iterdir() if p.name.endswith(suffixes))
        if len(candidates) != 1:
            names = ", ".join(p.name for p in candidates) or "none"
            raise InputError(f"weights: {root / weights} must hold one file of weights; it holds {names}")
        return candidates[0]
    refuse_bare(weights, architecture, "weights")
    if ENUM.fullmatch(weights):
        if runtime != "torch":
            raise InputError(f"framework: {weights} are for torch: `convert` moves them to {runtime}")
        return None
    folder = root / weights if root else f"$SPARRING_DATA/{weights} ($SPARRING_DATA is not set)"
    raise InputError(
        f"weights: {weights!r} was not found: there is no file {path}, no folder {folder}, "
        "and it is no weights enum of torchvision (such as ResNet50_Weights.IMAGENET1K_V2)"
    )


def self_described(spec: WeightsModel, file: Path | None) -> WeightsModel:
    """The spec with what its file says of the network, where the spec says nothing. Raises ``InputError``."""
    if spec.architecture or file is None or file.suffix != ".safetensors":
        return spec
    description = portable.described(file)
    if not description.get("architecture"):
        raise InputError(no_architecture(file))
    if spec.runtime != "torch":
        raise InputError(f"framework: {file} holds a network of torch: `sparring convert` moves it")
    options = {key: description.get("options", {}).get(key) for key in convert.SCALES}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        own = model_spec({**given, **facts(spec), "architecture": description["architecture"]})
    except ValueError as exc:
        raise InputError(f"weights: {file} says of itself what can't be: {first_line(exc)}") from exc
    assert isinstance(own, WeightsModel)
    check(own)
    return own


def recipe(spec: WeightsModel, task: Task) -> dict[str, Any]:
    """The file's digest; of published weights their enum, and where torch looks for them."""
    if task.file:
        return {"file": [str(task.file), recipes.file_digest(task.file)]}
    # torch decides by these where its downloads are
    return {"weights": [spec.weights, *map(os.environ.get, ("TORCH_HOME", "XDG_CACHE_HOME"))]}


def make(spec: WeightsModel, task: Task) -> Made:
    """The file as it is; published weights are fetched first."""
    file, options = task.file, options_of(spec, task.file)
    if file:
        described = portable.described(file).get("classes") if file.suffix == ".safetensors" else None
        architecture = spec.architecture or file.name
        return Made(file, recipes.file_digest(file), architecture, options, described or task.classes)
    architecture = str(spec.architecture)
    file = published.fetched(architecture, spec.weights)
    content = recipes.file_digest(file)
    facts_of_weights = published.facts(architecture, spec.weights, file, content)
    options |= {key: facts_of_weights["transforms"][key] for key in ("mean", "std") if options[key] is None}
    return Made(file, content, architecture, options, task.classes, facts_of_weights)


KIND = Kind(
    work=lambda spec: f"load {spec.weights}",
    check=check,
    file=lambda spec, base: find_file(spec.weights, base, spec.runtime, spec.architecture),
    recipe=recipe,
    make=make,
)
