"""How a process ended: by its own code, or from outside."""

from __future__ import annotations

import signal

CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
"""The signals by which a process dies of its own code; by any other it was ended from outside.

SIGBUS is one of the others: it comes where a mapped file has lost its disk.
"""


def crashed(code: int) -> bool:
    """Whether a process with that return code died of its own code; one with 0 was told to end."""
    return signal.Signals(-code).name in CRASHES if code < 0 else code != 0
