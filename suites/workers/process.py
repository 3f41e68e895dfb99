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


class WorkerDied(SparringError):
    """The process ended before it answered: a crash of a library's compiled code, or no memory."""


class WorkerFailed(SparringError):
    """The process answered that something unexpected was raised."""


class TimeLimit(SparringError):
    """The time limit passed, and the process was ended."""


def backend(framework: str) -> str:
    """The Keras backend of the process that serves a framework: one a process, fixed when Keras is imported."""
    return {"keras-torch": "torch", "keras-jax": "jax"}.get(framework, "tensorflow")


class Worker:
    """One worker process for one Keras backend."""

    def __init__(self, keras_backend: str, device: str) -> None:
        self.backend = keras_backend
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
        did, ``WorkerFailed``, ``WorkerDied`` or ``TimeLimit``; after the last two the process is gone.
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
                raise WorkerDied(self._death()) from None
            for line in self._process.stdout:
                message = json.loads(line)
                event = message["event"]
                if event == "progress" and progress is not None:
                    progress(message["done"], message["total"], message["what"])
                elif event == "started" and limit_seconds is not None:
                    timer = threading.Timer(limit_seconds, expire)
                    timer.daemon = True
                    timer.start()
                elif event == "done":
                    answer: dict[str, Any] = message["value"]
                    return answer
                elif event == "error":
                    raise (
                        InputError(message["message"])
                        if message["kind"] == "input"
                        else WorkerFailed(message["message"])
                    )
        finally:
            if timer is not None:
                timer.cancel()
        if expired.is_set():
            self._process.wait()
            raise TimeLimit(f"the time limit of {limit_seconds:g} s passed")
        raise WorkerDied(self._death())

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

    def _death(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        said = f"; it said last: {lines[-1][:200]}" if lines else ""
        if code == -signal.SIGKILL:
            return "the process was killed (SIGKILL): most likely there was no memory left"
        if code < 0:
            return f"the process crashed ({signal.Signals(-code).name}){said}"
        return f"the process ended with code {code}{said}"
