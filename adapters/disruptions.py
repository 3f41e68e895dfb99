"""What is the fault of the machine or of sparring itself, and so never a result: a full disk, a killed process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from sparring.adapters.errors import Disruption, StorageError, first_line

FAULTS = {
    code: os.strerror(code)
    for code in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.EPIPE,
        errno.EMFILE,
        errno.ENFILE,
    )
}
"""Errors of the system that say nothing of a library or a model, with their texts."""


def fault(error: BaseException) -> str | None:
    """The disruption that an error is, or follows from, in words; None for the error of a library or a model."""
    for each in _chain(error):
        if isinstance(each, Disruption | StorageError):
            return str(each)
        if isinstance(each, OSError) and each.errno in FAULTS:
            return f"{FAULTS[each.errno]}{f': {each.filename}' if each.filename else ''}"
        for text in FAULTS.values():  # compiled code knows no OSError
            if text in str(each):
                return first_line(each)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
