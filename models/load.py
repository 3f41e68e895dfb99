"""From a model of a suite to a classifier: ``prepare`` once (train, export, check), then ``open_model``, anywhere.

What was prepared is found again by its recipe, everything that it follows from. Beside the weights in
``$SPARRING_CACHE/models/`` lies ``ref.json``, so that a second run needs no framework to know the model.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparring.adapters.ensemble import Vote, ensemble
from sparring.adapters.errors import InputError, unknown
from sparring.adapters.preprocessing import preprocessing
from sparring.adapters.protocol import Classifier
from sparring.adapters.wrap import PROBABILITIES, check_outputs, look_like_probabilities, wrap
from sparring.models import (
    architectures,
    convert,
    datasets,
    export,
    mobilenet,
    networks,
    portable,
    recipes,
    training,
    weights,
)  # fmt: skip
from sparring.models.convert import Opened
from sparring.models.datasets import Dataset
from sparring.models.sources import Progress
from sparring.models.spec import FROM_OTHERS, DataSpec, ModelSpec, TrainSpec, facts

OPTIONS = ("input_range", "mean", "std", "channel_order", "layout", "output")
"""The keys of a model that change what the adapter computes."""
ENUM = re.compile(r"\w+_Weights\.\w+")


@dataclass(frozen=True)
class ModelRef:
    """A prepared model: what it is, and all that ``open_model`` needs to open it in another process."""

    name: str
    digest: str
    """sha256 over the weights and all else that decides what the classifier computes: no name, no path"""
    framework: str
    """``torch``, ``keras-tensorflow``, ``keras-torch``, ``keras-jax``, ``onnx`` or ``ensemble``"""
    architecture: str
    """its name, ``object:package.module:name``, the name of the file, or how an ensemble combines"""
    input_shape: tuple[int, int, int]
    classes: int
    spec: ModelSpec
    artifact: str | None
    """absolute path of the weights or of the ONNX file; None for an object"""
    options: Mapping[str, Any]
    """keyword arguments of ``wrap``"""
    base: str
    """folder of the suite: an object is imported from there"""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """what the classifier has not, of ``gradients`` and ``logits`` (where it only decides), and why"""
    members: tuple[ModelRef, ...] = ()
    """of an ensemble"""

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The framework, or those of the members."""
        each = [name for member in self.members for name in member.frameworks] or [self.framework]
        return tuple(dict.fromkeys(each))

    @property
    def host(self) -> str:
        """The framework in whose process the model is opened: of an ensemble the first member's that is on Keras."""
        return next((name for name in self.frameworks if name.startswith("keras-")), self.frameworks[0])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which ``from_json`` makes the same ref."""
        plain = {"spec": facts(self.spec), "input_shape": list(self.input_shape), "lacks": dict(self.lacks)}
        return {**self.__dict__, **plain, "members": [member.to_json() for member in self.members]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRef:
        """The ref that ``to_json`` wrote."""
        shape, spec = tuple(value["input_shape"]), ModelSpec.model_validate(value["spec"])
        members = tuple(map(cls.from_json, value.get("members", ())))
        return cls(**{**value, "input_shape": shape, "spec": spec, "members": members})


def is_prepared(
    spec: ModelSpec, *, data: DataSpec, base: Path, others: Mapping[str, ModelRef] | None = None
) -> ModelRef | None:
    """The ref of a model that needs nothing done, or None; nothing is downloaded, trained or built for the answer.

    An ``object`` is always None: only running its code tells what it is. Raises ``InputError`` for what can't be
    prepared: an unknown architecture, a missing file, keys that don't go together.
    """
    _check_spec(spec)
    if any(name not in (others or {}) for name in spec.sources):
        return None
    if spec.ensemble:
        return _ensemble(spec, base, others or {})
    if spec.convert and (others or {})[spec.convert].members:
        member = partial(is_prepared, data=data, base=base)
        return _converted_ensemble(spec, base, (others or {})[spec.convert], member)
    file = _file(spec, base)
    spec = _self_described(spec, file)
    if spec.object:
        return None
    try:
        sample = datasets.peek(data, base=base, download=False)
        recipe = _recipe(spec, sample, file, others or {}, _part(spec, data, base, download=False))
    except InputError:
        return None  # who loads the data says what is wrong with them
    known = _known(recipes.folder(recipe), spec, base)
    return None if known is None or _gives_probabilities(known) else known


def prepare(
    spec: ModelSpec,
    *,
    data: DataSpec,
    base: Path,
    others: Mapping[str, ModelRef] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    probabilities: bool = False,
) -> ModelRef:
    """Make sure that the model exists and fits the data: train, export or load it, and run a few images, once.

    Trained weights and exported files stay in the cache; ``export`` takes its source from ``others``. Raises
    ``InputError`` for what the user can put right, and for a Keras model of another backend than this process has. One
    that gives probabilities where logits are due is refused, too, unless ``probabilities``; then it lacks ``logits``.
    """
    ref = _prepared(spec, data, base, others, device, progress)
    if not probabilities and _gives_probabilities(ref):
        raise InputError(PROBABILITIES)
    return ref


def _prepared(
    spec: ModelSpec,
    data: DataSpec,
    base: Path,
    others: Mapping[str, ModelRef] | None,
    device: str,
    progress: Progress | None,
) -> ModelRef:
    others = others or {}
    _check_spec(spec)
    key = next((key for key in FROM_OTHERS if getattr(spec, key)), "")
    for name in spec.sources:
        if name not in others:
            raise InputError(f"{key}: {unknown('model', name, others)}")
    if spec.ensemble:
        return _ensemble(spec, base, others)
    if spec.convert and others[spec.convert].members:
        make = partial(prepare, data=data, base=base, device=device, progress=progress)
        whole = _converted_ensemble(spec, base, others[spec.convert], make)
        assert whole is not None
        return whole
    file = _file(spec, base)
    spec = _self_described(spec, file)
    sample = datasets.peek(data, base=base)
    if spec.object:
        return _prepare_object(spec, base, sample, file, device)
    part = _part(spec, data, base, progress)
    folder = recipes.folder(_recipe(spec, sample, file, others, part))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(
            f"the cache {folder} can't be written ({exc.strerror}): set SPARRING_CACHE to a folder"
        ) from exc
    # a second process that wants the same training waits for it, and then finds it done
    with FileLock(folder / ".lock"):
        if known := _known(folder, spec, base):
            return known
        ref = _make(spec, base, sample, file, others, part, folder, device, progress)
        content = json.dumps(ref.to_json(), indent=1)
        weights.atomically(folder / "ref.json", lambda path: path.write_bytes(content.encode()))
    return ref


def open_model(ref: ModelRef, *, device: str = "auto") -> Classifier:
    """The classifier of a prepared model on the device (auto, cpu, cuda). Raises ``InputError`` if it is gone.

    Members of an ensemble that need another Keras backend than this process has run in processes of their own.
    """
    if ref.members:
        return ensemble([_member(member, ref.host, device) for member in ref.members], ref.spec.combine)
    return _wrap(open_network(ref), ref, device)


def _member(ref: ModelRef, host: str, device: str) -> Classifier:
    if ref.framework.startswith("keras-") and ref.framework != host:
        from sparring.models.remote import open_remotely

        return open_remotely(ref.to_json(), keras_backend=ref.framework.partition("-")[2], device=device)
    if ref.members:
        return ensemble([_member(member, host, device) for member in ref.members], ref.spec.combine)
    return open_model(ref, device=device)


def _ensemble(spec: ModelSpec, base: Path, others: Mapping[str, ModelRef]) -> ModelRef:
    """What its members are says all of an ensemble: nothing is made, and nothing opened."""
    members = tuple(others[name] for name in spec.sources)
    first = members[0]
    for member in members:
        if (member.input_shape, member.classes) != (first.input_shape, first.classes):
            raise InputError(
                f"ensemble: {first.name} takes {first.input_shape} and gives {first.classes} classes, {member.name} "
                f"takes {member.input_shape} and gives {member.classes}: the members must be alike in both"
            )
    if spec.combine == "vote":
        lacks = {"gradients": Vote.why_no_gradients, "logits": Vote.why_no_logits}
    else:
        lacks = {what: f"{why} ({member.name})" for member in members for what, why in member.lacks.items()}
    return ModelRef(
        name=spec.name,
        digest=recipes.digest(["ensemble", spec.combine, [[member.framework, member.digest] for member in members]]),
        framework="ensemble",
        architecture={"vote": "majority vote"}.get(spec.combine, f"mean of {spec.combine}"),
        input_shape=first.input_shape,
        classes=first.classes,
        spec=spec,
        artifact=None,
        options={},
        base=str(base.absolute()),
        lacks=lacks,
        members=members,
    )


def _converted_ensemble(
    spec: ModelSpec, base: Path, source: ModelRef, convert: Callable[..., ModelRef | None]
) -> ModelRef | None:
    """An ensemble of which every member is converted on its own; None where ``convert`` gives none."""
    members = {}
    for name, member in zip(source.spec.sources, source.members, strict=True):
        there = ModelSpec.model_validate({"name": name, "framework": spec.framework, "convert": name})
        ref = member if member.framework == spec.runtime else convert(there, others={name: member})
        if ref is None:
            return None
        members[name] = ref
    return _ensemble(source.spec.model_copy(update={"name": spec.name}), base, members)


def _wrap(network: Any, ref: ModelRef, device: str) -> Classifier:
    return wrap(network, input_shape=ref.input_shape, device=device, **ref.options)


def open_network(ref: ModelRef) -> Any:
    """What ``wrap`` takes: the torch module, the Keras model, or the path of the ONNX file."""
    spec, path = ref.spec, Path(ref.artifact or "")
    if spec.object:
        network = _object(spec, Path(ref.base), Path(ref.artifact) if ref.artifact else None)
        if ref.digest != _object_digest(spec, network):
            raise InputError(
                f"object: {spec.object} is another model in every process: seed it, or load its weights from a file"
            )
        return network
    if ref.framework == "onnx":
        return str(path)
    if not path.is_file():
        raise InputError(f"{path} is gone: run the suite again, and it will be made anew")
    if path.suffix == ".keras":
        return networks.keras_file(path, ref.framework)
    if spec.weights and ENUM.fullmatch(spec.weights):
        return networks.published(ref.architecture, spec.weights)[0]
    return networks.with_weights(ref.architecture, ref.framework, ref.input_shape, ref.classes, path)


def open_here(ref: ModelRef) -> Opened:
    """The model in its own framework; a Keras model on the backend that this process has, if it has one already."""
    here = replace(ref, framework=networks.keras_here(ref.framework)) if ref.framework.startswith("keras") else ref
    return Opened(open_network(here), here.framework, ref.architecture, ref.input_shape, ref.classes, ref.options)


# --- preparing ------------------------------------------------------------------------------------------------------


def _make(
    spec: ModelSpec,
    base: Path,
    sample: Dataset,
    file: Path | None,
    others: Mapping[str, ModelRef],
    part: Callable[[], Dataset],
    folder: Path,
    device: str,
    progress: Progress | None,
) -> ModelRef:
    options = _options(spec, file)
    architecture = spec.architecture or (file.name if file else "")
    classes = (_described_classes(file) if file else None) or len(sample.class_names)
    opened: Opened | None = None
    if spec.export:
        source, options = others[spec.export], {}
        file, architecture = folder / "model.onnx", source.architecture
        content = recipes.digest([export.EXPORT_VERSION, source.framework, source.digest])
        _export(source, file, sample)
    elif spec.convert:
        source = others[spec.convert]
        opened, file, architecture, options = _convert(source, spec.runtime, folder)
        content, classes = recipes.digest([convert.CONVERT_VERSION, source.framework, source.digest]), source.classes
    elif spec.onnx and file:
        content = recipes.onnx_digest(file)
    elif file:
        content = recipes.file_digest(file)
    elif spec.architecture and spec.weights:
        network, file, normalisation = networks.published(spec.architecture, spec.weights)
        options = {**options, **{key: value for key, value in normalisation.items() if options[key] is None}}
        content = recipes.file_digest(file)
    else:
        file = folder / ("weights.safetensors" if spec.runtime == "torch" else "weights.npz")
        network = _train(spec, sample, options, part, device, progress)
        (weights.save_torch if spec.runtime == "torch" else weights.save_keras)(network, file)
        content = networks.digest_of(network)
    ref = ModelRef(
        name=spec.name,
        digest=recipes.digest([content, architecture, spec.runtime, options]),
        framework=spec.runtime,
        architecture=architecture,
        input_shape=_shape(sample),
        classes=classes,
        spec=spec,
        artifact=str(file.absolute()),
        options=options,
        base=str(base.absolute()),
    )
    made = open_model(ref, device=device)
    if opened is not None:
        before = wrap(opened.network, input_shape=opened.input_shape, device="cpu", **opened.options)
        export.check(before, made, sample.x, f"convert: the model in {spec.framework}")
    return _checked(ref, made, sample)


def _train(
    spec: ModelSpec,
    sample: Dataset,
    options: Mapping[str, Any],
    part: Callable[[], Dataset],
    device: str,
    progress: Progress | None,
) -> Any:
    """The network of an architecture, trained, or with its initial weights where the spec has no ``train``."""
    family = spec.runtime.partition("-")[0]
    if family == "keras":
        networks.use_keras(spec.runtime)
    shape, train = _shape(sample), spec.train
    before = preprocessing(shape, **{key: value for key, value in options.items() if key != "output"})
    with training.seeded(train.seed if train else 0, family):
        network = networks.build(str(spec.architecture), spec.runtime, shape, len(sample.class_names))
        if train is None:
            return network
        x, y = part().x, part().y
        if family == "torch":
            from sparring.adapters.pytorch import choose_device

            chosen = str(choose_device(device))
            training.train_torch(network, x, y, train, before=before, device=chosen, progress=progress)
        else:
            import keras

            with keras.device("cpu") if device == "cpu" else nullcontext():
                training.train_keras(network, x, y, train, before=before, progress=progress)
    return network


def _export(source: ModelRef, path: Path, sample: Dataset) -> None:
    if source.framework == "onnx":
        raise InputError(f"export: {source.name!r} is an ONNX model already")
    if source.members:
        raise InputError(f"export: {source.name!r} is an ensemble: export its members, and put those together")
    network = open_network(source)
    classifier = _wrap(network, source, "cpu")
    export.export(classifier, network, path, dict(source.options), source.architecture)
    export.check(classifier, wrap(str(path), device="cpu"), sample.x)


def _convert(source: ModelRef, framework: str, folder: Path) -> tuple[Opened, Path, str, dict[str, Any]]:
    """The source as it is in this process, and of what its weights were moved into: file, architecture, options."""
    if source.framework in (framework, "onnx"):
        why = f"on {framework} already" if source.framework == framework else "an ONNX graph, not a network"
        raise InputError(f"convert: {source.name!r} is {why}")
    if framework != "torch":
        networks.use_keras(framework)
    opened = open_here(source)
    made = convert.moved(opened, framework)
    file = folder / ("weights.safetensors" if framework == "torch" else "model.keras")
    if framework == "torch":
        weights.save_torch(made.network, file)
    else:
        weights.atomically(file, made.network.save)
    return opened, file, made.architecture, dict(made.options)


def _prepare_object(spec: ModelSpec, base: Path, sample: Dataset, file: Path | None, device: str) -> ModelRef:
    network = _object(spec, base, file)
    framework = networks.framework_of(network)
    if spec.framework and spec.runtime != framework:
        raise InputError(f"framework: {spec.framework} is said, but {spec.object} is a {framework} model")
    ref = ModelRef(
        name=spec.name,
        digest=_object_digest(spec, network),
        framework=framework,
        architecture=f"object:{spec.object}",
        input_shape=_shape(sample),
        classes=len(sample.class_names),
        spec=spec,
        artifact=str(file) if file else None,
        options=_options(spec, None),
        base=str(base.absolute()),
    )
    return _checked(ref, _wrap(network, ref, device), sample)


def _object(spec: ModelSpec, base: Path, file: Path | None) -> Any:
    network = networks.imported(str(spec.object), base)
    if file:
        (weights.load_torch if networks.framework_of(network) == "torch" else weights.load_keras)(network, file)
    return network


def _object_digest(spec: ModelSpec, network: Any) -> str:
    """Of the weights, of the options, and of the file of the code: what ``forward`` does is only written there."""
    code = getattr(sys.modules[str(spec.object).partition(":")[0]], "__file__", None)
    text = recipes.file_digest(Path(code)) if code else ""
    return recipes.digest([networks.digest_of(network), spec.object, text, _options(spec, None)])


def _checked(ref: ModelRef, classifier: Classifier, sample: Dataset) -> ModelRef:
    """The ref with the classes that the model really has. Raises ``InputError`` if it doesn't fit the data."""
    check_outputs(classifier, sample.x, probabilities=True)
    if classifier.classes < len(sample.class_names):
        raise InputError(
            f"labels out of range: {sample.name} has {len(sample.class_names)} classes, the model {classifier.classes}"
        )
    lacks = {what: why for what in ("gradients", "logits") if (why := getattr(classifier, f"why_no_{what}", ""))}
    if look_like_probabilities(classifier.logits(sample.x)):
        lacks["logits"] = PROBABILITIES
    return replace(ref, classes=classifier.classes, lacks=lacks)


def _gives_probabilities(ref: ModelRef) -> bool:
    return ref.lacks.get("logits") == PROBABILITIES


def _shape(sample: Dataset) -> tuple[int, int, int]:
    channels, height, width = sample.x.shape[1:]
    return channels, height, width


# --- what a spec says -----------------------------------------------------------------------------------------------


def _check_spec(spec: ModelSpec) -> None:
    """Raise ``InputError`` for an architecture that isn't there and for keys that don't go together."""
    if spec.architecture:
        if spec.framework == "onnx":
            raise InputError("framework: an ONNX model is a file (`onnx`) or an `export` of another model of the suite")
        architectures.find(spec.architecture, spec.runtime)
        if spec.layout:
            raise InputError(f"layout: {spec.architecture} has its own; `layout` is for a model of your own")
        if spec.output == "probabilities":
            raise InputError(f"output: {spec.architecture} gives logits; `probabilities` is for a model of your own")
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
        raise InputError(_no_architecture(spec.weights))


def _no_architecture(file: object) -> str:
    return (
        f"weights: {file} needs an `architecture` to put them in; only a .keras file and a .safetensors file that "
        "`sparring convert` wrote have their own"
    )


def _self_described(spec: ModelSpec, file: Path | None) -> ModelSpec:
    """The spec with what a file of weights says of its network, where the spec says nothing. Raises ``InputError``."""
    if spec.architecture or spec.object or file is None or file.suffix != ".safetensors":
        return spec
    said = portable.described(file)
    if not said.get("architecture"):
        raise InputError(_no_architecture(file))
    if spec.runtime != "torch":
        raise InputError(f"framework: {file} holds a network of torch: `sparring convert` moves it")
    options = {key: said.get("options", {}).get(key) for key in convert.SCALES}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        own = ModelSpec.model_validate({**given, **facts(spec), "architecture": said["architecture"]})
    except ValueError as exc:
        raise InputError(f"weights: {file} says of itself what can't be: {weights.first_line(exc)}") from exc
    _check_spec(own)
    return own


def _described_classes(file: Path) -> int | None:
    return portable.described(file).get("classes") if file.suffix == ".safetensors" else None


def _file(spec: ModelSpec, base: Path) -> Path | None:
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
    root = datasets.data_folder()
    suffixes = (*weights.TORCH_SUFFIXES, *weights.KERAS_SUFFIXES, ".keras")
    if root and (root / spec.weights).is_dir():
        held = sorted(p for p in (root / spec.weights).iterdir() if p.name.endswith(suffixes))
        if len(held) != 1:
            names = ", ".join(p.name for p in held) or "none"
            raise InputError(f"weights: {root / spec.weights} must hold one file of weights; it holds {names}")
        return held[0]
    if ENUM.fullmatch(spec.weights):
        return None
    folder = root / spec.weights if root else f"$SPARRING_DATA/{spec.weights} ($SPARRING_DATA is not set)"
    raise InputError(
        f"weights: {spec.weights!r} was not found: there is no file {path}, no folder {folder}, "
        "and it is no weights enum of torchvision (such as ResNet50_Weights.IMAGENET1K_V2)"
    )


def _options(spec: ModelSpec, file: Path | None) -> dict[str, Any]:
    """The keyword arguments of ``wrap``, as plain JSON values."""
    options = {key: getattr(spec, key) for key in OPTIONS}
    if spec.architecture:
        options["layout"] = "channels-first" if spec.runtime == "torch" else "channels-last"
    folded = spec.architecture in mobilenet.NAMES and file is not None and file.suffix == ".npz"
    if folded and "input_range" not in spec.model_fields_set:
        options["input_range"] = mobilenet.INPUT_RANGE
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


# --- the cache ------------------------------------------------------------------------------------------------------


def _recipe(
    spec: ModelSpec,
    sample: Dataset,
    file: Path | None,
    others: Mapping[str, ModelRef],
    part: Callable[[], Dataset],
) -> dict[str, Any]:
    """Everything that the prepared model follows from."""
    recipe: dict[str, Any] = {
        "architecture": spec.architecture,
        "framework": spec.runtime,
        "input_shape": _shape(sample),
        "classes": len(sample.class_names),
        "options": _options(spec, file),
    }
    if spec.export:
        source = others[spec.export]
        return {**recipe, "export": [export.EXPORT_VERSION, source.framework, source.digest]}
    if spec.convert:
        source = others[spec.convert]
        return {**recipe, "convert": [convert.CONVERT_VERSION, source.framework, source.digest]}
    if file:
        content = recipes.onnx_digest(file) if spec.onnx else recipes.file_digest(file)
        return {**recipe, "file": [str(file), content]}
    if spec.weights:
        # torch decides by these where its downloads are
        return {**recipe, "weights": [spec.weights, *map(os.environ.get, ("TORCH_HOME", "XDG_CACHE_HOME"))]}
    recipe["training"] = [training.TRAINING_VERSION, facts(spec.train) if spec.train else None]
    if spec.train:
        recipe["training_data"] = part().digest
    return recipe


def _part(
    spec: ModelSpec, data: DataSpec, base: Path, progress: Progress | None = None, download: bool = True
) -> Callable[[], Dataset]:
    """What the model is trained on, read when it is first asked for."""
    train = spec.train or TrainSpec.model_validate({})
    load = partial(datasets.load_train, data, base=base, samples=train.samples, seed=train.seed)
    return cache(partial(load, progress=progress, download=download))


def _known(folder: Path, spec: ModelSpec, base: Path) -> ModelRef | None:
    try:
        value = json.loads((folder / "ref.json").read_text(encoding="utf-8"))
        ref = ModelRef.from_json({**value, "name": spec.name, "spec": facts(spec), "base": str(base.absolute())})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return ref if ref.artifact and Path(ref.artifact).is_file() else None
