"""Without a change a variant is the referee; and a library's recorded steps follow from its habits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import SETTINGS
from scipy.special import softmax

from sparring.adapters.attacks.library import load_library
from sparring.adapters.attacks.request import request
from sparring.adapters.attacks.run import attack
from sparring.suites.explain.habits import minimal
from sparring.suites.explain.habits.compare import compare
from sparring.suites.explain.habits.gradient import ATTACKS, Habits, recipe, rounded, simulate, spacing
from sparring.suites.explain.habits.replay import fit, read_loss, replay, tape
from sparring.suites.explain.habits.trace import trace

SMALL = settings(max_examples=15, deadline=None)


def referee(
    classifier: Any, x: np.ndarray, y: np.ndarray, name: str, norm: str, params: Any, **more: Any
) -> np.ndarray:
    return attack(classifier, x, y, name, library="referee", norm=norm, params=params, **more).images


@SMALL
@given(st.sampled_from(ATTACKS), st.floats(0.02, 0.3), st.integers(1, 5), st.booleans(), st.booleans())
def test_without_a_change_a_variant_is_the_referee(
    which: tuple[str, str], eps: float, steps: int, random_start: bool, targeted: bool
) -> None:
    name, norm = which
    classifier = planted.normalised()
    x, y = planted.data(classifier)
    wanted = {"eps": eps, "steps": steps, "random_start": random_start}
    requested = request(name, norm=norm, params={"eps": eps})
    selected = {key: wanted[key] for key in requested.params if key in wanted}
    params = request(name, norm=norm, params=selected).params
    expected = referee(classifier, x, y, name, norm, selected, targeted=targeted, targets=y if targeted else None)
    images = simulate(classifier, x, y, recipe(name, norm, params, targeted), Habits(), seed=0)
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["deepfool", "cw"])
@pytest.mark.parametrize("model", [planted.convolutional, planted.normalised])
def test_without_a_change_a_minimal_variant_is_the_referee(name: str, model: Any) -> None:
    classifier = model()
    x, y = planted.data(classifier)
    requested = request(name, params=SETTINGS[name, "l2"])
    expected = referee(classifier, x, y, name, "l2", requested.params)
    images = minimal.attack(name, classifier, x, y, requested.params, minimal.MinimalHabits())
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert np.abs(images - x).max() > 0.01


KNOWN = {
    ("mi-fgsm", "foolbox"): {"momentum": "of signs"},
    ("ni-fgsm", "torchattacks"): {"momentum": "by their mean"},
    ("pgd", "art"): {"order": ("step", "box", "project")},
}


@pytest.mark.parametrize("library", ["torchattacks", "foolbox", "art", "referee"])
@pytest.mark.parametrize(("name", "norm"), ATTACKS)
def test_recorded_steps_follow_from_habits(library: str, name: str, norm: str) -> None:
    """Every pixel of every step of the three libraries, from a rule with at most one change."""
    if name == "ni-fgsm" and library in ("foolbox", "art"):
        return
    classifier = planted.normalised()
    x, y = planted.data(classifier)
    requested = request(name, norm=norm, params=SETTINGS[name, norm])
    attack_recipe = recipe(name, norm, requested.params)
    recorded = tape(trace(load_library(library), classifier, x, y, requested), classifier, attack_recipe)
    fitted = fit(recorded, attack_recipe, Habits())
    assert fitted.left.score == 0
    habits = KNOWN.get((name, library), {}) if (name, norm) != ("pgd", "linf") else {}
    for key, value in habits.items():
        assert getattr(fitted.habits, key) == value
    if not habits:
        assert fitted.habits == Habits()


CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("step", {"step": 1.3}),
    ("steps", {"steps": -2}),
    ("box", {"order": ("step", "project")}),
    ("ball", {"order": ("step", "box")}),
    ("zero", {"sign_of_zero": 1.0}),
    ("stop", {"early_stop": "before a step"}),
    ("best", {"returns": "best"}),
    ("float16", {"grid": "float16"}),
    ("bytes", {"grid": "bytes", "where": "output"}),
    ("float16 sums", {"grid": "float16", "where": "sum"}),
    ("decay", {"step": (1.0, 0.8, 0.64, 0.512, 0.4096, 0.32768)}),
    ("uneven steps", {"step": (1.0, 0.7, 0.9, 0.5, 0.8, 0.6)}),
    ("scaled", {"way": "over its largest"}),
)


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_a_change_is_seen_and_is_found_again(change: dict[str, Any]) -> None:
    """Only the change distinguishes the rules that attack from those that recompute."""
    classifier = planted.convolutional()
    x, y = planted.data(classifier)
    requested = request("pgd", params=planted.PGD)
    attack_recipe = recipe("pgd", "linf", requested.params)
    habits = replace(Habits(), **change)
    library = _as_library(attack_recipe, habits)
    recorded = tape(trace(library, classifier, x, y, requested), classifier, attack_recipe)
    assert replay(recorded, attack_recipe, Habits()).score > 0
    assert replay(recorded, attack_recipe, habits).score == 0
    assert fit(recorded, attack_recipe, Habits()).left.score == 0


@pytest.mark.parametrize("leads_from", ["point", "image"])
def test_a_start_is_told_apart_from_a_step_that_leads_from_the_image(leads_from: Any) -> None:
    """Where a gradient is zero the image itself is returned, which no longer step from the start gives."""
    classifier = planted.convolutional()
    x, y = planted.data(classifier)
    attack_recipe = recipe("fgsm", "linf", {"eps": 0.1})
    habits = Habits(start="given", leads_from=leads_from)
    pair = _compared(classifier, x, y, attack_recipe, habits, starts=np.clip(x + np.float32(0.04), 0, 1))
    assert pair.changes[0].suspect == "start"
    assert (pair.fits[1].habits.leads_from, pair.left) == (leads_from, 0)


def test_a_margin_is_told_apart_from_a_cross_entropy() -> None:
    """Whichever of the two has it; and two margins are the same."""
    for build in (planted.convolutional, planted.normalised, planted.tied):
        classifier = build()
        x, y = planted.data(classifier)
        attack_recipe = recipe("pgd", "linf", planted.PGD)
        for first, second in (("cross-entropy", "margin"), ("margin", "cross-entropy")):
            pair = _compared(classifier, x, y, attack_recipe, Habits(loss=second), Habits(loss=first))  # type: ignore[arg-type]
            assert ([change.suspect for change in pair.changes], pair.left) == (["loss"], 0)
        assert not _compared(classifier, x, y, attack_recipe, Habits(loss="margin"), Habits(loss="margin")).changes


def _compared(
    classifier: Any, x: Any, y: Any, attack_recipe: Any, habits: Habits, other: Habits | None = None, starts: Any = None
) -> Any:
    """The pair of two variants: the first as the referee does, or with other habits."""
    requested = request(
        attack_recipe.attack, norm="linf", params={"eps": 0.1} if attack_recipe.attack == "fgsm" else planted.PGD
    )
    first = trace(_as_library(attack_recipe, other or Habits()), classifier, x, y, requested)
    second = trace(_as_library(attack_recipe, habits, x, starts), classifier, x, y, requested)
    return compare(first, second, classifier, attack_recipe)


def _as_library(attack_recipe: Any, habits: Habits, x: Any = None, starts: Any = None) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def session(classifier: Any, route: Any, counter: Any) -> Any:
        def run(call: Any) -> Any:
            own = None
            if starts is not None:
                own = np.stack([starts[next(i for i, each in enumerate(x) if (each == one).all())] for one in call.x])
            return simulate(classifier, call.x, call.labels, attack_recipe, habits, starts=own)

        yield run

    return replace(load_library("referee"), name="variant", session=session)


@SMALL
@given(st.integers(0, 2**31), st.floats(0.01, 60), st.sampled_from([1.0, -1.0, 0.25, 1e-3]), st.booleans())
def test_a_loss_is_read_from_its_cotangents(seed: int, size: float, scale: float, targeted: bool) -> None:
    """Whose label and at which scale, wherever the numbers can tell."""
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((1, 6, 5)) * size).astype(np.float32)
    labels, others = rng.integers(0, 5, 6), rng.integers(0, 5, 6)
    scale = abs(scale) * (-1 if targeted else 1)
    cotangents = scale * (softmax(logits.astype(np.float64), axis=-1) - np.eye(5)[others])
    read = read_loss(cotangents, logits, labels, targeted)
    clear = np.abs(cotangents / scale).max(axis=-1) > 0.05
    of_labels = scale * (softmax(logits.astype(np.float64), axis=-1) - np.eye(5)[labels])
    clear &= (np.abs(cotangents - of_labels).max(axis=-1) > 1e-2) | (others == labels)
    if not targeted:
        np.testing.assert_array_equal(read.label[clear], np.broadcast_to(others, read.label.shape)[clear])
        np.testing.assert_allclose(read.scale[clear], scale, rtol=1e-3)
    given_label = read_loss(of_labels, logits, labels, targeted)
    assert (given_label.label == labels).all()


@SMALL
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20), st.sampled_from(["float16", "bfloat16", "bytes"]))
def test_rounding_moves_by_half_a_spacing_and_only_once(values: list[float], grid: Any) -> None:
    x = np.array(values)
    near = rounded(x, grid)
    assert (np.abs(near - x) <= 0.5001 * spacing(x, grid)).all()
    np.testing.assert_allclose(rounded(near, grid), near, atol=1e-7)
