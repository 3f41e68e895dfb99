"""A Python process that is asked: requests go into its standard input, events come out of its standard output.

Each message is one line of JSON and the raw bytes of the arrays that it announces; nothing is pickled. For each request
come any number of events and then one ``done`` or ``error``. The process ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import Disruption, InputError, SparringError, StorageError

Arrays = Sequence[np.ndarray]
Hear = Callable[[Mapping[str, Any]], None]
"""Called with every event before the last; ``event["event"]`` says which it is."""
CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
"""The signals by which a process dies of its own code; by any other it was ended from outside.

SIGBUS is one of the others: it comes where a mapped file has lost its disk.
"""


class ProcessFailed(SparringError):
    """The process answered that something unexpected was raised."""


class ProcessDied(SparringError):
    """The process ended before it answered: a crash of compiled code, or an exit."""


class ProcessLost(Disruption):
    """The process was ended from outside, which says nothing of what it was doing."""


_ERRORS: dict[str, type[BaseException]] = {
    "input": InputError,
    "storage": StorageError,
    "crash": ProcessFailed,
    "lost": ProcessLost,
    "disrupted": Disruption,
}
"""What is raised for the kinds of errors that a process answers with."""


class Process:
    """The asking side."""

    def __init__(self, module: str, environment: Mapping[str, str], name: str = "the process") -> None:
        """Start ``python -m module``, which calls ``serve``; ``name`` is what messages call it."""
        self._name = name
        self._ready = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._events = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The number by which the system knows it."""
        return self._process.pid

    def ask(
        self, request: Mapping[str, Any], *arrays: np.ndarray, hear: Hear | None = None
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Send one request and wait for its answer: values, and the arrays that come with them.

        Raises ``InputError`` as the process did, ``ProcessFailed``, ``ProcessDied``, or a ``Disruption``:
        ``ProcessLost``, or where the machine is at fault. After ``ProcessDied`` and ``ProcessLost`` it is of no more
        use.
        """
        try:
            _write(self._requests, request, arrays)
            while True:
                event, received = _read(self._events)
                if event["event"] == "ready":
                    self._ready = True
                elif event["event"] == "done":
                    return event["value"], received
                elif event["event"] == "error":
                    raise _ERRORS[event["kind"]](event["message"])
                elif hear is not None:
                    hear(event)
        except (BrokenPipeError, EOFError):
            raise self._death() from None

    def kill(self) -> None:
        """End it at once; whoever waits for its answer hears of it."""
        self._process.kill()

    def close(self) -> None:
        """End it at once, and leave nothing open."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._events, self._log):
            with suppress(BrokenPipeError):  # of a request that the dead process never read
                stream.close()

    def _death(self) -> BaseException:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        said = f"; it said last: {lines[-1][:200]}" if lines else ""
        sign = signal.Signals(-code).name if code < 0 else ""
        if sign == "SIGKILL":
            return ProcessLost(f"{self._name} was killed (SIGKILL): most likely there was no memory left")
        if sign not in CRASHES and code <= 0:
            return ProcessLost(f"{self._name} was ended from outside{f' ({sign})' if sign else ''}{said}")
        how = f"crashed ({sign})" if sign else f"ended with code {code}"
        if not self._ready:
            return Disruption(f"{self._name} can't be started: it {how}{said}")
        return ProcessDied(f"{self._name} {how}{said}")


class Answering:
    """The answering side: events of one process, whose standard output they have for themselves."""

    def __init__(self) -> None:
        self._channel = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what libraries print must not mix with events
        self._lock = threading.Lock()

    def tell(self, event: str, *arrays: np.ndarray, **values: Any) -> None:
        """Send an event. If nobody reads any more the process ends: an error would pass for that of an attack."""
        try:
            with self._lock:
                _write(self._channel, {"event": event, **values}, arrays)
        except OSError:
            os._exit(0)


Answer = Callable[[Mapping[str, Any], Arrays, Answering], tuple[Mapping[str, Any], Arrays]]
"""A request and its arrays, and where events go -> values, and the arrays that go with them."""


def serve(answer: Answer) -> None:
    """Answer requests until standard input ends, even in the midst of one: then nobody wants it any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this process to handle
    out = Answering()
    requests: queue.Queue[tuple[dict[str, Any], list[np.ndarray]]] = queue.Queue()

    def listen() -> None:
        stream = os.fdopen(os.dup(0), "rb")
        with suppress(EOFError):
            while True:
                requests.put(_read(stream))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    out.tell("ready")
    while True:
        try:
            values, arrays = answer(*requests.get(), out)
        except BaseException as error:
            with suppress(OSError):  # the disk may be full
                traceback.print_exc()
            kind, message = _described(error)
            out.tell("error", kind=kind, message=message)
        else:
            out.tell("done", *arrays, value=dict(values))


def _described(error: BaseException) -> tuple[str, str]:
    for kind, raised in (("lost", ProcessLost), ("storage", StorageError)):
        if isinstance(error, raised):
            return kind, str(error)
    if (disruption := fault(error)) is not None:
        return "disrupted", disruption
    return ("input", str(error)) if isinstance(error, InputError) else ("crash", f"{type(error).__name__}: {error}")


def _write(stream: IO[bytes], head: Mapping[str, Any], arrays: Arrays) -> None:
    announced = {**head, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    stream.write(json.dumps(announced).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Raises ``EOFError`` where the stream ends before the message does."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    arrays = []
    for kind, shape in head.pop("arrays"):
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape))
        content = stream.read(size)
        if len(content) < size:
            raise EOFError
        arrays.append(np.frombuffer(content, dtype).reshape(shape).copy())
    return head, arrays
