"""The laws of every mapping that only our own tables can keep (the others are among the checks of a library)."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sparring.adapters.attacks.catalogue import ATTACKS, Attack
from sparring.adapters.attacks.library import AttackMapping, Context, Unsupported, load_library

LIBRARIES = ("art", "foolbox", "referee", "sparring", "torchattacks")
MODEL = {"self", "model", "classifier", "estimator"}
EXAMPLES: dict[str, Any] = {"eps": 0.1, "size": 5}

mapped = pytest.mark.parametrize(
    ("library", "attack", "mapping"),
    [
        pytest.param(name, attack, mapping, id=f"{name}-{attack.name}-{attack.norm}")
        for name in LIBRARIES
        for attack in ATTACKS.values()
        if isinstance(mapping := load_library(name).find(attack), AttackMapping)
    ],
)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_canonical_attack_is_mapped_or_unsupported_with_a_reason(library: str) -> None:
    table = load_library(library).attacks
    assert set(table) == set(ATTACKS)
    assert all(entry.reason for entry in table.values() if isinstance(entry, Unsupported))


@mapped
def test_what_is_translated_binds_to_the_foreign_signature(
    library: str, attack: Attack, mapping: AttackMapping
) -> None:
    parameters = {key: value for key, value in EXAMPLES.items() if key in attack.parameters}
    kwargs, notes = mapping.translate(Context(attack.resolve(parameters), (1, 8, 8), 10, 4, 0, False))
    raw = load_library(library).raw()[mapping.target]
    parameters = [p for p in raw.signature.parameters.values() if p.name not in MODEL]
    inspect.Signature(parameters).bind(**{key: value for key, value in kwargs.items() if key not in raw.call_keywords})
    assert all(notes)


@mapped
def test_the_default_parameters_lose_nothing_silently(library: str, attack: Attack, mapping: AttackMapping) -> None:
    """A parameter that a library can't take leaves a note unless its value makes no difference."""
    params = attack.resolve({key: value for key, value in EXAMPLES.items() if key in attack.parameters})
    context = Context(params, (1, 8, 8), 10, 4, 0, False)
    _, notes = mapping.translate(context)
    for name, rule in mapping.parameters.items():
        if isinstance(rule, Unsupported):
            noted = any(note.startswith(f"{name}: ") for note in notes)
            assert noted == (not rule.unless(params[name], context))
