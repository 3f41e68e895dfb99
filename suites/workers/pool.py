"""The worker processes of a run, and the cells computed in them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.spec import facts
from sparring.suites.plan.cell import Result
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.workers.process import TimeLimit, Worker, WorkerDied, WorkerFailed, backend
from sparring.suites.workers.reporter import Reporter


class Pool:
    """The worker processes of this run; one for each thread and Keras backend, started when first needed."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def start(self, keras_backend: str) -> Worker:
        """A process of that backend: one that idles, else a new one in place of those that idle."""
        with self._lock:
            if self._closed:
                raise WorkerDied("the run is over")
            for worker in self._idle:
                if worker.backend == keras_backend:
                    self._idle.remove(worker)
                    return worker
            for worker in list(self._idle):
                self._end(worker)
            worker = Worker(keras_backend, self.device)
            self._workers.append(worker)
            return worker

    def worker(self, keras_backend: str) -> Worker:
        """As ``start``, and left idle for the next who asks: for work that is done one piece after another."""
        worker = self.start(keras_backend)
        self.release(worker)
        return worker

    def release(self, worker: Worker | None) -> None:
        """Leave a process for the next who asks."""
        with self._lock:
            if worker is not None and worker in self._workers and worker not in self._idle:
                self._idle.append(worker)

    def end(self, worker: Worker) -> None:
        """End one process at once."""
        with self._lock:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        for workers in (self._workers, self._idle):
            if worker in workers:
                workers.remove(worker)
        worker.close()

    def close(self) -> None:
        """End every process at once."""
        with self._lock:
            self._closed = True
            for worker in list(self._workers):
                self._end(worker)


def in_threads(serve: Callable[[], None], count: int, stop: threading.Event, pool: Pool) -> None:
    """Run ``serve`` in so many threads until all have returned; the first error of one sets ``stop`` and is raised.

    On Ctrl-C ``stop`` is set and every process ended, which ends the threads.
    """
    broken: list[BaseException] = []

    def guarded() -> None:
        try:
            serve()
        except BaseException as error:
            if not stop.is_set():
                broken.append(error)
                stop.set()

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(count)]
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


def compute(
    todo: list[Planned],
    folder: Path,
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
        pool.release(worker)

    def _one(row: Planned, worker: Worker) -> tuple[str, str]:
        cell = row.cell
        name = row.title
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
    in_threads(serve, min(workers, len(todo)), stop, pool)
