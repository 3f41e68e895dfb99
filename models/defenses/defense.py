"""A defense as a value: what it is called, what it takes, and who builds it."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sparring.adapters.errors import InputError
from sparring.adapters.parameters import Parameter, resolved

Kind = Literal["wrapper", "training"]
Attacker = Literal["aware", "unaware"]
Place = str | Callable[..., Any]
"""A function, or where it is, ``package.module:name``: imported when it is used."""


@dataclass(frozen=True)
class Defense:
    """A defense by name.

    ``build`` of a wrapper: ``build(classifier, *, seed, **parameters)`` gives the classifier that is deployed, whose
    ``vjp`` is what an aware attacker uses. Of a training defense: ``build(training, **parameters)`` gives the
    ``Training`` (``training.py``) that is carried out. ``unaware`` is built like a wrapper: what an attacker sees who
    doesn't know of the defense; without it that is the classifier undefended. ``gradients`` says how they pass through
    a wrapper (``exact``, ``straight-through``, ``expectation``, ``none``), unless there is a parameter of that name.
    ``check`` is called with all parameters and raises ``InputError`` for what their ranges can't say. ``hides``: words
    that go behind an attack's name where the wrapper gives decisions only. ``version`` is raised whenever the same
    parameters would give other numbers than before.
    """

    name: str
    kind: Kind
    description: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    build: Place = ""
    unaware: Place | None = None
    gradients: str = ""
    random: bool = False
    check: Place | None = None
    hides: str = ""
    version: str = "1"

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: those given, checked, and the defaults. Raises ``InputError``."""
        params = resolved(self.name, self.parameters, given)
        if self.check is not None:
            try:
                called(self.check)(**params)
            except InputError as error:
                raise InputError(f"{self.name}: {error}") from None
        return params

    def passes(self, params: Mapping[str, Any]) -> str:
        """How gradients pass through this wrapper with these parameters (all of them)."""
        return str(params.get("gradients", self.gradients))


def called(place: Place) -> Callable[..., Any]:
    """The function, imported where only its place is given."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
