"""The worker processes of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sparring.adapters.errors import SparringError
from sparring.suites.workers.process import TimeLimit, Worker, WorkerDied, WorkerLost

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
