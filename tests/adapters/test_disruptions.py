"""Which errors are the machine's fault: by their number, their text or what they follow from."""

import errno
import os

import pytest

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import Disruption, InputError, LibraryError, StorageError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there")


def following(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "No space left on device: /there"),
        (BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), "Broken pipe"),
        (following(LibraryError("art's FGSM raised OSError"), FULL), "No space left on device: /there"),
        (following(ValueError(1), following(KeyError(2), FULL)), "No space left on device: /there"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)\nmore"),
            "I/O error: No space left on device (os error 28)",
        ),
        (StorageError("weights.npz is damaged"), "weights.npz is damaged"),
        (Disruption("a member was killed"), "a member was killed"),
        (LibraryError("art's FGSM raised RuntimeError: index 7 is out of range"), None),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/there"), None),
        (InputError("labels out of range"), None),
        (MemoryError(), None),
    ],
)
def test_a_fault_of_the_machine_is_told_from_an_error_of_a_library(error, words):
    assert fault(error) == words


def test_what_was_left_behind_on_purpose_does_not_count():
    error = ValueError("another matter")
    error.__context__ = FULL
    assert fault(error) == "No space left on device: /there"
    error.__suppress_context__ = True  # as of one that is raised `from None`
    assert fault(error) is None
