"""A search over hyperparameters before the training: cross-validated, on a grid or at random, by scikit-learn.

The points are scikit-learn's ``ParameterGrid`` or, drawn by a seed, its ``ParameterSampler`` (Bergstra, Bengio 2012,
Random Search for Hyper-Parameter Optimization); each is trained on all folds but one of a ``StratifiedKFold`` and
scored by accuracy on that one. No defense takes part: what is sought is the network.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.protocol import Images, Labels
from sparring.adapters.wrap import wrap
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures.architecture import written
from sparring.models.data.pool import Progress
from sparring.models.model_spec import TrainedModel
from sparring.models.networks import build as networks
from sparring.models.spec import SearchSpec, TrainSpec, facts
from sparring.models.training.train import trained

Point = Mapping[str, Any]
"""One value for every key that is searched over."""

NOT_SEARCHED = ("seed", "samples")
"""Of ``train``: what decides the chance and the data, not the network."""
BATCH = 256


def check(spec: TrainedModel) -> None:
    """Raise ``InputError`` for a key that neither ``train`` nor the architecture has, and for impossible values."""
    if spec.search is None:
        return
    of_training = [key for key in TrainSpec.model_fields if key not in NOT_SEARCHED]
    valid = [*of_training, *architectures.find(spec.architecture, spec.runtime).parameters(_family(spec))]
    for key, values in spec.search.over.items():
        if key not in valid:
            raise InputError(f"search.over: {unknown('hyperparameter', key, valid)}")
        if not values:
            raise InputError(f"search.over.{key}: no values to try")
    for point in points(spec.search):
        chosen(spec, point)


def points(search: SearchSpec) -> list[Point]:
    """What is tried, in order: the whole grid, or ``trials`` different points of it that ``seed`` draws."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    over = {key: list(values) for key, values in search.over.items()}
    grid = ParameterGrid(over)
    if search.how == "grid":
        return list(grid)
    return list(ParameterSampler(over, min(search.trials, len(grid)), random_state=search.seed))


def chosen(spec: TrainedModel, point: Point) -> TrainedModel:
    """The model with these hyperparameters. Raises ``InputError`` for values that can't be."""
    assert spec.train is not None
    of_training = {key: value for key, value in point.items() if key in TrainSpec.model_fields}
    of_network = {key: value for key, value in point.items() if key not in of_training}
    try:
        train = TrainSpec.model_validate({**facts(spec.train), **of_training})
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(["search.over", *map(str, detail["loc"])])
        raise InputError(f"{where}: {detail['msg']} ({_said(point)})") from None
    architecture = written(spec.architecture, **of_network)
    try:
        architectures.find(architecture, spec.runtime)
    except InputError as error:
        raise InputError(f"search.over: {error}") from None
    return spec.model_copy(update={"architecture": architecture, "train": train})


def search(
    spec: TrainedModel,
    shape: tuple[int, int, int],
    classes: int,
    x: Images,
    y: Labels,
    options: Mapping[str, Any],
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[TrainedModel, list[dict[str, Any]]]:
    """The model with the best of its hyperparameters, and what each trial came to; of equals the first is the best.

    ``x`` (N, C, H, W) and ``y`` (N,) are the training images, ``options`` the keyword arguments of ``wrap``. Every
    trial is trained with the search's seed, on the same folds. A trial says ``parameters``, the accuracy of each of its
    ``folds``, their mean ``accuracy`` and ``deviation``, ``seconds``, whether it is the ``best``, and, where its
    training broke down and its accuracy is None, why it ``failed``. Raises ``InputError`` as ``check`` does, for more
    samples or folds than there are images, and where no trial could be trained.
    """
    check(spec)
    assert spec.search is not None
    question = spec.search
    x, y = _sampled(question, x, y)
    tried, trials, folds = points(question), [], _folds(question, y)
    for number, point in enumerate(tried):
        begin, accuracies, failed = time.perf_counter(), [], ""
        one = chosen(spec, point)
        for fold, (rest, held) in enumerate(folds):
            if progress:
                what = f"search: trial {number + 1}/{len(tried)}, fold {fold + 1}/{question.folds}"
                progress(number * question.folds + fold, len(tried) * question.folds, what)
            try:
                accuracy = _accuracy(one, shape, classes, (x[rest], y[rest]), (x[held], y[held]), options, device)
            except InputError as error:
                failed = str(error)
                break
            accuracies.append(accuracy)
        trials.append(_trial(point, accuracies, failed, time.perf_counter() - begin))
    if progress:
        progress(len(tried) * question.folds, len(tried) * question.folds, "search: done")
    reached = [trial["accuracy"] for trial in trials if trial["accuracy"] is not None]
    if not reached:
        raise InputError(f"search: no trial could be trained; the first: {trials[0]['failed']}")
    best = next(number for number, trial in enumerate(trials) if trial["accuracy"] == max(reached))
    trials[best]["best"] = True
    return chosen(spec, tried[best]), trials


def _trial(point: Point, accuracies: list[float], failed: str, seconds: float) -> dict[str, Any]:
    return {
        "parameters": dict(point),
        "folds": accuracies,
        "accuracy": None if failed else float(np.mean(accuracies)),
        "deviation": None if failed else float(np.std(accuracies)),
        "seconds": seconds,
        "best": False,
        **({"failed": failed} if failed else {}),
    }


def _sampled(question: SearchSpec, x: Images, y: Labels) -> tuple[Images, Labels]:
    if question.samples is not None:
        if question.samples > len(x):
            raise InputError(f"search.samples: {question.samples} images asked for, but there are {len(x)} to train on")
        drawn = np.random.default_rng(question.seed).permutation(len(x))[: question.samples]
        x, y = x[drawn], y[drawn]
    return x, y


def _folds(question: SearchSpec, y: Labels) -> list[tuple[Any, Any]]:
    """The indices to train on and those held out, fold by fold."""
    from sklearn.model_selection import StratifiedKFold

    most = int(np.unique(y, return_counts=True)[1].max())
    if most < question.folds:
        raise InputError(
            f"search.folds: {question.folds} folds, but no class has more than {most} of the {len(y)} images"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes too small for every fold: GTSRB's are, in a sample
        return list(StratifiedKFold(question.folds, shuffle=True, random_state=question.seed).split(y, y))


def _accuracy(
    spec: TrainedModel,
    shape: tuple[int, int, int],
    classes: int,
    seen: tuple[Images, Labels],
    held: tuple[Images, Labels],
    options: Mapping[str, Any],
    device: str,
) -> float:
    from sklearn.metrics import accuracy_score

    assert spec.train is not None
    assert spec.search is not None
    if _family(spec) == "keras":
        networks.use_keras(spec.runtime)
    before = preprocessing(shape, **{key: value for key, value in options.items() if key != "output"})
    build = partial(networks.build, spec.architecture, spec.runtime, shape, classes)
    train = spec.train.model_copy(update={"seed": spec.search.seed})
    network, _ = trained(build, spec.runtime, *seen, train, before=before, options=options, device=device)
    model = wrap(network, input_shape=shape, classes=classes, device=device, **options)
    x, y = held
    decided = [model.logits(x[i : i + BATCH]).argmax(axis=1) for i in range(0, len(x), BATCH)]
    return float(accuracy_score(y, np.concatenate(decided)))


def _family(spec: TrainedModel) -> str:
    return spec.runtime.partition("-")[0]


def _said(point: Point) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
