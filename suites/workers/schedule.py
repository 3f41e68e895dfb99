"""Which task comes next, in which thread: the one loop in which models are prepared, cells computed, images judged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from sparring.suites.workers.executor import Executor


@dataclass(frozen=True)
class Task:
    """A piece of a run: it asks the executor for a few jobs of one backend, and settles what they answer."""

    name: Hashable
    backend: Callable[[], str]
    """asked when all that it needs is done"""
    work: Callable[[], None]
    needs: frozenset[Hashable] = frozenset()
    """the names of the tasks that must be done before"""


def run(tasks: Sequence[Task], executor: Executor) -> None:
    """Do all tasks, ``executor.slots`` at a time: each when those that it needs are done, else in their order.

    A thread prefers a task of the backend that it had last. The first error ends the others after their present task
    and is raised; Ctrl-C closes the executor, which ends them at once.
    """
    waiting = list(tasks)
    done: set[Hashable] = set()
    errors: list[BaseException] = []
    changed = threading.Condition()
    stop = threading.Event()

    def take(last: str | None) -> Task | None:
        with changed:
            while waiting and not stop.is_set():
                ready = [task for task in waiting if task.needs <= done]
                if ready:
                    task = next((task for task in ready if task.backend() == last), ready[0])
                    waiting.remove(task)
                    return task
                changed.wait(0.1)
            return None

    def serve() -> None:
        last = None
        try:
            while (task := take(last)) is not None:
                last = task.backend()
                task.work()
                with changed:
                    done.add(task.name)
                    changed.notify_all()
        except BaseException as error:
            if not stop.is_set():
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(executor.slots, len(tasks)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.1)
    except KeyboardInterrupt:
        stop.set()
        executor.close()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
