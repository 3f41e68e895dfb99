"""What the three libraries call AutoAttack: each entry of the ledger shows, and with all taken away the images are ours."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from odd_models import digits, odd
from torch import nn

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import load_library
from sparring.adapters.attacks.run import Attacked, attack
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.libraries.ledger import entries, habits
from sparring.adapters.protocol import Counter

ENTRIES = {name: entry for name, entry in entries().items() if entry.attacks[0].startswith("autoattack")}
CASES = [
    pytest.param(entry.id, library, norm, id=f"{entry.id}-{library}-{norm}")
    for entry in ENTRIES.values()
    for library in entry.libraries
    for _, norm in map(str.split, entry.attacks)
]
PARAMS: dict[str, dict[str, Any]] = {
    "linf": {"eps": 0.04, "steps": 5, "queries": 120},
    "l2": {"eps": 0.35, "steps": 10, "queries": 120},
}


class Rounded(nn.Module):
    """A network of images rounded to eighths: without any gradient, so that what falls falls to Square."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.inner(torch.round(x * 8) / 8)
        return scores


def run(model: Any, library: str, norm: str, reconcile: list[str] | None = None) -> Attacked:
    x = digits(model, 16)
    y = model.logits(x).argmax(axis=1).astype(np.int64)
    return attack(
        model,
        x,
        y,
        "autoattack",
        norm=norm,
        library=library,
        reconcile=reconcile or [],
        params=PARAMS[norm],
    )


@cache
def by_the_source(rounded: bool, norm: str) -> tuple[Any, Attacked]:
    """A model, and our own AutoAttack on it."""
    model = odd("one channel")
    if rounded:
        with model.torch_module(Counter()) as module:
            model = TorchClassifier(Rounded(deepcopy(module)), input_shape=model.input_shape, device="cpu")
    return model, run(model, "sparring", norm)


def apart(one: Attacked, other: Attacked) -> int:
    """How many images fall to just one of the two, or to another picture."""
    falls, others = one.samples["success"], other.samples["success"]
    far = np.abs(one.images - other.images).max(axis=(1, 2, 3)) > 1e-5
    return int(((falls != others) | (falls & others & far)).sum())


@pytest.mark.parametrize(("entry", "library", "norm"), CASES)
def test_it_shows_and_is_taken_away(entry: str, library: str, norm: str) -> None:
    params = ATTACKS["autoattack", norm].resolve(PARAMS[norm])  # type: ignore[index]
    names = [one.id for one in habits("autoattack", norm, params, library, load_library(library).version())]
    assert entry in names
    model, source = by_the_source(entry == "autoattack-square-rescaled", norm)
    assert 0 < source.samples["success"].mean() < 1
    assert apart(run(model, library, norm, names), source) == 0
    assert apart(run(model, library, norm, [one for one in names if one != entry]), source) > 0
