"""What gets run, and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparring.suites.plan.file import Suite, load_suite
    from sparring.suites.runner.run import Run, run

__all__ = ["Run", "Suite", "load_suite", "run"]

_HOMES = {"Run": "runner.run", "run": "runner.run", "Suite": "plan.file", "load_suite": "plan.file"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
