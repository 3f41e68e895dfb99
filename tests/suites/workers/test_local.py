"""Jobs in processes of this machine: which are kept, which are started again, what becomes of a job when all is over."""

import os
import signal
import threading
import time

import pytest

from sparring.adapters.process import ProcessFailed
from sparring.suites.workers.executor import ExecutorClosed, Job
from sparring.suites.workers.local import LocalExecutor

NOTHING = {"do": "nothing"}
"""No such job: an answer without any framework."""


@pytest.fixture
def executor():
    executor = LocalExecutor("cpu", slots=2)
    yield executor
    executor.close()


def ask(executor, backend="tensorflow") -> list[int]:
    """Which processes idle after a job."""
    with pytest.raises(ProcessFailed, match="KeyError: 'nothing'"):
        executor.run(Job(backend, NOTHING))
    return [process.pid for _, process in executor._idle]


def test_a_process_is_kept_for_the_next_job_of_its_backend(executor):
    first = ask(executor)
    assert len(first) == 1
    assert ask(executor) == first


def test_no_more_processes_than_slots(executor):
    (first,) = ask(executor)
    both = ask(executor, "torch")
    assert both[0] == first
    third = ask(executor, "jax")  # in place of the one that has idled longest
    assert third[0] == both[1]
    assert len(third) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_one_that_was_killed_while_it_idled_is_replaced(executor):
    (first,) = ask(executor)
    os.kill(first, signal.SIGKILL)
    (second,) = ask(executor)
    assert second != first


def test_whoever_waits_when_all_is_closed_hears_that_the_run_is_over(executor):
    (idle,) = ask(executor)
    os.kill(idle, signal.SIGSTOP)  # so that it doesn't answer
    raised = []

    def wait():
        try:
            executor.run(Job("tensorflow", NOTHING))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not executor._busy:
        time.sleep(0.01)
    executor.close()
    thread.join()
    assert [type(error) for error in raised] == [ExecutorClosed]
    with pytest.raises(ExecutorClosed):
        executor.run(Job("tensorflow", NOTHING))
