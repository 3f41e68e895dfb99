"""What a suite says of a model, checked before anything is made: architecture, files, keys that don't go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError, first_line
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures import mobilenet
from sparring.models.networks import convert, portable, published, weights
from sparring.models.spec import FROM_OTHERS, ModelSpec, facts
from sparring.models.storage import data_folder
from sparring.models.training import search

OPTIONS = ("input_range", "mean", "std", "channel_order", "layout", "output")
"""The keys of a model that change what the adapter computes."""


def check_spec(spec: ModelSpec) -> None:
    """Raise ``InputError`` for an architecture that isn't there and for keys that don't go together."""
    if spec.architecture:
        if spec.framework == "onnx":
            raise InputError("framework: an ONNX model is a file (`onnx`) or an `export` of another model of the suite")
        architectures.find(spec.architecture, spec.runtime)
        if spec.search:
            search.check(spec)
        if spec.layout:
            raise InputError(f"layout: {spec.architecture} has its own; `layout` is for a model of your own")
        if spec.output == "probabilities":
            raise InputError(f"output: {spec.architecture} gives logits; `probabilities` is for a model of your own")
    if spec.train and spec.train.start:
        if spec.runtime != "torch":
            raise InputError(f"train.start: torchvision's weights are for its networks in torch, not {spec.runtime}")
        published.refuse_bare(spec.train.start, spec.architecture, "train.start")
    if spec.sources and (given := sorted(spec.model_fields_set & set(OPTIONS))):
        key = next(key for key in FROM_OTHERS if getattr(spec, key))
        raise InputError(f"{given[0]}: an `{key}` takes it from {' and '.join(map(repr, spec.sources))}")
    if spec.weights and (spec.onnx or spec.sources):
        raise InputError(
            "weights: an ONNX file has its own" if spec.onnx or spec.export else "weights: others' are taken"
        )
    if spec.weights and spec.weights.endswith(".keras"):
        if spec.architecture or spec.object:
            raise InputError(
                f"weights: {spec.weights} holds its own architecture: leave `architecture` and `object` out"
            )
        if not spec.runtime.startswith("keras"):
            raise InputError(f"framework: {spec.weights} is a Keras model, not one of {spec.runtime}")
    elif spec.weights and not (spec.architecture or spec.object or spec.weights.endswith(".safetensors")):
        raise InputError(no_architecture(spec.weights))


def no_architecture(file: object) -> str:
    return (
        f"weights: {file} needs an `architecture` to put them in; only a .keras file and a .safetensors file that "
        "`sparring convert` wrote have their own"
    )


def self_described(spec: ModelSpec, file: Path | None) -> ModelSpec:
    """The spec with what a file of weights says of its network, where the spec says nothing. Raises ``InputError``."""
    if spec.architecture or spec.object or file is None or file.suffix != ".safetensors":
        return spec
    said = portable.described(file)
    if not said.get("architecture"):
        raise InputError(no_architecture(file))
    if spec.runtime != "torch":
        raise InputError(f"framework: {file} holds a network of torch: `sparring convert` moves it")
    options = {key: said.get("options", {}).get(key) for key in convert.SCALES}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        own = ModelSpec.model_validate({**given, **facts(spec), "architecture": said["architecture"]})
    except ValueError as exc:
        raise InputError(f"weights: {file} says of itself what can't be: {first_line(exc)}") from exc
    check_spec(own)
    return own


def described_classes(file: Path) -> int | None:
    return portable.described(file).get("classes") if file.suffix == ".safetensors" else None


def file_of(spec: ModelSpec, base: Path) -> Path | None:
    """The file that the spec names, or None where it names none (also for weights that torchvision publishes)."""
    if spec.onnx:
        path = (base / Path(spec.onnx).expanduser()).absolute()
        if not path.is_file():
            raise InputError(f"onnx: there is no file {path}")
        return path
    if spec.weights is None:
        return None
    path = (base / Path(spec.weights).expanduser()).absolute()
    if path.is_file():
        return path
    root = data_folder()
    suffixes = (*weights.TORCH_SUFFIXES, *weights.KERAS_SUFFIXES, ".keras")
    if root and (root / spec.weights).is_dir():
        held = sorted(p for p in (root / spec.weights).iterdir() if p.name.endswith(suffixes))
        if len(held) != 1:
            names = ", ".join(p.name for p in held) or "none"
            raise InputError(f"weights: {root / spec.weights} must hold one file of weights; it holds {names}")
        return held[0]
    published.refuse_bare(spec.weights, spec.architecture, "weights")
    if published.ENUM.fullmatch(spec.weights):
        if spec.runtime != "torch":
            raise InputError(f"framework: {spec.weights} are for torch: `convert` moves them to {spec.runtime}")
        return None
    folder = root / spec.weights if root else f"$SPARRING_DATA/{spec.weights} ($SPARRING_DATA is not set)"
    raise InputError(
        f"weights: {spec.weights!r} was not found: there is no file {path}, no folder {folder}, "
        "and it is no weights enum of torchvision (such as ResNet50_Weights.IMAGENET1K_V2)"
    )


def options_of(spec: ModelSpec, file: Path | None) -> dict[str, Any]:
    """The keyword arguments of ``wrap``, as plain JSON values."""
    options = {key: getattr(spec, key) for key in OPTIONS}
    if spec.architecture:
        options["layout"] = "channels-first" if spec.runtime == "torch" else "channels-last"
    folded = spec.architecture in mobilenet.NAMES and file is not None and file.suffix == ".npz"
    if folded and "input_range" not in spec.model_fields_set:
        options["input_range"] = mobilenet.INPUT_RANGE
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
