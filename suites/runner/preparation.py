"""Before the first cell: every model trained, exported or loaded once, and checked against the data."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.data.datasets import Dataset
from sparring.models.defenses.catalogue import wrappers
from sparring.models.model_spec import EnsembleModel, ExportModel, ModelSpec, TrainedModel
from sparring.models.prepared.kinds.table import kind_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.prepare import is_prepared
from sparring.models.spec import facts
from sparring.suites.plan.file import Suite
from sparring.suites.workers.pool import Pool, Seat, in_threads
from sparring.suites.workers.process import Disrupted, WorkerDied, WorkerFailed, WorkerLost, backend
from sparring.suites.workers.reporter import Reporter


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
    pool: Pool,
    device: str,
    report: Reporter,
    workers: int = 1,
) -> dict[str, ModelRef]:
    """``prepare_all`` for a suite of one data set."""
    return prepare_all(where, [(suite, data)], base, pool, device, report, workers)[0]


def prepare_all(
    where: str,
    parts: Sequence[tuple[Suite, Dataset]],
    base: Path,
    pool: Pool,
    device: str,
    report: Reporter,
    workers: int,
) -> list[dict[str, ModelRef]]:
    """Every model of every part of a suite by name: trained, exported or loaded where it wasn't.

    ``workers`` processes at a time, a model as soon as those are there that it is made of. Raises ``InputError`` for
    the first that can't be, and ``Disrupted`` if that is neither the model's fault nor the user's.
    """
    ready = [prepared(where, suite, data, base) for suite, data in parts]
    if device == "cuda":  # asked for by name: its absence is bad input, not a failure of every cell
        try:
            (seat := Seat(pool)).ask(backend("torch"), {"do": "device", "device": device})
            seat.leave()
        except InputError as error:
            raise InputError(f"--device {device}: {error}") from None
    waiting = [
        (part, index, spec)
        for part, (suite, _) in enumerate(parts)
        for index, spec in enumerate(suite.models)
        if spec.name not in ready[part]
    ]
    # what may turn out to be bad input comes before what takes long; the order is otherwise the suite's
    waiting.sort(key=lambda item: _cost(item[2]))
    total, finished = len(waiting), 0
    changed, stop = threading.Condition(), threading.Event()

    def take(seat: Seat) -> tuple[int, int, ModelSpec] | None:
        """The next model of which all sources are there, best one that the process at hand can make."""
        with changed:
            while waiting and not stop.is_set():
                able = [item for item in waiting if all(name in ready[item[0]] for name in item[2].sources)]
                fits = [item for item in able if seat.fits(backend(_host(item[2], ready[item[0]])))]
                if able:
                    item = (fits or able)[0]
                    waiting.remove(item)
                    return item
                changed.wait(0.1)
            return None

    def settle(part: int, spec: ModelSpec, ref: ModelRef) -> None:
        nonlocal finished
        with changed:
            ready[part][spec.name] = ref
            finished += 1
            changed.notify_all()

    def serve() -> None:
        seat = Seat(pool)
        while (item := take(seat)) is not None:
            part, index, spec = item
            suite, data = parts[part]
            others = {name: ready[part][name] for name in spec.sources}
            on = f" on {data.name}" if len(parts) > 1 else ""
            task = f"{spec.name}{on}: {kind_of(spec).work(spec)}"
            if isinstance(spec, EnsembleModel) or wrappers(
                spec.defenses
            ):  # what stands around a model that is there takes no process
                try:
                    known = is_prepared(spec, data=suite.one_data, base=base, others=others)
                    if known is not None:
                        _check_fit(known, data)
                except InputError as error:
                    raise InputError(f"{where}: models.{index} ({spec.name}){on}: {error}") from None
                if known is not None:
                    settle(part, spec, known)
                    continue
            report.stage(f"{task} ({finished + 1} of {total})" if total > 1 else task)

            def progress(done: int, steps: int, what: str, task: str = task) -> None:
                report.progress(task, done, steps, what)

            request = {
                "do": "prepare",
                "spec": facts(spec),
                "data": facts(suite.one_data),
                "base": str(base),
                "others": {name: other.to_json() for name, other in others.items()},
                "device": device,
            }
            try:
                ref = ModelRef.from_json(seat.ask(backend(_host(spec, ready[part])), request, progress))
                _check_fit(ref, data)
            except WorkerLost as error:
                raise Disrupted(f"{where}: models.{index} ({spec.name}){on}: {error}") from None
            except (InputError, WorkerFailed, WorkerDied) as error:
                raise InputError(f"{where}: models.{index} ({spec.name}){on}: {error}") from None
            settle(part, spec, ref)
        seat.leave()

    if waiting:
        in_threads(serve, min(workers, total), stop, pool)
    return [
        {spec.name: found[spec.name] for spec in suite.models} for (suite, _), found in zip(parts, ready, strict=True)
    ]


def _host(spec: ModelSpec, ready: Mapping[str, ModelRef]) -> str:
    """The framework in whose process a model is made."""
    # an object's own framework is known only when it has been prepared, which it has for whoever exports it
    exported = isinstance(spec, ExportModel) and spec.export in ready
    return ready[spec.sources[0]].host if exported else spec.runtime


def _cost(spec: ModelSpec) -> tuple[bool, bool, bool]:
    """What models are sorted by: those that are made of others, those that are trained, those behind defenses, last."""
    return bool(spec.sources), isinstance(spec, TrainedModel) and spec.train is not None, bool(wrappers(spec.defenses))
