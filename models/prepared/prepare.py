"""From a model of a suite to a prepared one: trained, exported, loaded or checked, once.

What was prepared is found again by its recipe, everything that it follows from. Beside the weights in
``$SPARRING_CACHE/models/`` lies ``ref.json``, so that a second run needs no framework to know the model. What each kind
of model does is in ``kinds/``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.wrap import PROBABILITIES, wrap
from sparring.models import recipes
from sparring.models.data import datasets
from sparring.models.data.datasets import Dataset
from sparring.models.data.pool import Progress
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import ModelSpec, TrainedModel, WeightsModel
from sparring.models.networks import export, published
from sparring.models.prepared.composed import defended_ref
from sparring.models.prepared.kinds.kind import Kind, Task, options_of
from sparring.models.prepared.kinds.table import kind_of
from sparring.models.prepared.kinds.weights import self_described
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import checked, open_model
from sparring.models.spec import DataSpec, TrainSpec, facts
from sparring.models.storage import data_folder
from sparring.models.weights_enums import ENUM


def is_prepared(
    spec: ModelSpec, *, data: DataSpec, base: Path, others: Mapping[str, ModelRef] | None = None
) -> ModelRef | None:
    """The ref of a model that needs nothing done, or None; nothing is downloaded, trained or built for the answer.

    An ``object`` is always None: only running its code tells what it is. Raises ``InputError`` for what can't be
    prepared: an unknown architecture, a missing file, keys that don't go together.
    """
    others = others or {}
    if defenses.wrappers(spec.defenses):
        bare = is_prepared(defenses.undefended(spec), data=data, base=base, others=others)
        return bare and defended_ref(spec, bare)
    kind = kind_of(spec)
    kind.check(spec)
    if any(name not in others for name in spec.sources):
        return None
    again = partial(is_prepared, data=data, base=base)
    composed = kind.composed(spec, base, others, again)
    if composed is not None:
        return composed
    file = kind.file(spec, base)
    spec = _self_described(spec, file)
    if kind.recipe is None:
        return None
    try:
        sample = datasets.peek(data, base=base, download=False)
        part = _part(spec, data, base, download=False)
        task = Task(data, base, others, sample, part, file, again)
        folder = recipes.folder(_recipe(kind, spec, task))
    except InputError:
        return None  # who loads the data says what is wrong with them
    ref = _stored(folder, spec, base)
    return None if ref is None or _gives_probabilities(ref) else ref


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
    ref = _prepared(spec, data, base, others or {}, device, progress)
    if not probabilities and _gives_probabilities(ref):
        raise InputError(PROBABILITIES)
    return ref


def _prepared(
    spec: ModelSpec,
    data: DataSpec,
    base: Path,
    others: Mapping[str, ModelRef],
    device: str,
    progress: Progress | None,
) -> ModelRef:
    if defenses.wrappers(spec.defenses):
        return defended_ref(spec, _prepared(defenses.undefended(spec), data, base, others, device, progress))
    kind = kind_of(spec)
    kind.check(spec)
    for name in spec.sources:
        if name not in others:
            raise InputError(f"{spec.kind}: {unknown('model', name, others)}")

    def again(other: ModelSpec, *, others: Mapping[str, ModelRef] | None = None) -> ModelRef:
        return _prepared(other, data, base, others or {}, device, progress)

    composed = kind.composed(spec, base, others, again)
    if composed is not None:
        return composed
    file = kind.file(spec, base)
    spec = _self_described(spec, file)
    sample = datasets.peek(data, base=base)
    part = _part(spec, data, base, progress)
    task = Task(data, base, others, sample, part, file, again, device, progress)
    return kind.ref(spec, task) if kind.ref else _cached(kind, spec, task)


def _cached(kind: Kind, spec: ModelSpec, task: Task) -> ModelRef:
    """The model from its place in the cache, made where it isn't there."""
    if isinstance(spec, TrainedModel) and spec.train and spec.train.start:
        published.fetched(spec.architecture, spec.train.start)  # the recipe has its digest
    folder = recipes.folder(_recipe(kind, spec, task))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(
            f"the cache {folder} can't be written ({exc.strerror}): set SPARRING_CACHE to a folder"
        ) from exc
    # a second process that wants the same training waits for it, and then finds it done
    with FileLock(folder / ".lock"):
        if ref := _stored(folder, spec, task.base):
            return ref
        ref = _made(kind, spec, replace(task, folder=folder))
        recipes.record(folder, ref.to_json(), ref.artifact)
    return ref


def _made(kind: Kind, spec: ModelSpec, task: Task) -> ModelRef:
    """Make the model, and run a few images through it. Raises ``InputError`` where it doesn't fit the data."""
    assert kind.make is not None
    made = kind.make(spec, task)
    ref = ModelRef(
        name=spec.name,
        digest=recipes.digest([made.content, made.architecture, spec.runtime, made.options]),
        framework=spec.runtime,
        architecture=made.architecture,
        input_shape=task.shape,
        classes=made.classes,
        spec=spec,
        artifact=str(made.file.absolute()),
        options=made.options,
        base=str(task.base.absolute()),
        facts=made.facts,
    )
    classifier = open_model(ref, device=task.device)
    if made.source is not None:
        source = made.source
        before = wrap(source.network, input_shape=source.input_shape, device="cpu", **source.options)
        export.check(before, classifier, task.sample.x, f"convert: the model in {spec.runtime}")
    return checked(ref, classifier, task.sample)


def _self_described(spec: ModelSpec, file: Path | None) -> ModelSpec:
    return self_described(spec, file) if isinstance(spec, WeightsModel) else spec


def _gives_probabilities(ref: ModelRef) -> bool:
    return ref.lacks.get("logits") == PROBABILITIES


# --- the cache ------------------------------------------------------------------------------------------------------


def _recipe(kind: Kind, spec: ModelSpec, task: Task) -> dict[str, Any]:
    """Everything that the prepared model follows from."""
    assert kind.recipe is not None
    return {
        "architecture": getattr(spec, "architecture", None),
        "framework": spec.runtime,
        "input_shape": task.shape,
        "classes": task.classes,
        "options": options_of(spec, task.file),
        **kind.recipe(spec, task),
    }


def _part(
    spec: ModelSpec, data: DataSpec, base: Path, progress: Progress | None = None, download: bool = True
) -> Callable[[], Dataset]:
    """What the model is trained on, read when it is first asked for."""
    train = (isinstance(spec, TrainedModel) and spec.train) or TrainSpec.model_validate({})

    def read() -> Dataset:
        key = json.dumps([facts(data), str(base.absolute()), str(data_folder()), train.samples, train.seed])
        with _LOCK:
            if key not in _PARTS:
                while len(_PARTS) > 1:  # a suite has a few, each of which may be a third of a gigabyte
                    _PARTS.pop(next(iter(_PARTS)))
                part = datasets.load_train(
                    data, base=base, samples=train.samples, seed=train.seed, progress=progress, download=download
                )
                part.x.setflags(write=False)
                _PARTS[key] = part
            return _PARTS[key]

    return cache(read)


_PARTS: dict[str, Dataset] = {}
"""The training parts that were read last: one suite trains many models on each."""
_LOCK = threading.Lock()


def _stored(folder: Path, spec: ModelSpec, base: Path) -> ModelRef | None:
    """The ref in the model's folder of the cache; None where it, or a whole file of it, isn't there."""
    value = recipes.recorded(folder)
    if value is None:
        return None
    del value[recipes.SHA256]
    try:
        ref = ModelRef.from_json({**value, "name": spec.name, "spec": facts(spec), "base": str(base.absolute())})
    except (ValueError, TypeError, KeyError):
        return None
    if isinstance(spec, WeightsModel) and ENUM.fullmatch(spec.weights):
        # whoever downloads the weights may lay another file in the place of this one
        sha256 = ref.facts.get("weights", {}).get("sha256")
        return ref if sha256 == recipes.file_digest(Path(str(ref.artifact))) else None
    return ref
