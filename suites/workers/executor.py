"""Where jobs are done, behind one call: ``local.py`` does them in processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sparring.adapters.errors import SparringError

Answer = dict[str, Any]
Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much in all, and of what."""


class TimeLimit(SparringError):
    """The job's time limit passed, and it was ended."""


class ExecutorClosed(SparringError):
    """There are no more processes, for the run is over."""


@dataclass(frozen=True)
class Job:
    """A piece of work for one worker process (``worker.py``), and what it needs: plain values."""

    backend: str
    """the Keras backend of the process: tensorflow, torch or jax"""
    request: Mapping[str, Any]
    """``do`` names what is to be done; all values are plain JSON values"""
    limit_seconds: float | None = None
    """from the moment at which the attack itself begins"""


class Executor(Protocol):
    """Does jobs; several threads, ``slots`` at most, may each ask for one at a time."""

    @property
    def slots(self) -> int:
        """How many jobs are done at once."""

    def run(self, job: Job, progress: Progress | None = None) -> Answer:
        """Do one job and return its answer; begin again, a few times, where its process is ended from outside.

        Raises ``InputError`` as the process did, ``ProcessFailed`` and ``ProcessDied`` (``adapters.process``),
        ``TimeLimit``, ``ExecutorClosed`` when the run is over, whatever became of the job, and a ``Disruption``:
        ``ProcessLost`` where it was begun in vain, another where the machine is at fault.
        """

    def close(self) -> None:
        """End everything at once: whoever waits for an answer gets ``ExecutorClosed``."""


def backend(framework: str) -> str:
    """The Keras backend of the process that serves a framework: one a process, fixed when Keras is imported."""
    return {"keras-torch": "torch", "keras-jax": "jax"}.get(framework, "tensorflow")
