"""Which task comes next: what it needs comes first, a thread stays with its backend, an error ends all."""

import threading

import pytest

from sparring.suites.workers.schedule import Task, run


class Here:
    """An executor for tasks that ask it for nothing."""

    def __init__(self, slots):
        self.slots = slots
        self.closed = False

    def run(self, job, progress=None):
        raise NotImplementedError

    def close(self):
        self.closed = True


def tasks(log, *names, backends=None, needs=None):
    return [
        Task(
            name,
            lambda name=name: (backends or {}).get(name, "torch"),
            lambda name=name: log.append(name),
            frozenset((needs or {}).get(name, ())),
        )
        for name in names
    ]


def test_one_after_the_other_in_their_order():
    log = []
    run(tasks(log, *"abcd"), Here(1))
    assert log == list("abcd")


def test_what_a_task_needs_is_done_before_it():
    log = []
    run(tasks(log, *"abcd", needs={"a": "cd", "c": "d"}), Here(1))
    assert log == list("bdca")


def test_a_thread_stays_with_its_backend_while_there_is_work_for_it():
    log = []
    run(tasks(log, *"abcd", backends={"b": "jax", "d": "jax"}), Here(1))
    assert log == list("acbd")


def test_a_backend_is_asked_for_when_what_it_depends_on_is_there():
    log = []

    def backend():
        assert log == ["first"]
        return "jax"

    run([Task("second", backend, lambda: log.append("second"), frozenset({"first"})), *tasks(log, "first")], Here(2))
    assert log == ["first", "second"]


def test_as_many_at_once_as_there_are_slots():
    together = threading.Barrier(3)  # which nobody passes alone
    most, now, lock = 0, 0, threading.Lock()

    def work():
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        together.wait(600)
        with lock:
            now -= 1

    run([Task(number, lambda: "torch", work) for number in range(9)], Here(3))
    assert most == 3


def test_the_first_error_is_raised_and_nothing_is_begun_after_it():
    log = []

    def fail():
        raise ValueError("no")

    failing = Task("b", lambda: "torch", fail)
    first, *rest = tasks(log, *"acd", needs={"d": "b"})
    with pytest.raises(ValueError, match="no"):
        run([first, failing, *rest], Here(1))
    assert log == ["a"]


def test_nothing_to_do():
    run([], Here(2))
