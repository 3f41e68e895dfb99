"""Before the first cell: every model trained, exported or loaded once, and checked against the data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sparring.adapters.errors import Disruption, InputError
from sparring.adapters.process import ProcessDied, ProcessFailed, ProcessLost
from sparring.models.data.datasets import Dataset
from sparring.models.defenses.catalogue import wrappers
from sparring.models.model_spec import EnsembleModel, ExportModel, ModelSpec, TrainedModel
from sparring.models.prepared.kinds.table import kind_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.prepare import is_prepared
from sparring.models.spec import DataSpec, facts
from sparring.suites.plan.file import Suite
from sparring.suites.workers import schedule
from sparring.suites.workers.executor import Executor, Job, backend
from sparring.suites.workers.reporter import Reporter
from sparring.suites.workers.schedule import Task


def prepared(where: str, suite: Suite, data: Dataset, base: Path) -> dict[str, ModelRef]:
    """The models that need nothing done, by name. The cheap errors of all models come to light here."""
    ready: dict[str, ModelRef] = {}
    for index, spec in enumerate(suite.models):
        try:
            ref = is_prepared(spec, data=suite.one_data, base=base, others=ready)
            if ref is not None:
                _check_fit(ref, data)
                ready[spec.name] = ref
        except InputError as error:
            raise InputError(f"{where}: models.{index} ({spec.name}): {error}") from None
    return ready


def _check_fit(ref: ModelRef, data: Dataset) -> None:
    if tuple(ref.input_shape) != data.x.shape[1:]:
        raise InputError(
            f"the model takes images of shape {tuple(ref.input_shape)}, {data.name} has {data.x.shape[1:]}"
        )
    if len(data.y) and int(data.y.max()) >= ref.classes:
        raise InputError(
            f"label {int(data.y.max())} of {data.name} is out of range: the model has {ref.classes} classes"
        )


def prepare(
    where: str,
    suite: Suite,
    data: Dataset,
    base: Path,
    executor: Executor,
    device: str,
    report: Reporter,
) -> dict[str, ModelRef]:
    """``prepare_all`` for a suite of one data set."""
    return prepare_all(where, [(suite, data)], base, executor, device, report)[0]


def prepare_all(
    where: str,
    parts: Sequence[tuple[Suite, Dataset]],
    base: Path,
    executor: Executor,
    device: str,
    report: Reporter,
) -> list[dict[str, ModelRef]]:
    """Every model of every part of a suite by name: trained, exported or loaded where it wasn't.

    As many at once as the executor has slots, a model as soon as those are there that it is made of. Raises
    ``InputError`` for the first that can't be, and a ``Disruption`` where the machine is at fault.
    """
    ready = [prepared(where, suite, data, base) for suite, data in parts]
    _check_device(device, executor)
    waiting = _waiting(parts, ready)
    counter = itertools.count(1)

    def work(part: int, index: int, spec: ModelSpec) -> None:
        suite, data = parts[part]
        others = {name: ready[part][name] for name in spec.sources}
        on = f" on {data.name}" if len(parts) > 1 else ""
        number = next(counter)
        with _naming(f"{where}: models.{index} ({spec.name}){on}"):
            ref = None
            # what stands around a model that is there takes no process
            if isinstance(spec, EnsembleModel) or wrappers(spec.defenses):
                ref = is_prepared(spec, data=suite.one_data, base=base, others=others)
            if ref is None:
                title = f"{spec.name}{on}: {kind_of(spec).work(spec)}"
                report.stage(f"{title} ({number} of {len(waiting)})" if len(waiting) > 1 else title)
                job = job_of(spec, suite.one_data, base, others, device)
                answer = executor.run(job, partial(report.progress, title))
                ref = ModelRef.from_json(answer)
            _check_fit(ref, data)
        ready[part][spec.name] = ref

    def task(part: int, index: int, spec: ModelSpec) -> Task:
        needs = frozenset((part, name) for name in spec.sources if name not in ready[part])
        return Task((part, spec.name), lambda: _backend(spec, ready[part]), partial(work, part, index, spec), needs)

    schedule.run([task(*each) for each in waiting], executor)
    return [
        {spec.name: refs[spec.name] for spec in suite.models} for (suite, _), refs in zip(parts, ready, strict=True)
    ]


def job_of(
    spec: ModelSpec,
    data: DataSpec,
    base: Path,
    others: Mapping[str, ModelRef],
    device: str,
    probabilities: bool = False,
) -> Job:
    """``models.prepared.prepare`` as a job; its answer is the ref as JSON. ``others`` are the models it is made of."""
    request = {
        "do": "prepare",
        "spec": facts(spec),
        "data": facts(data),
        "base": str(base),
        "others": {name: other.to_json() for name, other in others.items()},
        "device": device,
        "probabilities": probabilities,
    }
    return Job(_backend(spec, others), request)


def _backend(spec: ModelSpec, others: Mapping[str, ModelRef]) -> str:
    """The Keras backend of the process in which a model is made."""
    # an object's own framework is known only when it has been prepared, which it has for whoever exports it
    exported = isinstance(spec, ExportModel) and spec.export in others
    return backend(others[spec.sources[0]].host if exported else spec.runtime)


def _check_device(device: str, executor: Executor) -> None:
    """A GPU is asked for by name: its absence is bad input, not a failure of every cell."""
    if device == "cuda":
        try:
            executor.run(Job(backend("torch"), {"do": "device", "device": device}))
        except InputError as error:
            raise InputError(f"--device {device}: {error}") from None


def _waiting(
    parts: Sequence[tuple[Suite, Dataset]], ready: Sequence[Mapping[str, ModelRef]]
) -> list[tuple[int, int, ModelSpec]]:
    """What is to be prepared, as numbers of the part and of the model in it, in the order in which it is begun."""
    waiting = [
        (part, index, spec)
        for part, (suite, _) in enumerate(parts)
        for index, spec in enumerate(suite.models)
        if spec.name not in ready[part]
    ]
    # what may turn out to be bad input comes before what takes long; the order is otherwise the suite's
    waiting.sort(key=lambda each: _cost(each[2]))
    return waiting


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Within the context errors say which model they are about."""
    try:
        yield
    except ProcessLost as error:
        raise Disruption(f"{place}: {error}") from None
    except (InputError, ProcessFailed, ProcessDied) as error:
        raise InputError(f"{place}: {error}") from None


def _cost(spec: ModelSpec) -> tuple[bool, bool, bool]:
    """What models are sorted by: those that are made of others, those that are trained, those behind defenses, last."""
    return bool(spec.sources), isinstance(spec, TrainedModel) and spec.train is not None, bool(wrappers(spec.defenses))
