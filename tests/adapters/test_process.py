"""A process that is asked: what it answers, what it raises, how it died, and that it never stays alone."""

import os
import signal
import sys

import numpy as np
import pytest

from sparring.adapters.errors import Disruption, InputError, StorageError
from sparring.adapters.process import Process, ProcessDied, ProcessFailed, ProcessLost

MODULE = """
import errno, os, sys, time
from sparring.adapters.errors import InputError, StorageError
from sparring.adapters.process import ProcessLost, serve

def answer(request, arrays, out):
    what = request["do"]
    if what == "echo":
        print("what a library prints is no message")
        out.tell("progress", done=1, total=2, what="halves")
        return {"got": request["value"]}, arrays
    if what == "sleep":
        out.tell("started")
        time.sleep(3600)
    if what == "signal":
        os.kill(os.getpid(), request["number"])
        time.sleep(3600)
    if what == "leave":
        os._exit(request["code"])
    if what == "exit":
        sys.exit(0)
    raise {
        "input": InputError("not a number"), "crash": KeyError("x"), "storage": StorageError("it is gone"),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there"), "lost": ProcessLost("a member was killed"),
    }[what]

if __name__ == "__main__":
    serve(answer)
"""


@pytest.fixture
def process(tmp_path):
    (tmp_path / "answering.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = Process("answering", {**os.environ, "PYTHONPATH": path})
    yield process
    process.close()


def test_arrays_and_events_come_as_they_were_sent(process):
    rng = np.random.default_rng(0)
    arrays = [rng.random((2, 3), np.float32), np.zeros((0, 4), np.int64), rng.random((4, 6))[:, ::2].T, np.array(True)]
    events = []
    for _ in range(2):
        values, received = process.ask({"do": "echo", "value": {"a": [1, None]}}, *arrays, hear=events.append)
        assert values == {"got": {"a": [1, None]}}
        for sent, back in zip(arrays, received, strict=True):
            np.testing.assert_array_equal(back, sent, strict=True)
    assert events == [{"event": "progress", "done": 1, "total": 2, "what": "halves"}] * 2


def test_errors_are_of_their_kind_and_the_process_goes_on(process):
    for what, kind, text in [
        ("input", InputError, "not a number"),
        ("storage", StorageError, "it is gone"),
        ("crash", ProcessFailed, "KeyError: 'x'"),
        ("exit", ProcessFailed, "SystemExit: 0"),
        ("full", Disruption, "No space left on device: /there"),
        ("lost", ProcessLost, "a member was killed"),
    ]:
        with pytest.raises(kind) as caught:
            process.ask({"do": what})
        assert (type(caught.value), str(caught.value)) == (kind, text)
    assert process.ask({"do": "echo", "value": 1})[0] == {"got": 1}


@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        ({"do": "signal", "number": signal.SIGSEGV}, ProcessDied, "the process crashed (SIGSEGV)"),
        ({"do": "signal", "number": signal.SIGABRT}, ProcessDied, "the process crashed (SIGABRT)"),
        ({"do": "leave", "code": 3}, ProcessDied, "the process ended with code 3"),
        ({"do": "leave", "code": 0}, ProcessLost, "the process was ended from outside"),
        ({"do": "signal", "number": signal.SIGTERM}, ProcessLost, "the process was ended from outside (SIGTERM)"),
        (
            {"do": "signal", "number": signal.SIGKILL},
            ProcessLost,
            "the process was killed (SIGKILL): most likely there was no memory left",
        ),
    ],
)
def test_how_it_died_tells_a_crash_from_an_end_from_outside(request_, kind, text, process):
    with pytest.raises(kind) as caught:
        process.ask(request_)
    assert (type(caught.value), str(caught.value)) == (kind, text)


def test_what_it_said_last_is_in_the_message(process):
    with pytest.raises(ProcessFailed):
        process.ask({"do": "crash"})  # which it prints with its trace
    with pytest.raises(ProcessDied, match=r"ended with code 3; it said last: KeyError: 'x'"):
        process.ask({"do": "leave", "code": 3})


def test_one_that_can_not_be_started_says_nothing_of_what_it_was_to_do():
    process = Process("no_such_module", os.environ)
    with pytest.raises(Disruption, match=r"the process can't be started: it ended with code 1; .*no_such_module"):
        process.ask({"do": "echo"})
    process.close()


def test_it_ends_in_the_midst_of_a_request_when_its_standard_input_does(process):
    def leave(_):
        process._requests.close()

    with pytest.raises(ProcessLost):
        process.ask({"do": "sleep"}, hear=leave)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_ctrl_c_is_for_whoever_started_it(process):
    process.ask({"do": "echo", "value": 1})  # it is ready
    os.kill(process.pid, signal.SIGINT)
    assert process.ask({"do": "echo", "value": 2})[0] == {"got": 2}
