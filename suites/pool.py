"""The worker processes of a run, and the cells computed in them."""

from __future__ import annotations

import threading
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.spec import facts
from sparring.suites import store
from sparring.suites.cell import Result
from sparring.suites.plan import Planned
from sparring.suites.process import TimeLimit, Worker, WorkerDied, WorkerFailed, backend
from sparring.suites.reporter import Reporter
from sparring.suites.suite import Suite


class Pool:
    """The worker processes of this run; one for each thread and Keras backend, started when first needed."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._workers: list[Worker] = []
        self._kept: Worker | None = None
        self._lock = threading.Lock()
        self._closed = False

    def start(self, keras_backend: str) -> Worker:
        """A process of that backend: the one kept from the preparation if it fits, else a new one."""
        with self._lock:
            if self._closed:
                raise WorkerDied("the run is over")
            kept, self._kept = self._kept, None
            if kept is not None and kept.backend == keras_backend:
                return kept
            if kept is not None:
                self._end(kept)
            worker = Worker(keras_backend, self.device)
            self._workers.append(worker)
            return worker

    def worker(self, keras_backend: str) -> Worker:
        """As ``start``, and kept for the next who asks."""
        worker = self.start(keras_backend)
        self._kept = worker
        return worker

    def end(self, worker: Worker) -> None:
        """End one process at once."""
        with self._lock:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        worker.close()

    def close(self) -> None:
        """End every process at once."""
        with self._lock:
            self._closed = True
            for worker in list(self._workers):
                self._end(worker)


def compute(
    todo: list[Planned],
    folder: Path,
    suite: Suite,
    base: Path,
    device: str,
    workers: int,
    limit_seconds: float | None,
    retry_failed: bool,
    pool: Pool,
    report: Reporter,
) -> None:
    """Compute cells in ``workers`` threads, each with one process at a time."""
    lock = threading.Lock()
    queue = list(todo)
    finished = 0
    broken: list[BaseException] = []
    stop = threading.Event()

    def take(current: Worker | None) -> Planned | None:
        """The next cell; one that the process at hand can run, if there is any."""
        with lock:
            if stop.is_set() or not queue:
                return None
            fits = (i for i, row in enumerate(queue) if current and backend(row.cell.model.host) == current.backend)
            return queue.pop(next(fits, 0))

    def serve() -> None:
        nonlocal finished
        worker: Worker | None = None
        try:
            while (row := take(worker)) is not None:
                wanted = backend(row.cell.model.host)
                if worker is not None and worker.backend != wanted:
                    pool.end(worker)
                    worker = None
                status, reason = "done", ""
                if retry_failed or not store.has(folder, row.cell.id):  # another run may be filling the folder too
                    worker = worker or pool.start(wanted)
                    status, reason = _one(row, worker)
                    if status in ("timeout", "crashed"):
                        pool.end(worker)
                        worker = None
                with lock:
                    finished += 1
                    report.finished(row, status, reason)
                    report.cells(finished, len(todo))
        except BaseException as error:
            if not stop.is_set():
                broken.append(error)
                stop.set()

    def _one(row: Planned, worker: Worker) -> tuple[str, str]:
        cell = row.cell
        name = f"{row.model}: {cell.library} {cell.attack}"
        request = {
            "do": "cell",
            "cell": cell.to_json(),
            "data": facts(suite.data),
            "base": str(base),
            "run": str(folder.resolve()),
            "replace": retry_failed,
            "device": device,
        }
        try:
            answer = worker.ask(
                request, lambda done, total, what: report.progress(name, done, total, what), limit_seconds
            )
            return answer["status"], answer["reason"]
        except (TimeLimit, WorkerDied, WorkerFailed, InputError) as error:
            if stop.is_set():
                raise
            status = "timeout" if isinstance(error, TimeLimit) else "failed"
            result = Result(status, str(error), seconds=limit_seconds or 0.0 if status == "timeout" else 0.0)  # type: ignore[arg-type]
            store.write(folder, cell.id, cell.identity(), result, replace=retry_failed)
            return (
                "timeout" if status == "timeout" else "crashed" if isinstance(error, WorkerDied) else "failed"
            ), str(error)

    report.cells(0, len(todo))
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(workers, len(todo)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.1)
    except KeyboardInterrupt:
        stop.set()
        pool.close()
        for thread in threads:
            thread.join()
        raise
    if broken:
        raise broken[0]
