"""sparring's own attacks, written on the protocol: what studies used and no library has.

Unlike the referee's, which are written to be compared with libraries', they are attacks to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from sparring.adapters.attacks import ATTACKS as CANONICAL
from sparring.adapters.library import AttackMapping, Call, Crafted, Library, RawAttack, Route, Run, Unsupported, maps
from sparring.adapters.own_jsma import jsma
from sparring.adapters.own_patch import patch
from sparring.adapters.own_patch import session as patch_session
from sparring.adapters.own_pixel_swap import pixel_swap
from sparring.adapters.protocol import Classifier, Counter, Images, Labels, counted


def unchanged(classifier: Classifier, x: Images, y: Labels, *, targeted: bool) -> Images:
    """The images (N, C, H, W) as they are: a control, of what is done to them apart from any attack."""
    return x.copy()


FUNCTIONS: dict[str, Callable[..., Images | Crafted]] = {
    "jsma": jsma,
    "unchanged": unchanged,
    "pixel_swap": pixel_swap,
    "patch": patch,
}
SESSIONS: dict[str, Callable[[Classifier], Run]] = {"patch": patch_session}
"""Of the attacks that keep something from one batch to the next: classifier -> what runs their calls."""
BROUGHT = ("classifier", "x", "y", "targeted", "fit", "seed")
"""What every call brings."""

WRITTEN: dict[tuple[str, str], AttackMapping] = {
    ("none", "linf"): maps("unchanged"),
    ("jsma", "l0"): maps("jsma", theta="theta", gamma="gamma"),
    ("pixel-swap", "l0"): maps("pixel_swap", steps="steps"),
    ("patch", "l0"): maps("patch", **{name: name for name in CANONICAL["patch", "l0"].parameters}),
}
ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    key: WRITTEN.get(key, Unsupported(f"sparring has no {attack.name} of its own: take a library's"))
    for key, attack in CANONICAL.items()
}


@contextmanager
def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
    """The functions on any classifier of the protocol."""
    model = counted(classifier, counter)
    opened = {target: open_session(model) for target, open_session in SESSIONS.items()}

    def run(call: Call) -> Images | Crafted:
        if call.target in opened:
            return opened[call.target](call)
        return FUNCTIONS[call.target](model, call.x, call.labels, targeted=call.targeted, **call.kwargs)

    yield run


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every function by its name; its signature without what every call brings."""
    return {name: _raw(name, inspect.signature(function)) for name, function in FUNCTIONS.items()}


def _raw(name: str, signature: inspect.Signature) -> RawAttack:
    own = [parameter for key, parameter in signature.parameters.items() if key not in BROUGHT]
    needs = next(CANONICAL[key].needs for key, mapping in WRITTEN.items() if mapping.target == name)
    trained = "it is trained on other images, which only the attack patch is given" if name in SESSIONS else None
    return RawAttack(name=name, needs=needs, signature=signature.replace(parameters=own), unsupported=trained)


LIBRARY = Library(
    name="sparring",
    package="sparring",
    requires="sparring",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset(),
)
