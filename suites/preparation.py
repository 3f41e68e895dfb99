"""Before the first cell: every model trained, exported or loaded once, and checked against the data."""

from __future__ import annotations

from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.datasets import Dataset
from sparring.models.load import is_prepared
from sparring.models.ref import ModelRef
from sparring.models.spec import ModelSpec, facts
from sparring.suites.pool import Pool
from sparring.suites.process import WorkerDied, WorkerFailed, backend
from sparring.suites.reporter import Reporter
from sparring.suites.suite import Suite


def what_to_do(spec: ModelSpec) -> str:
    """What ``prepare`` will do for a model, in words."""
    if spec.export is not None:
        return f"export {spec.export} to ONNX"
    if spec.convert is not None:
        return f"convert {spec.convert} to {spec.runtime}"
    if spec.ensemble is not None:
        return f"put {', '.join(spec.ensemble)} together"
    if spec.architecture is not None and spec.weights is None:
        return (
            f"train {spec.architecture} ({spec.train.epochs} epochs)"
            if spec.train
            else f"initialise {spec.architecture}"
        )
    return f"load {spec.object or spec.weights or spec.onnx}"


def prepared(where: str, suite: Suite, data: Dataset, base: Path) -> dict[str, ModelRef]:
    """The models that need nothing done, by name. The cheap errors of all models come to light here."""
    ready: dict[str, ModelRef] = {}
    for index, spec in enumerate(suite.models):
        try:
            ref = is_prepared(spec, data=suite.data, base=base, others=ready)
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
    where: str, suite: Suite, data: Dataset, base: Path, pool: Pool, device: str, report: Reporter
) -> dict[str, ModelRef]:
    """Every model of the suite by name, in its order: trained, exported or loaded where it wasn't. ``InputError``."""
    ready = prepared(where, suite, data, base)
    if device == "cuda":  # asked for by name: its absence is bad input, not a failure of every cell
        try:
            pool.worker(backend("torch")).ask({"do": "device", "device": device})
        except InputError as error:
            raise InputError(f"--device {device}: {error}") from None
    waiting = [(index, spec) for index, spec in enumerate(suite.models) if spec.name not in ready]
    # what may turn out to be bad input comes before what takes long; the order is otherwise the suite's
    waiting.sort(key=lambda item: (bool(item[1].sources), item[1].train is not None))
    for index, spec in waiting:
        task = f"{spec.name}: {what_to_do(spec)}"
        report.stage(task)
        # an object's own framework is known only when it has been prepared, which it has for whoever exports it
        runtime = ready[spec.export].host if spec.export in ready else spec.runtime

        def progress(done: int, total: int, what: str, task: str = task) -> None:
            report.progress(task, done, total, what)

        try:
            answer = pool.worker(backend(runtime)).ask(
                {
                    "do": "prepare",
                    "spec": facts(spec),
                    "data": facts(suite.data),
                    "base": str(base),
                    "others": {name: ref.to_json() for name, ref in ready.items()},
                    "device": device,
                },
                progress,
            )
            ref = ModelRef.from_json(answer)
            _check_fit(ref, data)
            ready[spec.name] = ref
        except (InputError, WorkerFailed, WorkerDied) as error:
            raise InputError(f"{where}: models.{index} ({spec.name}): {error}") from None
    return {spec.name: ready[spec.name] for spec in suite.models}
