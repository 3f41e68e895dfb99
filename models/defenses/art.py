"""ART's own defenses as ``Defense``s: ``art:ClassName``, with ART's keyword arguments and defaults."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.libraries.art import defenses as art_defenses
from sparring.adapters.libraries.art import trainers
from sparring.adapters.libraries.art.defenses import RawDefense
from sparring.adapters.libraries.art.trainers import RawTrainer
from sparring.models.defenses.defense import Defense
from sparring.models.defenses.shipped import ESTIMATED, EXACT, EXPECTED, draws, gradients
from sparring.models.defenses.training import art_trainer


def of_art(class_name: str) -> Defense:
    """The defense of that class. Raises ``InputError`` for an unknown one, and for one that can't defend, with why."""
    every = catalogue()
    if class_name not in every:
        raise InputError(unknown("defense class of ART", class_name, every))
    entry = every[class_name]
    if isinstance(entry, str):
        raise InputError(f"art:{class_name} can't defend an image classifier: {entry}")
    return entry


@cache
def catalogue() -> Mapping[str, Defense | str]:
    """Every class of ``art.defences`` that has to do with a classifier of images, or why it can't defend one."""
    wrappers = {name: one.unsupported or _wrapper(one) for name, one in art_defenses.raw().items()}
    return {**wrappers, **{name: one.unsupported or _trainer(one) for name, one in trainers.TRAINERS.items()}}


def _wrapper(one: RawDefense) -> Defense:
    kinds = ((one.decides, ()), (one.random and not one.post, EXPECTED), (one.has_derivative, EXACT))
    choices: tuple[str, ...] = next((choices for holds, choices in kinds if holds), ESTIMATED)
    parameters = {**one.parameters, **(gradients(choices) if choices else {})}
    return Defense(
        f"art:{one.name}",
        "wrapper",
        one.description,
        f"art.defences.{'post' if one.post else 'pre'}processor.{one.name}",
        {**parameters, **(draws() if choices == EXPECTED else {})},
        partial(art_defenses.postprocessed if one.post else art_defenses.preprocessed, name=one.name),
        gradients=choices[0] if choices else "none",
        random=one.random,
        check=partial(_check, one),
        hides=art_defenses.HIDES if one.decides else "",
        version=f"1, ART {importlib.metadata.version('adversarial-robustness-toolbox')}",
    )


def _trainer(one: RawTrainer) -> Defense:
    return Defense(
        f"art:{one.name}",
        "training",
        one.description,
        f"art.defences.trainer.{one.name}: {one.source}",
        one.parameters,
        partial(art_trainer, name=one.name),
        version=f"1, ART {importlib.metadata.version('adversarial-robustness-toolbox')}",
    )


def _check(one: RawDefense, **params: Any) -> None:
    art_defenses.build(one.name, {key: value for key, value in params.items() if key in one.parameters})
