"""The errors that sparring raises. Each foreign exception becomes one of them in one place, with ``from exc``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparringError(Exception):
    """Base of every error that sparring raises on purpose. Its text is meant for the user."""


class InputError(SparringError, ValueError):
    """The user gave something that can't be used. The command line prints the message and exits with code 2."""


class NotSupported(SparringError):
    """An attack that can't run: the library lacks it, or the model lacks gradients. Its row gives the reason."""


class LibraryError(SparringError):
    """An attack library crashed or returned something that is not images. Its row gives the reason."""


class StorageError(InputError):
    """A file of sparring's own, in a cache or a run folder, is gone, damaged or can't be written."""


class Disruption(BaseException):
    """The machine or a process of sparring's own failed: nobody's code is at fault.

    It is no ``Exception``, for libraries swallow these.
    """


def missing_package(package: str, install: str, purpose: str) -> InputError:
    """The error for a missing optional package, with the exact line that installs it."""
    return InputError(f"{purpose} needs the package {package}, which is not installed. Install it with: {install}")


MANY = 200
"""A message lists no more names than this."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """The message for an unknown name: the nearest valid names first, then all of them, or the first of many."""
    names = sorted(map(str, valid))
    listing = names if len(names) <= MANY else [*names[:MANY], f"... ({len(names)} in all)"]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {str(name)!r}.{hint} Valid: {', '.join(listing) or 'none'}"


def first_line(exc: BaseException) -> str:
    """The first line of a foreign error's text, or its type where it has no text."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
