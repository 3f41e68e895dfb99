"""sparring's own attacks, written on the protocol: what studies used and no library has.

Unlike the referee's, which are written to be compared with libraries', they are attacks to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from sparring.adapters.attacks import ATTACKS as CANONICAL
from sparring.adapters.library import AttackMapping, Call, Library, RawAttack, Route, Run, Unsupported, maps
from sparring.adapters.own_pixel_swap import pixel_swap
from sparring.adapters.protocol import Classifier, Counter, Images, counted

FUNCTIONS: dict[str, Callable[..., Images]] = {"pixel_swap": pixel_swap}
BROUGHT = ("classifier", "x", "y", "targeted")
"""What every call brings."""

WRITTEN: dict[tuple[str, str], AttackMapping] = {("pixel-swap", "l0"): maps("pixel_swap", steps="steps")}
ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    key: WRITTEN.get(key, Unsupported(f"sparring has no {attack.name} of its own: take a library's"))
    for key, attack in CANONICAL.items()
}


@contextmanager
def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
    """The functions on any classifier of the protocol."""
    model = counted(classifier, counter)

    def run(call: Call) -> Images:
        return FUNCTIONS[call.target](model, call.x, call.labels, targeted=call.targeted, **call.kwargs)

    yield run


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every function by its name; its signature without what every call brings."""
    return {name: _raw(name, inspect.signature(function)) for name, function in FUNCTIONS.items()}


def _raw(name: str, signature: inspect.Signature) -> RawAttack:
    own = [parameter for key, parameter in signature.parameters.items() if key not in BROUGHT]
    needs = next(CANONICAL[key].needs for key, mapping in WRITTEN.items() if mapping.target == name)
    return RawAttack(name=name, needs=needs, signature=signature.replace(parameters=own))


LIBRARY = Library(
    name="sparring",
    package="sparring",
    requires="sparring",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset(),
)
