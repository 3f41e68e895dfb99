"""An attack library from outside that does everything wrong: what a run must survive.

Its attacks bear canonical names so that a suite can ask for them; each goes wrong in its own way.
"""

import errno
import os
import signal
import time
from contextlib import contextmanager, suppress

import numpy as np

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import Library, maps


def _crash(x):
    raise RuntimeError("index 7 is out of range\nand a second line")


def _abort(x):
    os.abort()


def _sleep(x):
    time.sleep(3600)
    return x


def _memory(x):
    raise MemoryError


def _nan(x):
    broken = x.copy()
    broken[1] = np.nan
    return broken


def _shape(x):
    return x[:, :, 1:]


def _too_far(x):
    return np.clip(x + np.where(x > 0.5, -0.3, 0.3), 0, 1).astype(np.float32)


def _outside(x):
    return x + 5


def _exit(x):
    raise SystemExit(0)


def _killed(x):
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_once(x):
    """The first time only: then there is a file that says so."""
    with suppress(FileExistsError):
        open(os.environ["HOSTILE_MARK"], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def _full(x):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")


DEEDS = {
    "pgd": _killed,
    "vni-fgsm": _killed_once,
    "apgd": _exit,
    "hopskipjump": _full,
    "bim": _abort,
    "mi-fgsm": _sleep,
    "ni-fgsm": _memory,
    "si-ni-fgsm": _nan,
    "vmi-fgsm": _shape,
    "fgsm": _crash,
    "uniform-noise": _too_far,
    "square": _outside,
}


@contextmanager
def session(classifier, route, counter):
    yield lambda call: DEEDS[call.target](call.x)


LIBRARY = Library(
    name="hostile:LIBRARY",
    package="sparring",
    requires="sparring",
    attacks={(name, "linf"): maps(name, **{p: p for p in ATTACKS[name, "linf"].parameters}) for name in DEEDS},
    session=session,
    raw=dict,
    native=frozenset(),
)
