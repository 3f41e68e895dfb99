"""sparring's own attacks, written on the protocol: what studies used and no library has.

Unlike the referee's, which are written to be compared with libraries', they are attacks to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from sparring.adapters.attacks.catalogue import ATTACKS as CANONICAL
from sparring.adapters.attacks.library import (
    AttackMapping,
    Call,
    Crafted,
    Library,
    RawAttack,
    Route,
    Run,
    Unsupported,
    load_library,
    maps,
)
from sparring.adapters.attacks.request import Request, parts
from sparring.adapters.libraries.own.autoattack import autoattack
from sparring.adapters.libraries.own.jsma import jsma
from sparring.adapters.libraries.own.patch import patch
from sparring.adapters.libraries.own.patch import session as patch_session
from sparring.adapters.libraries.own.pixel_swap import pixel_swap
from sparring.adapters.libraries.own.worst_of import worst_of
from sparring.adapters.protocol import Classifier, Counter, Images, Labels, counted


def unchanged(classifier: Classifier, x: Images, y: Labels, *, targeted: bool) -> Images:
    """The images (N, C, H, W) clipped to [0, 1], where they lie anyway: a control.

    Of pictures that were normalised first (``view.py``) it shows what is lost by clipping, without any attack.
    """
    return x.clip(0, 1)


FUNCTIONS: dict[str, Callable[..., Images | Crafted]] = {
    "jsma": jsma,
    "unchanged": unchanged,
    "pixel_swap": pixel_swap,
    "patch": patch,
    "autoattack": autoattack,
    "worst_of": worst_of,
}
SESSIONS: dict[str, Callable[[Classifier], Run]] = {"patch": patch_session}
"""Of the attacks that keep something from one batch to the next: classifier -> what runs their calls."""
BROUGHT = ("classifier", "x", "y", "targeted", "fit", "seed")
"""What every call brings."""


def _ensemble(name: str, function: str, norm: str) -> AttackMapping:
    return AttackMapping(
        function,
        {parameter: parameter for parameter in CANONICAL[name, norm].parameters},
        pinned={"norm": norm, "part_seed": lambda c: c.seed},
        targeted=Unsupported("its parts leave the label: there is no targeted version"),
    )


WRITTEN: dict[tuple[str, str], AttackMapping] = {
    ("none", "linf"): maps("unchanged"),
    ("jsma", "l0"): maps(
        "jsma",
        theta="theta",
        gamma="gamma",
        pinned={"outputs": "probabilities", "pairs": 3},
        note="derivatives of the probabilities, up to three pairs a turn (sparring:jsma has the source's, too)",
    ),
    ("pixel-swap", "l0"): maps("pixel_swap", steps="steps"),
    ("patch", "l0"): AttackMapping("patch", {name: name for name in CANONICAL["patch", "l0"].parameters}),
    **{("autoattack", norm): _ensemble("autoattack", "autoattack", norm) for norm in ("linf", "l2")},
    **{("worst-of", norm): _ensemble("worst-of", "worst_of", norm) for norm in ("linf", "l2")},
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


def packages(asked: Request) -> tuple[str, ...]:
    """The packages, beside sparring, that one of these attacks computes with: those of its parts' libraries."""
    if asked.canonical is None or asked.canonical.name not in ("autoattack", "worst-of"):
        return ()
    if asked.canonical.name == "autoattack":
        return ("torchattacks",)
    found = []
    for part, library in parts(asked.canonical.norm, asked.params):
        found += [load_library(library).package, *(packages(part) if library == "sparring" else ())]
    return tuple(dict.fromkeys(name for name in found if name != "sparring"))


LIBRARY = Library(
    name="sparring",
    package="sparring",
    requires="sparring",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset(),
)
