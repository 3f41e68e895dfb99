"""Every target's judgement of every finished cell, in worker processes; what is stored is not asked again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.prepared.model_ref import ModelRef
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.transfer import judge_cell
from sparring.suites.workers.pool import Pool, Seat, in_threads
from sparring.suites.workers.process import WorkerDied, WorkerFailed, backend
from sparring.suites.workers.reporter import Reporter

Failures = dict[tuple[str, str], str]
"""cell id, name of the target -> why there is no judgement"""


def judge_all(
    folder: Path,
    planned: list[Planned],
    targets: Mapping[str, ModelRef],
    *,
    device: str,
    workers: int,
    pool: Pool,
    report: Reporter,
) -> Failures:
    """Have every target (by name) judge the images of every cell that is done, in ``workers`` threads.

    A judgement that fails is a reason in what is returned, and is tried again the next time.
    """
    cells = {row.cell.id: row.cell for row in planned if row.unsupported is None and _is_done(folder, row.cell.id)}
    queue = []
    for name, ref in targets.items():
        key = judge_cell.target_key(ref)
        waiting = [cell for cell in cells.values() if not judge_cell.place(folder, cell.id, key).is_file()]
        if waiting:
            queue.append((name, ref, key, waiting))
    if not queue:
        return {}
    report.stage(f"{len(queue)} targets judge the images of {len(cells)} cells")
    failures: Failures = {}
    lock, stop = threading.Lock(), threading.Event()

    def serve() -> None:
        seat = Seat(pool)
        while True:
            with lock:
                if stop.is_set() or not queue:
                    break
                fits = (i for i, (_, ref, _, _) in enumerate(queue) if seat.fits(backend(ref.host)))
                name, ref, key, waiting = queue.pop(next(fits, 0))
            for done, cell in enumerate(waiting):
                report.progress(f"{name} judges", done, len(waiting), "cells")
                request = {
                    "do": "judge", "model": ref.to_json(), "run": str(folder.resolve()), "cell": cell.id, "key": key,
                    "batch_size": cell.batch_size, "device": device,
                }  # fmt: skip
                try:
                    seat.ask(backend(ref.host), request)
                except (InputError, WorkerFailed, WorkerDied) as error:
                    failures[cell.id, name] = f"{name} could not judge: {error}"
            report.progress(f"{name} judges", len(waiting), len(waiting), "cells")
        seat.leave()

    in_threads(serve, min(workers, len(queue)), stop, pool)
    return failures


def _is_done(folder: Path, cell_id: str) -> bool:
    result = store.read(folder, cell_id)
    return result is not None and result.status == "done"
