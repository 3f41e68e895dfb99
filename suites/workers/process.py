"""The runner's side of a worker process: start it, ask it, know how it died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from sparring.adapters.errors import InputError, SparringError
from sparring.adapters.process import crashed


class WorkerDied(SparringError):
    """The process ended before it answered: a crash of a library's compiled code."""


class WorkerLost(WorkerDied):
    """The process was ended from outside, or its runner was: that says nothing of what it was doing."""


class Disrupted(SparringError):
    """The process answered that the machine is at fault, such as a disk that is full: no other would fare better."""


class WorkerFailed(SparringError):
    """The process answered that something unexpected was raised."""


class TimeLimit(SparringError):
    """The time limit passed, and the process was ended."""


ERRORS: dict[str, type[SparringError]] = {
    "input": InputError,
    "crash": WorkerFailed,
    "lost": WorkerLost,
    "disrupted": Disrupted,
}
"""What is raised for the kinds of errors that a process answers with."""


def backend(framework: str) -> str:
    """The Keras backend of the process that serves a framework: one a process, fixed when Keras is imported."""
    return {"keras-torch": "torch", "keras-jax": "jax"}.get(framework, "tensorflow")


class Worker:
    """One worker process for one Keras backend."""

    def __init__(self, keras_backend: str, device: str) -> None:
        self.backend = keras_backend
        self._ready = False
        # libgomp's threads spin while they wait: with other work on the cores, small networks become 30 times slower
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_WAIT_POLICY": "PASSIVE"}
        quiet["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else JAX takes three quarters of a GPU's memory at once
        environment = {**quiet, **os.environ, "KERAS_BACKEND": keras_backend}
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic only so
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
            environment["JAX_PLATFORMS"] = "cpu"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sparring.suites.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, text=True,
            encoding="utf-8",
        )  # fmt: skip

    def ask(
        self,
        request: dict[str, Any],
        progress: Callable[[int, int, str], None] | None = None,
        limit_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Send one request and wait for its answer.

        ``limit_seconds`` counts from the moment at which the attack itself begins. Raises ``InputError`` as the worker
        did, ``WorkerFailed``, ``Disrupted``, ``WorkerDied``, ``WorkerLost`` or ``TimeLimit``; after the last three the
        process is of no more use.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        expired = threading.Event()
        timer: threading.Timer | None = None

        def expire() -> None:
            expired.set()
            self._process.kill()

        try:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            except OSError:
                raise self._death() from None
            for line in self._process.stdout:
                message = json.loads(line)
                event = message["event"]
                if event == "ready":
                    self._ready = True
                elif event == "progress" and progress is not None:
                    progress(message["done"], message["total"], message["what"])
                elif event == "started" and limit_seconds is not None:
                    timer = threading.Timer(limit_seconds, expire)
                    timer.daemon = True
                    timer.start()
                elif event == "done":
                    answer: dict[str, Any] = message["value"]
                    return answer
                elif event == "error":
                    raise ERRORS[message["kind"]](message["message"])
        finally:
            if timer is not None:
                timer.cancel()
        if expired.is_set():
            self._process.wait()
            raise TimeLimit(f"the time limit of {limit_seconds:g} s passed")
        raise self._death()

    def close(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # a request that the dead process never read

    def _death(self) -> WorkerDied | Disrupted:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        said = f"; it said last: {lines[-1][:200]}" if lines else ""
        if code == -signal.SIGKILL:
            return WorkerLost("the process was killed (SIGKILL): most likely there was no memory left")
        name = signal.Signals(-code).name if code < 0 else ""
        if crashed(code) and not self._ready:
            return Disrupted(f"a worker process can't be started: it ended with code {code}{said}")
        if crashed(code):
            return WorkerDied(f"the process {f'crashed ({name})' if name else f'ended with code {code}'}{said}")
        return WorkerLost(f"the process was ended from outside{f' ({name})' if name else ''}{said}")
