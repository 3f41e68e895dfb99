"""Failures that earlier versions stored by mistake: a full disk or a killed process is no result of a cell."""

from __future__ import annotations

import re
import signal

from sparring.adapters.disruptions import FAULTS
from sparring.adapters.process import CRASHES

_OTHER_CODES = rf"(?!-({'|'.join(str(int(signal.Signals[name])) for name in CRASHES)})\b)-?\d+"
_OF_OLD = re.compile(
    "|".join(
        (
            *map(re.escape, FAULTS.values()),
            r"^the run is over$",
            r"^the process was killed \(SIGKILL\)",
            rf"^the process crashed \((?!{'|'.join(CRASHES)})",
            r"^the process ended with code 0\b",
            rf"^the process of an ensemble's member ended with code {_OTHER_CODES}",
            r"^the data (to train the attack on )?changed",
            r"^\w+: \[Errno \d+\] .*[/\\]cells[/\\]",  # the store's own files
            r"^the cache .* can't be written \(",
            r"[/\\]models[/\\][0-9a-f]{32}[/\\].* (is gone|can't be (read|loaded))",
        )
    )
)


def stored_by_mistake(status: str, reason: str) -> bool:
    """Whether an earlier version stored a disruption as the failure of a cell."""
    return status == "failed" and _OF_OLD.search(reason) is not None
