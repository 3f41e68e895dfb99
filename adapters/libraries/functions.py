"""A library of plain functions: the referee's attacks and sparring's own are listed and run in the same way.

Such a function takes a classifier, images and labels, then the parameters of the attack by keyword.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

from sparring.adapters.attacks.catalogue import ATTACKS as CANONICAL
from sparring.adapters.attacks.catalogue import Attack, Needs
from sparring.adapters.attacks.library import AttackMapping, Call, Crafted, Library, RawAttack, Route, Run, Unsupported
from sparring.adapters.protocol import Classifier, Counter, Images, counted

Function = Callable[..., Images | Crafted]
FROM_THE_CALL = ("classifier", "model", "x", "y", "targeted", "fit")
"""Arguments that a function gets from the call. The others are parameters of the attack."""


def function_library(
    name: str,
    functions: Mapping[str, Function],
    mappings: Mapping[tuple[str, str], AttackMapping],
    why_missing: Callable[[Attack], str],
    sessions: Mapping[str, Callable[[Classifier], Run]] | None = None,
) -> Library:
    """The library of these functions, by name; ``mappings`` translate canonical attacks to them.

    ``why_missing`` is the reason why the library has none of the other canonical attacks. ``sessions`` are for
    functions that keep something from one batch to the next: classifier -> what runs their calls. Such a function gets
    the call's seed, and is not reachable as ``library:name``.
    """
    attacks = {key: mappings.get(key, Unsupported(why_missing(attack))) for key, attack in CANONICAL.items()}
    kept = sessions or {}
    needs = {mapping.target: CANONICAL[key].needs for key, mapping in mappings.items()}

    @lru_cache(maxsize=1)
    def raw() -> Mapping[str, RawAttack]:
        return {
            target: _raw(target, needs[target], inspect.signature(function), target in kept)
            for target, function in functions.items()
        }

    return Library(
        name=name,
        package="sparring",
        requires="sparring",
        attacks=attacks,
        session=_session(functions, kept),
        raw=raw,
        native=frozenset(),
    )


def _session(
    functions: Mapping[str, Function], sessions: Mapping[str, Callable[[Classifier], Run]]
) -> Callable[[Classifier, Route, Counter], AbstractContextManager[Run]]:
    @contextmanager
    def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
        model = counted(classifier, counter)
        runs = {target: open_session(model) for target, open_session in sessions.items()}

        def run(call: Call) -> Images | Crafted:
            if call.target in runs:
                return runs[call.target](call)
            function = functions[call.target]
            aim = {"targeted": call.targeted} if "targeted" in inspect.signature(function).parameters else {}
            return function(model, call.x, call.labels, **aim, **call.kwargs)

        yield run

    return session


def _raw(name: str, needs: Needs, signature: inspect.Signature, kept: bool) -> RawAttack:
    from_the_call = (*FROM_THE_CALL, "seed") if kept else FROM_THE_CALL
    own = [parameter for key, parameter in signature.parameters.items() if key not in from_the_call]
    return RawAttack(
        name=name,
        needs=needs,
        signature=signature.replace(parameters=own),
        unsupported=f"it is trained on other images, which only the attack {name} is given" if kept else None,
        targeted="targeted" in signature.parameters,
    )
