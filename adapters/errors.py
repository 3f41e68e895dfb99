"""The errors that sparring raises; foreign exceptions are translated into them in one place each, with ``from exc``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparringError(Exception):
    """Base of every error that sparring raises on purpose; its text is meant for the user."""


class InputError(SparringError, ValueError):
    """The user gave something that can't be used: the command line prints the one message and exits with code 2."""


class NotSupported(SparringError):
    """What cannot run: an attack that a library lacks, gradients of a model that has none. A row that says why."""


class LibraryError(SparringError):
    """An attack library crashed or returned something that is not images: a row that says why."""


class StorageError(InputError):
    """What sparring keeps for itself, in a cache or a run folder, is gone, damaged or can't be written."""


class Disruption(BaseException):
    """What sparring runs on gave way, such as a process of its own that was killed: the failure of nobody's code.

    It is no ``Exception``, which libraries swallow.
    """


def missing_package(package: str, install: str, purpose: str) -> InputError:
    """The error for an optional package that is absent, with the exact line that installs it."""
    return InputError(f"{purpose} needs the package {package}, which is not installed. Install it with: {install}")


MANY = 200
"""More names than that are no help."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """One message for a name that is not known: the nearest valid ones first, then all, or the first of many."""
    names = sorted(map(str, valid))
    shown = names if len(names) <= MANY else [*names[:MANY], f"... ({len(names)} in all)"]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {str(name)!r}.{hint} Valid: {', '.join(shown) or 'none'}"


def first_line(exc: BaseException) -> str:
    """The first line of a foreign error's text, for a message of one line."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
