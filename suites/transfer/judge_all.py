"""Have every target judge every finished cell, in worker processes; a stored judgement is not computed again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import InputError, StorageError
from sparring.adapters.process import ProcessDied, ProcessFailed, ProcessLost
from sparring.models.prepared.model_ref import ModelRef
from sparring.suites.plan.cell import Cell
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.transfer import judge_cell
from sparring.suites.workers import schedule
from sparring.suites.workers.executor import Executor, Job, backend
from sparring.suites.workers.reporter import Reporter
from sparring.suites.workers.schedule import Task

Failures = dict[tuple[str, str], tuple[str, str]]
"""cell id, name of the target -> status and reason: failed, or missing where it is not the target's fault"""


def judge_all(
    folder: Path,
    planned: list[Planned],
    targets: Mapping[str, ModelRef],
    *,
    device: str,
    executor: Executor,
    report: Reporter,
) -> Failures:
    """Have every target (by name) judge the images of every cell that is done.

    A judgement that fails is a reason in what is returned, and is tried again the next time. Raises
    ``StorageError`` or a ``Disruption`` where no judgement would fare better.
    """
    cells = {row.cell.id: row.cell for row in planned if row.unsupported is None and _is_done(folder, row.cell.id)}
    failures: Failures = {}

    def work(name: str, ref: ModelRef, key: str, waiting: list[Cell]) -> None:
        for done, cell in enumerate(waiting):
            report.progress(f"{name} judges", done, len(waiting), "cells")
            request = {
                "do": "judge",
                "model": ref.to_json(),
                "run": str(folder.resolve()),
                "cell": cell.id,
                "key": key,
                "batch_size": cell.batch_size,
                "device": device,
            }
            try:
                executor.run(Job(backend(ref.host), request))
            except StorageError:
                raise
            except (InputError, ProcessFailed, ProcessDied, ProcessLost) as error:
                status = "missing" if isinstance(error, ProcessLost) or fault(error) else "failed"
                failures[cell.id, name] = status, f"{name} could not judge: {error}"
        report.progress(f"{name} judges", len(waiting), len(waiting), "cells")

    tasks = []
    for name, ref in targets.items():
        key = judge_cell.target_key(ref)
        waiting = [cell for cell in cells.values() if not judge_cell.place(folder, cell.id, key).is_file()]
        if waiting:
            tasks.append(Task(name, partial(backend, ref.host), partial(work, name, ref, key, waiting)))
    if tasks:
        report.stage(f"{len(tasks)} targets judge the images of {len(cells)} cells")
        schedule.run(tasks, executor)
    return failures


def _is_done(folder: Path, cell_id: str) -> bool:
    result = store.read(folder, cell_id)
    return result is not None and result.status == "done"
