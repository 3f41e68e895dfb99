"""From a model of a suite to a classifier: ``prepare`` once (train, export, check), then ``open_model``, anywhere.

What was prepared is found again by its recipe, everything that it follows from. Beside the weights in
``$SPARRING_CACHE/models/`` lies ``ref.json``, so that a second run needs no framework to know the model.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.protocol import Classifier
from sparring.adapters.wrap import PROBABILITIES, check_outputs, look_like_probabilities, wrap
from sparring.models import recipes
from sparring.models.data import datasets
from sparring.models.data.datasets import Dataset
from sparring.models.data.pictures import Progress
from sparring.models.defenses import catalogue as defenses
from sparring.models.networks import build as networks
from sparring.models.networks import convert, export, published, weights
from sparring.models.networks import start as starting
from sparring.models.networks.convert import Opened
from sparring.models.networks.determinism import seeded
from sparring.models.prepared.check import check_spec, described_classes, file_of, options_of, self_described
from sparring.models.prepared.composed import converted_ensemble, defended_ref, ensemble_ref
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_here, open_model, open_network, user_digest, user_network, wrapped
from sparring.models.spec import FROM_OTHERS, DataSpec, ModelSpec, TrainSpec, facts
from sparring.models.storage import atomically, data_folder
from sparring.models.training.learner import History, Learner
from sparring.models.training.loop import TRAINING_VERSION, Begun
from sparring.models.training.train import trained


def is_prepared(
    spec: ModelSpec, *, data: DataSpec, base: Path, others: Mapping[str, ModelRef] | None = None
) -> ModelRef | None:
    """The ref of a model that needs nothing done, or None; nothing is downloaded, trained or built for the answer.

    An ``object`` is always None: only running its code tells what it is. Raises ``InputError`` for what can't be
    prepared: an unknown architecture, a missing file, keys that don't go together.
    """
    if defenses.wrappers(spec.defenses):
        bare = is_prepared(defenses.undefended(spec), data=data, base=base, others=others)
        return bare and defended_ref(spec, bare)
    check_spec(spec)
    if any(name not in (others or {}) for name in spec.sources):
        return None
    if spec.ensemble:
        return ensemble_ref(spec, base, others or {})
    if spec.convert and (others or {})[spec.convert].members:
        member = partial(is_prepared, data=data, base=base)
        return converted_ensemble(spec, base, (others or {})[spec.convert], member)
    file = file_of(spec, base)
    spec = self_described(spec, file)
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
    if defenses.wrappers(spec.defenses):
        return defended_ref(spec, _prepared(defenses.undefended(spec), data, base, others, device, progress))
    check_spec(spec)
    key = next((key for key in FROM_OTHERS if getattr(spec, key)), "")
    for name in spec.sources:
        if name not in others:
            raise InputError(f"{key}: {unknown('model', name, others)}")
    if spec.ensemble:
        return ensemble_ref(spec, base, others)
    if spec.convert and others[spec.convert].members:
        make = partial(prepare, data=data, base=base, device=device, progress=progress)
        whole = converted_ensemble(spec, base, others[spec.convert], make)
        assert whole is not None
        return whole
    file = file_of(spec, base)
    spec = self_described(spec, file)
    sample = datasets.peek(data, base=base)
    if spec.object:
        return _prepare_object(spec, base, sample, file, device)
    part = _part(spec, data, base, progress)
    if spec.train and spec.train.start:
        published.fetched(str(spec.architecture), spec.train.start)  # the recipe has its digest
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
        begun = _begun(spec, data, base, device, progress)
        ref = _make(spec, base, sample, file, others, part, folder, begun, device, progress)
        recipes.record(folder, ref.to_json(), ref.artifact)
    return ref


# --- preparing ------------------------------------------------------------------------------------------------------


def _make(
    spec: ModelSpec,
    base: Path,
    sample: Dataset,
    file: Path | None,
    others: Mapping[str, ModelRef],
    part: Callable[[], Dataset],
    folder: Path,
    begun: Begun | None,
    device: str,
    progress: Progress | None,
) -> ModelRef:
    options = options_of(spec, file)
    architecture = spec.architecture or (file.name if file else "")
    classes = (described_classes(file) if file else None) or len(sample.class_names)
    opened: Opened | None = None
    known: dict[str, Any] = {}
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
        file = published.fetched(spec.architecture, spec.weights)
        content = recipes.file_digest(file)
        known = published.facts(spec.architecture, spec.weights, file, content)
        options |= {key: known["transforms"][key] for key in ("mean", "std") if options[key] is None}
    else:
        file = folder / ("weights.safetensors" if spec.runtime == "torch" else "weights.npz")
        chosen, trials = _searched(spec, sample, options, part, device, progress)
        architecture = str(chosen.architecture)
        network, known = _train(chosen, sample, options, part, begun, device, progress)
        known |= {"start": starting.facts(chosen)} if chosen.train and chosen.train.start else {}
        known |= {"search": trials} if trials else {}
        (weights.save_torch if spec.runtime == "torch" else weights.save_keras)(network, file)
        content = networks.digest_of(network)
    if spec.export or spec.convert:
        known = {key: source.facts[key] for key in published.FACTS if key in source.facts}
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
        facts=known,
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
    begun: Begun | None,
    device: str,
    progress: Progress | None,
) -> tuple[Any, dict[str, Any]]:
    """The network of an architecture, trained, or with its initial weights where the spec has no ``train``; facts."""
    family = spec.runtime.partition("-")[0]
    if family == "keras":
        networks.use_keras(spec.runtime)
    shape, train = _shape(sample), spec.train
    build = partial(networks.build, str(spec.architecture), spec.runtime, shape, len(sample.class_names))
    if train and train.start:
        build = partial(starting.begun, str(spec.architecture), train.start, shape, len(sample.class_names))
    if train is None:
        with seeded(0, family):
            return build(), {}
    before = preprocessing(shape, **{key: value for key, value in options.items() if key != "output"})
    return trained(
        build,
        spec.runtime,
        part().x,
        part().y,
        train,
        defenses=defenses.training_changes(spec.defenses),
        begun=begun,
        before=before,
        options=options,
        device=device,
        progress=progress,
    )


def _begun(spec: ModelSpec, data: DataSpec, base: Path, device: str, progress: Progress | None) -> Begun | None:
    """For a training that begins as one without defenses: that one's weights, from the cache, made where they aren't.

    So a network that is fine-tuned in several ways is trained once.
    """
    if not (spec.train and spec.defenses) or spec.search:
        return None

    def begun(learner: Learner) -> History:
        plain = spec.model_copy(update={"defenses": (), "defended_as": None})
        ref = _prepared(plain, data, base, None, device, progress)
        (weights.load_torch if spec.runtime == "torch" else weights.load_keras)(
            learner.network, Path(str(ref.artifact))
        )
        return tuple(ref.facts["history"])

    return begun


def _searched(
    spec: ModelSpec,
    sample: Dataset,
    options: Mapping[str, Any],
    part: Callable[[], Dataset],
    device: str,
    progress: Progress | None,
) -> tuple[ModelSpec, list[dict[str, Any]]]:
    """The spec with the best of its hyperparameters, and every trial; searched once for all members of an ensemble."""
    if spec.search is None or spec.train is None:
        return spec, []
    from sparring.models.training import search

    alike = spec.train.model_copy(update={"seed": 0})
    folder = recipes.folder({
        "search": [TRAINING_VERSION, facts(spec.search)], "architecture": spec.architecture,
        "framework": spec.runtime, "train": facts(alike), "data": part().digest, "options": options,
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "search.json"
    with FileLock(folder / ".lock"):
        if stored.is_file():
            found = json.loads(stored.read_text(encoding="utf-8"))
        else:
            best, trials = search.search(
                spec, _shape(sample), len(sample.class_names), part().x, part().y, options,
                device=device, progress=progress,
            )  # fmt: skip
            found = {"architecture": best.architecture, "train": facts(best.train or alike), "trials": trials}
            content = json.dumps(found, indent=1)
            atomically(stored, lambda path: path.write_bytes(content.encode()))
    train = TrainSpec.model_validate({**found["train"], "seed": spec.train.seed})
    chosen = spec.model_copy(update={"architecture": found["architecture"], "train": train, "search": None})
    return chosen, found["trials"]


def _export(source: ModelRef, path: Path, sample: Dataset) -> None:
    if source.framework == "onnx":
        raise InputError(f"export: {source.name!r} is an ONNX model already")
    if source.members:
        raise InputError(f"export: {source.name!r} is an ensemble: export its members, and put those together")
    network = open_network(source)
    classifier = wrapped(network, source, "cpu")
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
        atomically(file, made.network.save)
    return opened, file, made.architecture, dict(made.options)


def _prepare_object(spec: ModelSpec, base: Path, sample: Dataset, file: Path | None, device: str) -> ModelRef:
    network = user_network(spec, base, file)
    framework = networks.framework_of(network)
    if spec.framework and spec.runtime != framework:
        raise InputError(f"framework: {spec.framework} is said, but {spec.object} is a {framework} model")
    ref = ModelRef(
        name=spec.name,
        digest=user_digest(spec, network),
        framework=framework,
        architecture=f"object:{spec.object}",
        input_shape=_shape(sample),
        classes=len(sample.class_names),
        spec=spec,
        artifact=str(file) if file else None,
        options=options_of(spec, None),
        base=str(base.absolute()),
    )
    return _checked(ref, wrapped(network, ref, device), sample)


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
        "options": options_of(spec, file),
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
    recipe["training"] = [TRAINING_VERSION, facts(spec.train) if spec.train else None]
    recipe |= {"search": facts(spec.search)} if spec.search else {}
    if spec.defenses:
        told = [(found.name, found.version, params) for found, params in map(defenses.resolve, spec.defenses)]
        recipe["defenses"] = told
    if spec.train:
        recipe["training_data"] = part().digest
    if spec.train and spec.train.start:
        recipe["start"] = starting.facts(spec)
    return recipe


def _part(
    spec: ModelSpec, data: DataSpec, base: Path, progress: Progress | None = None, download: bool = True
) -> Callable[[], Dataset]:
    """What the model is trained on, read when it is first asked for."""
    train = spec.train or TrainSpec.model_validate({})

    def read() -> Dataset:
        key = json.dumps([facts(data), str(base.absolute()), str(data_folder()), train.samples, train.seed])
        with _LOCK:
            if key not in _PARTS:
                while len(_PARTS) > 1:  # a suite has a few, each of which may be a third of a gigabyte
                    _PARTS.pop(next(iter(_PARTS)))
                found = datasets.load_train(
                    data, base=base, samples=train.samples, seed=train.seed, progress=progress, download=download
                )
                found.x.setflags(write=False)
                _PARTS[key] = found
            return _PARTS[key]

    return cache(read)


_PARTS: dict[str, Dataset] = {}
"""The training parts that were read last: one suite trains many models on each."""
_LOCK = threading.Lock()


def _known(folder: Path, spec: ModelSpec, base: Path) -> ModelRef | None:
    value = recipes.recorded(folder)
    if value is None:
        return None
    del value[recipes.SHA256]
    try:
        ref = ModelRef.from_json({**value, "name": spec.name, "spec": facts(spec), "base": str(base.absolute())})
    except (ValueError, TypeError, KeyError):
        return None
    if spec.weights and published.ENUM.fullmatch(spec.weights):
        # whoever downloads the weights may lay another file in the place of this one
        known = ref.facts.get("weights", {}).get("sha256")
        return ref if known == recipes.file_digest(Path(str(ref.artifact))) else None
    return ref
