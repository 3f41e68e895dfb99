"""An architecture that is trained here, or keeps its initial weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.models import recipes
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import TrainedModel
from sparring.models.networks import build, start, weights
from sparring.models.networks.determinism import seeded
from sparring.models.prepared.kinds.kind import Kind, Made, Task, options_of
from sparring.models.prepared.kinds.weights import check_architecture
from sparring.models.spec import TrainSpec, facts
from sparring.models.storage import write_whole
from sparring.models.training import search
from sparring.models.training.learner import History, Learner
from sparring.models.training.loop import TRAINING_VERSION, Begun
from sparring.models.training.train import trained
from sparring.models.weights_enums import refuse_bare


def work(spec: TrainedModel) -> str:
    """What preparing it does, in words."""
    if spec.train is None:
        return f"initialize {spec.architecture}"
    first = "search hyperparameters, then " if spec.search else ""
    return f"{first}train {spec.architecture} ({spec.train.epochs} epochs)"


def check(spec: TrainedModel) -> None:
    """Raise ``InputError`` for an architecture that isn't there and for keys that don't go together."""
    check_architecture(spec)
    if spec.search:
        search.check(spec)
    if spec.train and spec.train.start:
        if spec.runtime != "torch":
            raise InputError(f"train.start: torchvision's weights are for its networks in torch, not {spec.runtime}")
        refuse_bare(spec.train.start, spec.architecture, "train.start")


def recipe(spec: TrainedModel, task: Task) -> dict[str, Any]:
    """The training with its data, its search, its defenses and the weights that it begins with."""
    parts: dict[str, Any] = {"training": [TRAINING_VERSION, facts(spec.train) if spec.train else None]}
    parts |= {"search": facts(spec.search)} if spec.search else {}
    if spec.defenses:
        resolved = map(defenses.resolve, spec.defenses)
        parts["defenses"] = [(defense.name, defense.version, params) for defense, params in resolved]
    if spec.train:
        parts["training_data"] = task.part().digest
    if spec.train and spec.train.start:
        parts["start"] = start.facts(spec)
    return parts


def make(spec: TrainedModel, task: Task) -> Made:
    """Search, train, and write the weights."""
    options = options_of(spec)
    file = task.folder / ("weights.safetensors" if spec.runtime == "torch" else "weights.npz")
    chosen, trials = _searched(spec, task, options)
    network, facts_of_training = _train(chosen, task, options, _begun(spec, task))
    facts_of_training |= {"start": start.facts(chosen)} if chosen.train and chosen.train.start else {}
    facts_of_training |= {"search": trials} if trials else {}
    (weights.save_torch if spec.runtime == "torch" else weights.save_keras)(network, file)
    return Made(file, build.digest_of(network), chosen.architecture, options, task.classes, facts_of_training)


def _train(
    spec: TrainedModel, task: Task, options: Mapping[str, Any], begun: Begun | None
) -> tuple[Any, dict[str, Any]]:
    """The network, trained, or with its initial weights where the spec has no ``train``; and facts of the training."""
    family, shape, train = spec.runtime.partition("-")[0], task.shape, spec.train
    if family == "keras":
        build.use_keras(spec.runtime)
    new = partial(build.build, spec.architecture, spec.runtime, shape, task.classes)
    if train and train.start:
        new = partial(start.begun, spec.architecture, train.start, shape, task.classes)
    if train is None:
        with seeded(0, family):
            return new(), {}
    return trained(
        new,
        spec.runtime,
        task.part().x,
        task.part().y,
        train,
        defenses=defenses.training_changes(spec.defenses),
        begun=begun,
        before=preprocessing(shape, **{key: value for key, value in options.items() if key != "output"}),
        options=options,
        device=task.device,
        progress=task.progress,
    )


def _begun(spec: TrainedModel, task: Task) -> Begun | None:
    """For a training that begins as one without defenses: that one's weights, from the cache, made where they aren't.

    So a network that is fine-tuned in several ways is trained once.
    """
    if not (spec.train and spec.defenses) or spec.search:
        return None

    def begun(learner: Learner) -> History:
        ref = task.prepare(spec.model_copy(update={"defenses": (), "defended_as": None}))
        assert ref is not None
        assert ref.artifact is not None
        (weights.load_torch if spec.runtime == "torch" else weights.load_keras)(learner.network, Path(ref.artifact))
        return tuple(ref.facts["history"])

    return begun


def _searched(spec: TrainedModel, task: Task, options: Mapping[str, Any]) -> tuple[TrainedModel, list[dict[str, Any]]]:
    """The spec with the best of its hyperparameters, and every trial; searched once for all members of an ensemble."""
    if spec.search is None or spec.train is None:
        return spec, []
    alike = spec.train.model_copy(update={"seed": 0})
    part = task.part()
    question = {
        "search": [TRAINING_VERSION, facts(spec.search)],
        "architecture": spec.architecture,
        "framework": spec.runtime,
        "train": facts(alike),
        "data": part.digest,
        "options": options,
    }
    folder = recipes.folder(question)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "search.json"
    with FileLock(folder / ".lock"):
        if stored.is_file():
            answer = json.loads(stored.read_text(encoding="utf-8"))
        else:
            best, trials = search.search(
                spec, task.shape, task.classes, part.x, part.y, options, device=task.device, progress=task.progress
            )
            answer = {"architecture": best.architecture, "train": facts(best.train or alike), "trials": trials}
            content = json.dumps(answer, indent=1)
            write_whole(stored, content)
    train = TrainSpec.model_validate({**answer["train"], "seed": spec.train.seed})
    chosen = spec.model_copy(update={"architecture": answer["architecture"], "train": train, "search": None})
    return chosen, answer["trials"]


KIND = Kind(work=work, check=check, recipe=recipe, make=make)
