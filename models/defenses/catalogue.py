"""Defenses by name: what stands around a classifier (``wrapper``), and what changes how it is trained (``training``).

Another package adds one through the entry-point group ``sparring.defenses``: a ``Defense``, found by the name of the
entry point. A suite also takes ``package.module:object``, and ART's own classes as ``art:ClassName``. Nothing heavy is
imported until a defense is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.protocol import Classifier
from sparring.models.defenses.defense import Attacker, Defense, called
from sparring.models.model_spec import ModelSpec
from sparring.models.spec import DefenseSpec
from sparring.models.training.loop import Training


def find(name: str) -> Defense:
    """The defense of that name: shipped, an entry point's, ``art:ClassName`` or ``package.module:object``.

    Raises ``InputError`` with the nearest names, and for a class of ART's that can't defend an image classifier.
    """
    by_name = _known()
    if name in by_name:
        return by_name[name]
    owner, colon, attribute = name.partition(":")
    if colon and owner == "art":
        from sparring.models.defenses.art import of_art

        return of_art(attribute)
    if not colon:
        raise InputError(unknown("defense", name, by_name) + ", or art:ClassName, or package.module:object")
    try:
        value = getattr(importlib.import_module(owner), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the defense {name!r} can't be loaded: {error}") from error
    return _checked(value, repr(name))


def resolve(spec: DefenseSpec) -> tuple[Defense, dict[str, Any]]:
    """The defense and all of its parameters, checked. Raises ``InputError``."""
    defense = find(spec.defense)
    return defense, defense.resolve(spec.given)


def wrappers(specs: Iterable[DefenseSpec]) -> tuple[DefenseSpec, ...]:
    """Those that stand around a classifier, in order."""
    return tuple(spec for spec in specs if find(spec.defense).kind == "wrapper")


def undefended(spec: ModelSpec) -> ModelSpec:
    """The model without its wrappers.

    What trains it stays, except for a model that is made of others: those have their own defenses.
    """
    kept = () if spec.sources else tuple(one for one in spec.defenses if find(one.defense).kind == "training")
    return spec.model_copy(update={"defenses": kept})


def training_changes(specs: Iterable[DefenseSpec]) -> list[tuple[str, Callable[[Training], Training]]]:
    """The training defenses among these, in order: the label of each, and how it changes a training.

    Raises ``InputError`` for a defense that is not known.
    """
    changes: list[tuple[str, Callable[[Training], Training]]] = []
    for spec in specs:
        defense, params = resolve(spec)
        if defense.kind == "training":
            changes.append((spec.label, partial(called(defense.build), **params)))
    return changes


def wrap_defended(
    classifier: Classifier, specs: Sequence[DefenseSpec], *, seed: int, attacker: Attacker | None = None
) -> Classifier:
    """The classifier behind its wrappers, of which the first is the first that an image comes to.

    None and ``aware``: as it is deployed. ``unaware``: what an attacker sees who knows of none of them; for most
    defenses that is the classifier itself. What is random follows from ``seed`` and from the image alone.
    """
    for position, spec in reversed(list(enumerate(wrappers(specs)))):
        defense, params = resolve(spec)
        build = defense.unaware if attacker == "unaware" else defense.build
        if build is not None:
            own = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
            classifier = called(build)(classifier, seed=own, **params)
    return classifier


def seen_by_unaware(specs: Iterable[DefenseSpec]) -> bool:
    """Whether an attacker who knows of none of the wrappers sees another classifier than the undefended one."""
    return any(find(spec.defense).unaware is not None for spec in wrappers(specs))


def catalogue() -> list[Defense]:
    """Every defense that is known by name, wrappers first; ART's are not among them (``defenses_of_art.py``)."""
    return sorted(_known().values(), key=lambda one: (one.kind != "wrapper", one.name))


@cache
def _known() -> dict[str, Defense]:
    from sparring.models.defenses.shipped import SHIPPED

    points = {point.name: point for point in importlib.metadata.entry_points(group="sparring.defenses")}
    registered = {name: _checked(point.load(), f"the entry point {name!r}") for name, point in points.items()}
    return {**registered, **{one.name: one for one in SHIPPED}}


def _checked(value: Any, what: str) -> Defense:
    if not isinstance(value, Defense):
        raise InputError(f"{what} is no sparring.models.defenses.catalogue.Defense but a {type(value).__name__}")
    return value
