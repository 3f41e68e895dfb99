"""A model as the command line names it: by its name in a suite, by a file, or as in a suite file; and data that fit."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.onnx.declared import declared_dimensions
from sparring.adapters.process import ProcessDied, ProcessFailed
from sparring.models.data import datasets
from sparring.models.model_spec import MODEL_KEYS, OPTIONS, ModelSpec, OnnxModel, model_spec
from sparring.models.networks import portable
from sparring.models.prepared.kinds.kind import options_of
from sparring.models.prepared.kinds.table import kind_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import DataSpec
from sparring.suites.plan.expand import single
from sparring.suites.plan.file import Suite, home, load_suite
from sparring.suites.runner.preparation import job_of
from sparring.suites.workers.executor import Executor
from sparring.suites.workers.local import LocalExecutor
from sparring.suites.workers.reporter import Reporter

FITTING = {(1, 28, 28): "mnist", (3, 32, 32): "cifar10", (1, 8, 8): "digits", (3, 224, 224): "imagenet-samples"}
"""The default data set for images (C, H, W); for (3, 32, 32) and 43 classes it is gtsrb."""
FILES = (".onnx", ".keras", ".safetensors")
BARE = (".pt", ".pth", ".bin", ".npz", ".h5")
"""Files of weights alone, without their network."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Reference:
    """A model and the data that it is prepared for; every path in it is absolute."""

    text: str
    """the words on the command line"""
    spec: ModelSpec
    base: Path
    """folder from which an ``object`` is imported"""
    data: DataSpec
    sources: tuple[Reference, ...] = ()
    """the other models of the suite from which it is made"""


def resolve(text: str, *, suite: str | None = None, data: str | None = None) -> Reference:
    """The model that ``text`` names: a model of the suite, a file (.onnx, .keras, .safetensors), or YAML.

    ``data`` is a data set by name or by path; None: that of the suite, else the one whose images fit the file. Raises
    ``InputError`` for a model or data that aren't there or lack something; the message says what to write instead.
    """
    return resolve_all([text], suite=suite, data=data)[0]


def resolve_all(texts: Sequence[str], *, suite: str | None = None, data: str | None = None) -> list[Reference]:
    """Resolve several models for the same data. Raises as ``resolve`` does."""
    loaded = single(load_suite(suite), data) if suite is not None else None
    base = home(suite) if suite is not None else Path.cwd()
    specs = [_spec(text, loaded) for text in texts]
    for text, spec in zip(texts, specs, strict=True):
        for name in spec.sources:
            _check_source(text, name, loaded)
    if data is not None:
        chosen = _data_spec(data)
    elif loaded is not None:
        chosen = loaded.one_data
        if chosen.path is not None:
            chosen = chosen.model_copy(update={"path": str((base / Path(chosen.path).expanduser()).absolute())})
    else:
        chosen = _fitting(texts, specs)
    return [_reference(text, spec, loaded, base, chosen) for text, spec in zip(texts, specs, strict=True)]


def open_reference(
    reference: Reference,
    *,
    executor: Executor | None = None,
    device: str = "auto",
    report: Reporter | None = None,
    probabilities: bool = False,
) -> ModelRef:
    """Prepare the model (train, export, load it, and check it on a few images) in worker processes of its backends.

    ``probabilities``: a model that gives probabilities is accepted. Raises ``InputError`` as ``prepare`` does, with
    the text that names the model in front.
    """
    if executor is None:
        executor = LocalExecutor(device)
        try:
            return open_reference(
                reference, executor=executor, device=device, report=report, probabilities=probabilities
            )
        finally:
            executor.close()
    report = report or Reporter()
    others = {
        source.spec.name: open_reference(source, executor=executor, device=device, report=report)
        for source in reference.sources
    }
    spec = reference.spec
    title = f"{spec.name}: {kind_of(spec).work(spec)}"
    report.stage(title)
    job = job_of(spec, reference.data, reference.base, others, device, probabilities)
    try:
        answer = executor.run(job, partial(report.progress, title))
    except (InputError, ProcessFailed, ProcessDied) as error:
        raise InputError(f"{reference.text}: {error}") from None
    return ModelRef.from_json(answer)


# --- the model


def _reference(text: str, spec: ModelSpec, suite: Suite | None, base: Path, data: DataSpec) -> Reference:
    models = {other.name: other for other in suite.models} if suite else {}
    for name in spec.sources:
        _check_source(text, name, suite)
    sources = tuple(_reference(name, models[name], suite, base, data) for name in spec.sources)
    return Reference(text, spec, base if spec in models.values() else Path.cwd(), data, sources)


def _check_source(text: str, name: str, suite: Suite | None) -> None:
    if suite is None:
        raise InputError(f"{text}: {name!r} is a model of a suite: say which, with --suite")
    names = {other.name for other in suite.models}
    if name not in names:
        raise InputError(f"{text}: {unknown('model', name, names)}")


def _spec(text: str, suite: Suite | None) -> ModelSpec:
    if text.lstrip().startswith("{"):
        return _inline(text)
    by_name = {spec.name: spec for spec in suite.models} if suite else {}
    if text in by_name:
        return by_name[text]
    path = Path(text).expanduser().absolute()
    if path.suffix in (*FILES, *BARE):
        if not path.is_file():
            raise InputError(f"there is no file {path}")
        return _of_file(text, path)
    problem = f"{unknown('model', text, by_name)}. A model" if suite else f"there is no model {text!r}: it"
    by_suite = "" if suite else "the name of a model of a suite (say which, with --suite), "
    raise InputError(
        f"{problem} is {by_suite}a file ({', '.join(FILES)}), or what a suite file would say of it, as in "
        "'{architecture: cnn, weights: cnn.npz, framework: keras}'"
    )


def _inline(text: str) -> ModelSpec:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{text}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{text}: a model is a mapping with the keys {', '.join(MODEL_KEYS)}")
    return _validated(text, {"name": "model", **content})


def _validated(text: str, content: Mapping[str, Any]) -> ModelSpec:
    try:
        return model_spec(content)
    except ValidationError as error:
        texts = []
        for detail in error.errors():
            place = ".".join(map(str, detail["loc"][1:]))  # the first is the kind
            message = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "extra_forbidden":
                message = unknown("key", detail["loc"][-1], MODEL_KEYS)
            texts.append(f"{place}: {message}" if place else message)
        raise InputError(f"{text}: {'; '.join(texts)}") from None


def _of_file(text: str, path: Path) -> ModelSpec:
    if path.suffix == ".onnx":
        return model_spec({"name": path.name, "onnx": str(path)})
    if path.suffix == ".keras":
        return model_spec({"name": path.name, "weights": str(path)})
    metadata = portable.described(path) if path.suffix == ".safetensors" else {}
    if not metadata:
        framework = "keras" if path.suffix in (".npz", ".h5") else "torch"
        example = f"{{architecture: cnn, weights: {text}, framework: {framework}}}"
        raise InputError(f"{text} holds weights alone, and not which network they belong to: say it, as in '{example}'")
    options = {key: value for key, value in metadata.get("options", {}).items() if key in OPTIONS and value is not None}
    options.pop("layout", None)  # a named architecture has its own
    network = {"framework": "torch", "architecture": metadata.get("architecture"), "weights": str(path)}
    return _validated(text, {"name": path.name, **network, **options})


# --- the data


def _data_spec(data: str) -> DataSpec:
    path = Path(data).expanduser()
    if path.suffix == ".npz" or path.is_dir() or len(path.parts) > 1:
        if not path.exists():
            raise InputError(f"--data {data}: there is no file or folder {path.absolute()}")
        return DataSpec.model_validate({"path": str(path.absolute())})
    return DataSpec.model_validate({"name": data})


def _fitting(texts: Sequence[str], specs: Sequence[ModelSpec]) -> DataSpec:
    """The data set whose images have the shape that the files declare."""
    for text, spec in zip(texts, specs, strict=True):
        shape, classes = takes(text, spec)
        if shape in FITTING:
            name = "gtsrb" if (shape, classes) == ((3, 32, 32), 43) else FITTING[shape]
            return DataSpec.model_validate({"name": name})
        if shape is not None:
            raise InputError(f"{text} takes images of {' x '.join(map(str, shape))}: say which, with --data")
    raise InputError(f"{texts[0]} doesn't say what images it takes: say which, with --data NAME or --data PATH")


def takes(text: str, spec: ModelSpec) -> tuple[Shape | None, int | None]:
    """The shape of the images (C, H, W) and the number of classes that a model's file declares; else None."""
    path = Path((spec.onnx if isinstance(spec, OnnxModel) else getattr(spec, "weights", None)) or "").expanduser()
    if not path.is_file():
        return None, None
    if path.suffix == ".onnx":
        return _onnx_takes(path, spec)
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                shapes = list(_batch_shapes(json.loads(archive.read("config.json"))))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
            raise InputError(f"{text} can't be read as a .keras file: {exc}") from exc
        return _sides(shapes[0][1:], options_of(spec)["layout"] or "channels-last") if shapes else None, None
    if path.suffix == ".safetensors":
        metadata = portable.described(path)
        shape = metadata.get("input_shape")
        return (tuple(shape) if shape else None), metadata.get("classes")
    return None, None


def _onnx_takes(path: Path, spec: ModelSpec) -> tuple[Shape | None, int | None]:
    inputs, output = declared_dimensions(path)
    classes = output[-1:]
    if len(inputs) != 1 or len(inputs[0]) != 4:
        return None, None
    sides = inputs[0][1:]
    last = sides[2] in (1, 3) and sides[0] not in (1, 3)
    layout = options_of(spec)["layout"] or ("channels-last" if last else "channels-first")
    return _sides(sides, layout), classes[0] if classes else None


def _sides(sides: Sequence[int | None], layout: str) -> Shape | None:
    if len(sides) != 3 or None in sides:
        return None
    a, b, c = (int(side or 0) for side in sides)
    return (a, b, c) if layout == "channels-first" else (c, a, b)


def _batch_shapes(config: Any) -> Iterator[list[int | None]]:
    """The shapes of the inputs in a Keras model's configuration, outermost first."""
    if isinstance(config, dict):
        if isinstance(config.get("batch_shape"), list):
            yield config["batch_shape"]
        for value in config.values():
            yield from _batch_shapes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _batch_shapes(value)


def images(data: DataSpec, samples: int) -> DataSpec:
    """The data with so many images of its own split, or with all if there are fewer. Raises ``InputError``."""
    available = datasets.size(data, base=Path.cwd())
    return data.model_copy(update={"samples": min(samples, available)})
