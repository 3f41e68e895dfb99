"""The worker processes of a run, and the cells computed in them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import InputError, SparringError
from sparring.models.spec import facts
from sparring.suites.plan.cell import Result
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.workers.process import TimeLimit, Worker, WorkerDied, WorkerFailed, WorkerLost, backend
from sparring.suites.workers.reporter import Reporter

ATTEMPTS = 3
"""How often one piece of work is begun whose process is ended from outside."""


class PoolClosed(SparringError):
    """There are no more processes, for the run is over."""


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
                raise PoolClosed("the run is over")
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

    @property
    def closed(self) -> bool:
        """Whether the run is over."""
        return self._closed


class Seat:
    """One thread's place in the pool: at most one process at a time, changed for another where that is needed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._worker: Worker | None = None

    def fits(self, keras_backend: str) -> bool:
        """Whether the process at hand is of that backend."""
        return self._worker is not None and self._worker.backend == keras_backend

    def ask(
        self,
        keras_backend: str,
        request: dict[str, Any],
        progress: Callable[[int, int, str], None] | None = None,
        limit_seconds: float | None = None,
    ) -> dict[str, Any]:
        """As ``Worker.ask``, in a process of that backend; begun again, a few times, if that is ended from outside.

        Raises ``PoolClosed`` when the run is over, whatever became of the process.
        """
        if self._worker is not None and not self.fits(keras_backend):
            self._end()
        for attempt in range(1, ATTEMPTS + 1):
            self._worker = self._worker or self._pool.start(keras_backend)
            try:
                return self._worker.ask(request, progress, limit_seconds)
            except (WorkerDied, TimeLimit) as error:
                self._end()
                if self._pool.closed:
                    raise PoolClosed("the run is over") from None
                if not isinstance(error, WorkerLost):
                    raise
                if attempt == ATTEMPTS:
                    raise WorkerLost(f"{error}; tried {ATTEMPTS} times") from None
        raise AssertionError

    def leave(self) -> None:
        """Leave the process to the next who asks."""
        self._pool.release(self._worker)
        self._worker = None

    def _end(self) -> None:
        if self._worker is not None:
            self._pool.end(self._worker)
            self._worker = None


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
) -> dict[str, str]:
    """Compute cells in ``workers`` threads, each with one process at a time.

    Returns the ids of the cells that are left without a result, for a reason that is neither the library's nor the
    model's, with that reason. Raises ``Disrupted`` where no cell would fare better.
    """
    left: dict[str, str] = {}
    lock = threading.Lock()
    queue = list(todo)
    finished = 0
    stop = threading.Event()

    def take(seat: Seat) -> Planned | None:
        """The next cell; one that the process at hand can run, if there is any."""
        with lock:
            if stop.is_set() or not queue:
                return None
            fits = (i for i, row in enumerate(queue) if seat.fits(backend(row.cell.model.host)))
            return queue.pop(next(fits, 0))

    def serve() -> None:
        nonlocal finished
        seat = Seat(pool)
        while (row := take(seat)) is not None:
            status, reason = "done", ""
            if retry_failed or not store.has(folder, row.cell.id):  # another run may be filling the folder too
                status, reason = _one(row, seat)
            with lock:
                finished += 1
                report.finished(row, status, reason)
                report.cells(finished, len(todo))
        seat.leave()

    def _one(row: Planned, seat: Seat) -> tuple[str, str]:
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
            answer = seat.ask(
                backend(cell.model.host),
                request,
                lambda done, total, what: report.progress(name, done, total, what),
                limit_seconds,
            )
            return answer["status"], answer["reason"]
        except TimeLimit as error:
            result = Result("timeout", str(error), seconds=limit_seconds or 0.0)
        except (WorkerDied, WorkerFailed, InputError) as error:
            # what the library or the model raises is in the answer: here, only a crash is theirs
            if type(error) is not WorkerDied or fault(error):
                left[cell.id] = str(error)
                return "missing", str(error)
            result = Result("failed", str(error))
        store.write(folder, cell.id, cell.identity(), result, replace=retry_failed)
        return result.status if result.status == "timeout" else "crashed", result.reason

    report.cells(0, len(todo))
    in_threads(serve, min(workers, len(todo)), stop, pool)
    return left
