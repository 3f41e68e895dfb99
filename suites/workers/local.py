"""Jobs done in processes of this machine, one for each thread and Keras backend, started when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from sparring.adapters.errors import Disruption, InputError
from sparring.adapters.process import Process, ProcessDied, ProcessFailed, ProcessLost
from sparring.suites.workers.executor import Answer, ExecutorClosed, Job, Progress, TimeLimit

ATTEMPTS = 3
"""How often a job is begun whose process is ended from outside."""
BACKENDS = 3
"""Of Keras: so many slots keep a process of each."""


class LocalExecutor:
    """An ``Executor`` on this machine: at most ``slots`` processes, those of another backend ended where need be."""

    def __init__(self, device: str, slots: int = BACKENDS) -> None:
        self.slots = slots
        self._device = device
        self._idle: list[tuple[str, Process]] = []
        self._busy: list[Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self, job: Job, progress: Progress | None = None) -> Answer:
        """As ``Executor.run``."""
        for attempt in range(1, ATTEMPTS + 1):
            process = self._process(job.backend)
            usable = False
            try:
                answer = _ask(process, job, progress)
                usable = True
                return answer
            except ProcessLost as error:
                if self._closed:
                    raise ExecutorClosed("the run is over") from None
                if attempt == ATTEMPTS:
                    raise ProcessLost(f"{error}; tried {ATTEMPTS} times") from None
            except ProcessDied:
                raise
            except (InputError, ProcessFailed, Disruption):
                usable = True
                raise
            finally:
                self._leave(job.backend, process, usable)
        raise AssertionError

    def close(self) -> None:
        """As ``Executor.close``."""
        with self._lock:
            self._closed = True
            for process in self._busy:
                process.kill()  # whoever waits for its answer closes it
            while self._idle:
                self._idle.pop()[1].close()

    def _process(self, backend: str) -> Process:
        """One that idles, the last that was used of that backend; else a new one."""
        with self._lock:
            if self._closed:
                raise ExecutorClosed("the run is over")
            index = next((i for i in reversed(range(len(self._idle))) if self._idle[i][0] == backend), None)
            if index is not None:
                _, process = self._idle.pop(index)
            else:
                if self._idle and len(self._idle) + len(self._busy) >= self.slots:
                    self._idle.pop(0)[1].close()
                process = Process("sparring.suites.worker", _environment(backend, self._device))
            self._busy.append(process)
            return process

    def _leave(self, backend: str, process: Process, usable: bool) -> None:
        with self._lock:
            self._busy.remove(process)
            if usable and not self._closed:
                self._idle.append((backend, process))
            else:
                process.close()


def _ask(process: Process, job: Job, progress: Progress | None) -> Answer:
    expired = threading.Event()
    timer: threading.Timer | None = None

    def expire() -> None:
        expired.set()
        process.kill()

    def hear(event: Mapping[str, Any]) -> None:
        nonlocal timer
        if event["event"] == "progress" and progress is not None:
            progress(event["done"], event["total"], event["what"])
        elif event["event"] == "started" and job.limit_seconds is not None:
            timer = threading.Timer(job.limit_seconds, expire)
            timer.daemon = True
            timer.start()

    try:
        return process.ask(job.request, hear=hear)[0]
    except ProcessLost:
        if expired.is_set():
            raise TimeLimit(f"the time limit of {job.limit_seconds:g} s passed") from None
        raise
    finally:
        if timer is not None:
            timer.cancel()


def _environment(backend: str, device: str) -> dict[str, str]:
    # libgomp's threads spin while they wait: with other work on the cores, small networks become 30 times slower
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    quiet["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else JAX takes three quarters of a GPU's memory at once
    environment = {**quiet, **os.environ, "KERAS_BACKEND": backend}
    environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic only so
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
        environment["JAX_PLATFORMS"] = "cpu"
    return environment
