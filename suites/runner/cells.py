"""Compute cells: one in this process, or many in the workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import InputError, NotSupported, SparringError, StorageError
from sparring.adapters.frameworks.preprocessing import Preprocessing, preprocessing
from sparring.adapters.process import ProcessDied, ProcessFailed, ProcessLost
from sparring.adapters.protocol import Classifier, Images
from sparring.adapters.wrappers.units import view
from sparring.models.data.datasets import Dataset
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import facts
from sparring.suites.plan.cell import Cell, Result
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.workers import schedule
from sparring.suites.workers.executor import Executor, Job, TimeLimit, backend
from sparring.suites.workers.reporter import Reporter
from sparring.suites.workers.schedule import Task

ULP = 2.0**-24
"""Half of what float32 can tell apart below 1."""


def compute(
    todo: list[Planned],
    folder: Path,
    base: Path,
    device: str,
    limit_seconds: float | None,
    retry_failed: bool,
    executor: Executor,
    report: Reporter,
) -> dict[str, str]:
    """Compute cells, as many at once as the executor has slots.

    Returns the ids of the cells that are left without a result, for a reason that is neither the library's nor the
    model's, with that reason. Raises ``StorageError`` or a ``Disruption`` where no cell would fare
    better.
    """
    left: dict[str, str] = {}
    lock = threading.Lock()
    finished = 0

    def work(row: Planned) -> None:
        nonlocal finished
        status, reason = "done", ""
        if retry_failed or not store.has(folder, row.cell.id):  # another run may be filling the folder too
            status, reason = computed(row)
        with lock:
            finished += 1
            report.finished(row, status, reason)
            report.cells(finished, len(todo))

    def computed(row: Planned) -> tuple[str, str]:
        cell = row.cell
        request = {
            "do": "cell",
            "cell": cell.to_json(),
            "data": facts(row.data),
            "base": str(base),
            "run": str(folder.resolve()),
            "replace": retry_failed,
            "device": device,
        }
        try:
            answer = executor.run(
                Job(backend(cell.model.host), request, limit_seconds),
                partial(report.progress, row.title),
            )
            return answer["status"], answer["reason"]
        except StorageError:
            raise
        except TimeLimit as error:
            status, result = "timeout", Result("timeout", str(error), seconds=limit_seconds or 0.0)
        except (ProcessDied, ProcessFailed, InputError, ProcessLost) as error:
            # what the library or the model raises is in the answer: here, only a crash is theirs
            if not isinstance(error, ProcessDied) or fault(error):
                left[cell.id] = str(error)
                return "missing", str(error)
            status, result = "crashed", Result("failed", str(error))
        store.write(folder, cell.id, cell.identity(), result, replace=retry_failed)
        return status, result.reason

    report.cells(0, len(todo))
    tasks = [Task(row.cell.id, partial(backend, row.cell.model.host), partial(work, row)) for row in todo]
    schedule.run(tasks, executor)
    return left


def run_cell(
    cell: Cell,
    classifier: Classifier,
    data: Dataset,
    *,
    judge: Classifier | None = None,
    progress: Callable[[int, int], None] | None = None,
    started: Callable[[], None] | None = None,
) -> Result:
    """Run one cell. Whatever the library or the model does wrong is a result that says why.

    ``classifier`` is what the attacker sees; ``judge``, where it is another, is the model that is used. What is neither
    the library's fault nor the model's is raised: ``InputError`` if the data are others than the cell's, an interrupt,
    and every disruption (``adapters.disruptions``).
    """
    from sparring.adapters.attacks.run import attack

    if data.digest != cell.data_digest:
        raise InputError(f"the data changed: {cell.dataset} now has the digest {data.digest[:12]}")
    x = data.x[cell.start : cell.stop]
    x = nudged(x, cell.nudge) if cell.nudge else x
    begin = time.perf_counter()
    y = data.y[cell.start : cell.stop]
    fit = None
    if cell.fit_digest:
        if data.fit_digest != cell.fit_digest or data.fit_x is None or data.fit_y is None:
            raise InputError(f"the data to train the attack on changed: {cell.dataset}")
        fit = (data.fit_x, data.fit_y)
    try:
        done = attack(
            classifier,
            x,
            y,
            cell.attack,
            library=cell.library,
            norm=cell.norm,
            targeted=cell.targeted,
            seed=cell.seed,
            route=cell.route,
            batch_size=cell.batch_size,
            progress=progress,
            started=started,
            params=cell.params,
            reconcile=cell.reconcile,
            judge=judge,
            fit=fit,
            targets=None if cell.aim is None else np.full(len(y), cell.aim, np.int64),
            shown=view(classifier, space=cell.space, temperature=cell.temperature, before=_before(cell.model)),
        )
    except NotSupported as error:
        return Result("unsupported", str(error))
    except (Exception, SystemExit) as error:  # a cell that fails is a row that says why
        return failed(error, time.perf_counter() - begin)
    return Result(
        "done",
        notes=done.notes,
        forwards=done.forwards,
        backwards=done.backwards,
        seconds=done.seconds,
        facts={"call": done.call, "prediction_seconds": done.prediction_seconds},
        arrays={
            "x": x,
            "x_adv": done.images,
            "logits_clean": done.logits_clean,
            "logits_adv": done.logits_adv,
            **done.samples,
            **{f"extra_{name}": array for name, array in done.extras.items()},
        },
    )


def failed(error: BaseException, seconds: float = 0.0) -> Result:
    """The result of a cell whose library or model raised this. Raises the error again if it is a disruption."""
    if fault(error) is not None:
        raise error
    if isinstance(error, MemoryError):
        return Result("failed", "out of memory", seconds=seconds)
    text = str(error) if isinstance(error, SparringError) else f"{type(error).__name__}: {error}"
    return Result("failed", text, seconds=seconds)


def _before(ref: ModelRef) -> Preprocessing:
    """What the model does to pixels before anything else."""
    options = {key: value for key, value in ref.options.items() if key != "output" and value is not None}
    return preprocessing(ref.input_shape, **options)


def nudged(x: Images, seed: int) -> Images:
    """Every pixel inside (0, 1) moved by at most ``ULP`` up or down; those at the border of the box stay there."""
    move = np.random.default_rng(seed).choice(np.array([-ULP, 0.0, ULP]), x.shape)
    inside = (x > ULP) & (x < 1 - ULP)
    moved: Images = np.where(inside, x.astype(np.float64) + move, x).astype(np.float32)
    return moved
