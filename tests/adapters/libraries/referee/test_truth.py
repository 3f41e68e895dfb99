"""Where the best answer is known in closed form, the referee gives it: linear models and two-class quadratics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closed_forms import Linear, Quadratic, best_in_the_ball, best_in_the_cube, nearest_beyond
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sparring.adapters.libraries.referee.attacks import bim, cw, deepfool, fgsm, jsma, mi_fgsm, ni_fgsm, pgd, square

ROUNDING = 1e-5  # of float32 logits and gradients, on which every attack stands

shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**20)
classes = st.integers(2, 6)
reach = st.sampled_from([0.0, 0.2, 0.45, 0.5])
"""How far from 1/2 the pixels go: at 0.5 a part of them lie on the border of the box."""


def images(rng: np.random.Generator, n: int, shape: tuple[int, ...], reach: float) -> np.ndarray:
    """Float64, but numbers that float32 has too; at the greatest reach, a third of the pixels at 0 and 1."""
    x = 0.5 + reach * rng.uniform(-1, 1, (n, *shape))
    if reach == 0.5:
        x = np.where(rng.random(x.shape) < 1 / 3, rng.integers(0, 2, x.shape), x)
    return x.astype(np.float32).astype(float)


def linear(rng: np.random.Generator, shape: tuple[int, ...], k: int, x: np.ndarray) -> tuple[Linear, np.ndarray]:
    """A linear model whose boundaries go near the first image; and what it says of all."""
    model = Linear(rng.normal(0, 1, (k, *shape)), np.zeros(k))
    model.bias = -model.logits(x[:1].astype(np.float32))[0].astype(float) + rng.uniform(-0.05, 0.05, k)
    return model, model.logits(x.astype(np.float32)).argmax(axis=1)


def quadratic(rng: np.random.Generator, shape: tuple[int, ...], inside: bool, slope: float = 1.0) -> Any:
    """A ball around a center, one image near its border, in the middle of the box; its label, d and the radius."""
    center = 0.5 + rng.uniform(-0.1, 0.1, shape)
    x = (0.5 + rng.uniform(-0.2, 0.2, (1, *shape))).astype(np.float32).astype(float)
    d = float(np.linalg.norm(x[0] - center))
    assume(d > 0.05)
    radius = d * (1.2 if inside else 0.8)
    return Quadratic(center, radius, slope), x, np.array([0 if inside else 1]), d, radius


def margin(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The own logit before the largest other."""
    z = model.logits(x.astype(np.float32)).astype(float)
    own = z[np.arange(len(z)), y].copy()
    z[np.arange(len(z)), y] = -np.inf
    return own - z.max(axis=1)


WITHIN_THE_CUBE: dict[str, Any] = {
    "fgsm": lambda model, x, y, eps, **aim: fgsm(model, x, y, eps=eps, **aim),
    "bim": lambda model, x, y, eps, **aim: bim(model, x, y, eps=eps, eps_step=eps / 3, steps=4, **aim),
    "pgd": lambda model, x, y, eps, **aim: pgd(
        model, x, y, norm="linf", eps=eps, eps_step=eps / 2, steps=5, random_start=True, restarts=1, seed=3, **aim
    ),
    "mi-fgsm": lambda model, x, y, eps, **aim: mi_fgsm(
        model, x, y, eps=eps, eps_step=eps / 3, steps=4, decay=0.9, **aim
    ),
    "ni-fgsm": lambda model, x, y, eps, **aim: ni_fgsm(
        model, x, y, eps=eps, eps_step=eps / 3, steps=4, decay=0.9, **aim
    ),
}


@pytest.mark.parametrize("name", WITHIN_THE_CUBE)
@given(shape=shapes, reach=reach, eps=st.floats(0.001, 1), scale=st.sampled_from([1e-3, 1, 1e5]), seed=seeds)
def test_between_two_flat_classes_the_best_of_the_cube_is_found(
    name: str, shape: Any, reach: float, eps: float, scale: float, seed: int
) -> None:
    """Also where the logits differ by thousands, and softmax is 0 or 1 in any precision."""
    rng = np.random.default_rng(seed)
    x = images(rng, 3, shape, reach)
    model, y = linear(rng, shape, 2, x)
    model.weights, model.bias = model.weights * scale, model.bias * scale
    x_adv = WITHIN_THE_CUBE[name](model, x, y, eps)
    aimed = WITHIN_THE_CUBE[name](model, x, 1 - y, eps, targeted=True)
    for i in range(3):
        truth = best_in_the_cube(x[i], model.weights[1 - y[i]] - model.weights[y[i]], eps)
        assert np.abs(x_adv[i] - truth).max() <= 1e-9
        assert np.abs(aimed[i] - truth).max() <= 1e-9


@given(shape=shapes, eps=st.floats(0.01, 0.3), inside=st.booleans(), seed=seeds)
def test_fgsm_on_a_quadratic_goes_to_the_corner_of_the_gradient(
    shape: Any, eps: float, inside: bool, seed: int
) -> None:
    model, x, y, _, _ = quadratic(np.random.default_rng(seed), shape, inside)
    outwards = np.sign(x.astype(np.float32).astype(float) - model.center) * (1 if inside else -1)
    assert np.abs(fgsm(model, x, y, eps=eps) - np.clip(x + eps * outwards, 0, 1)).max() <= 1e-9


@given(shape=shapes, eps=st.floats(0.01, 0.3), seed=seeds)
def test_pgd_in_the_cube_comes_to_the_middle_of_a_quadratic(shape: Any, eps: float, seed: int) -> None:
    """From outside the ball the best point is the one nearest to its center, which a fixed step circles."""
    model, x, y, _, _ = quadratic(np.random.default_rng(seed), shape, inside=False)
    x_adv = pgd(
        model, x, y, norm="linf", eps=eps, eps_step=eps / 50, steps=110, random_start=True, restarts=1, seed=seed
    )
    assert np.abs(x_adv - np.clip(model.center, x - eps, x + eps)).max() <= eps / 50 + 1e-6


@given(shape=shapes, reach=reach, eps=st.floats(0.01, 0.25), random_start=st.booleans(), seed=seeds)
@settings(max_examples=60)
def test_between_two_flat_classes_the_best_of_the_ball_is_found(
    shape: Any, reach: float, eps: float, random_start: bool, seed: int
) -> None:
    """In larger balls many pixels reach the box: going back to the ball, then to the box, may stop some percent short."""
    rng = np.random.default_rng(seed)
    x = images(rng, 3, shape, reach)
    model, y = linear(rng, shape, 2, x)
    x_adv = pgd(
        model, x, y, norm="l2", eps=eps, eps_step=eps / 100, steps=1000, random_start=random_start, restarts=1, seed=1
    )
    for i in range(3):
        direction = model.weights[1 - y[i]] - model.weights[y[i]]
        most = (direction * (best_in_the_ball(x[i], direction, eps) - x[i])).sum()
        gained = (direction * (x_adv[i] - x[i])).sum()
        assert most * (1 + 1e-9) + 1e-12 >= gained >= most * 0.98


@given(shape=shapes, eps=st.floats(0.01, 0.3), inside=st.booleans(), seed=seeds)
def test_pgd_in_the_ball_goes_straight_out_of_a_quadratic_or_straight_in(
    shape: Any, eps: float, inside: bool, seed: int
) -> None:
    model, x, y, d, _ = quadratic(np.random.default_rng(seed), shape, inside)
    eps = min(eps, d / 2)  # not beyond the center
    x_adv = pgd(model, x, y, norm="l2", eps=eps, eps_step=eps / 4, steps=10, random_start=False, restarts=1, seed=0)
    truth = x + (x - model.center) / d * (eps if inside else -eps)
    assume(truth.min() >= 0)
    assume(truth.max() <= 1)
    assert np.abs(x_adv - truth).max() <= ROUNDING


@given(shape=shapes, k=classes, overshoot=st.sampled_from([0.0, 0.02, 0.3]), seed=seeds)
def test_deepfool_finds_the_nearest_of_flat_boundaries(shape: Any, k: int, overshoot: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = images(rng, 3, shape, 0.2)
    model, y = linear(rng, shape, k, x[:1])
    x = np.concatenate([x[:1], x[:1] + 0.01 * rng.uniform(-1, 1, (2, *shape))])
    y = model.logits(x.astype(np.float32)).argmax(axis=1)
    x_adv = deepfool(model, x, y, steps=50, overshoot=overshoot, candidates=k)
    z = model.logits(x.astype(np.float32)).astype(float)
    for i in range(3):
        away = model.weights - model.weights[y[i]]
        lengths = np.linalg.norm(away.reshape(k, -1), axis=1)
        distances = np.where(lengths > 0, (z[i, y[i]] - z[i]) / np.where(lengths > 0, lengths, 1), np.inf)
        nearest = distances.argmin()
        truth = x[i] + (1 + overshoot) * distances[nearest] * away[nearest] / lengths[nearest]
        assume(truth.min() >= 0)
        assume(truth.max() <= 1)
        # another boundary as near within rounding is as good
        assert np.linalg.norm(x_adv[i] - x[i]) == pytest.approx(np.linalg.norm(truth - x[i]), abs=ROUNDING, rel=1e-3)
        if np.sort(distances)[1] > 1.01 * distances[nearest] + ROUNDING:
            assert np.abs(x_adv[i] - truth).max() <= ROUNDING


@given(shape=shapes, distance=st.floats(0.02, 0.6), seed=seeds)
@settings(max_examples=30)
def test_deepfool_and_cw_find_the_nearest_point_of_a_boundary_within_the_box(
    shape: Any, distance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = images(rng, 1, shape, 0.5)
    direction = rng.normal(0, 1, shape)
    furthest = (np.abs(direction) * np.where(direction > 0, 1 - x[0], x[0])).sum()
    assume(furthest > 0.05)
    beyond = distance * furthest
    bias = beyond + (direction * (x[0] - 0.5)).sum()
    model, y = Linear(np.stack([0 * direction, direction]), np.array([0, -bias])), np.array([0])
    truth = nearest_beyond(x[0], direction, beyond)
    far = np.linalg.norm(truth - x[0])

    fooled = deepfool(model, x, y, steps=300, overshoot=0.0, candidates=2)
    assert np.abs(fooled[0] - truth).max() <= 1e-3 * far + ROUNDING
    x_adv = cw(
        model, x, y, steps=400, learning_rate=0.02, confidence=0.0, initial_const=1.0, search_steps=6, abort_early=False
    )
    assert margin(model, x_adv, y) < 0
    assert far * (1 - 1e-3) - ROUNDING <= np.linalg.norm(x_adv[0] - x[0]) <= 1.05 * far + 2e-3


@given(shape=shapes, slope=st.sampled_from([0.3, 1, 30]), overshoot=st.sampled_from([0.0, 0.02]), seed=seeds)
def test_deepfool_is_newtons_method_on_a_quadratic(shape: Any, slope: float, overshoot: float, seed: int) -> None:
    """Out of the ball its first step goes too far, (r² - d²) / 2d; into the ball its steps end at the border."""
    for inside in (True, False):
        model, x, y, d, radius = quadratic(np.random.default_rng(seed), shape, inside, slope)
        far = (radius**2 - d**2) / (2 * d) if inside else radius - d
        truth = x + (1 + overshoot) * far * (x - model.center) / d
        assume(truth.min() >= 0)
        assume(truth.max() <= 1)
        assert np.abs(deepfool(model, x, y, steps=50, overshoot=overshoot, candidates=2) - truth).max() <= ROUNDING


@given(shape=shapes, inside=st.booleans(), targeted=st.booleans(), seed=seeds)
@settings(max_examples=30)
def test_cw_finds_the_nearest_point_of_a_sphere(shape: Any, inside: bool, targeted: bool, seed: int) -> None:
    model, x, y, d, radius = quadratic(np.random.default_rng(seed), shape, inside)
    truth = x + (radius - d) * (x - model.center) / d
    assume(truth.min() >= 0.05)
    assume(truth.max() <= 0.95)
    labels = 1 - y if targeted else y
    x_adv = cw(
        model,
        x,
        labels,
        steps=300,
        learning_rate=0.01,
        confidence=0.0,
        initial_const=1.0,
        search_steps=9,
        abort_early=True,
        targeted=targeted,
    )
    assert margin(model, x_adv, y) < 0
    assert abs(radius - d) * (1 - 1e-4) <= np.linalg.norm(x_adv - x) <= 1.03 * abs(radius - d) + 1e-3


@given(shape=shapes, confidence=st.floats(0, 0.3), seed=seeds)
@settings(max_examples=20)
def test_cw_with_confidence_goes_that_much_further(shape: Any, confidence: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = images(rng, 1, shape, 0.1)
    model, y = linear(rng, shape, 2, x)
    direction = model.weights[1 - y[0]] - model.weights[y[0]]
    length = np.linalg.norm(direction)
    far = (margin(model, x, y)[0] + confidence) / length
    truth = x[0] + far * direction / length
    assume(length > 0.1)
    assume(truth.min() >= 0.02)
    assume(truth.max() <= 0.98)
    x_adv = cw(
        model,
        x,
        y,
        steps=300,
        learning_rate=0.01,
        confidence=confidence,
        initial_const=1.0,
        search_steps=9,
        abort_early=True,
    )
    assert margin(model, x_adv, y) < -confidence
    assert np.linalg.norm(x_adv - x) == pytest.approx(far, rel=0.05, abs=1e-3)


def pairs_one_by_one(alpha: np.ndarray, beta: np.ndarray, free: list[int], sign: int) -> tuple[int, int] | None:
    """Algorithm 3 of Papernot et al. 2016, line by line."""
    most, pair = 0.0, None
    for p in free:
        for q in free:
            if p < q:
                a, b = sign * (alpha[p] + alpha[q]), sign * (beta[p] + beta[q])
                if a > 0 and b < 0 and -a * b > most:
                    most, pair = -a * b, (p, q)
    return pair


@given(
    shape=shapes,
    k=classes,
    reach=reach,
    theta=st.sampled_from([1.0, 0.3, -1.0, -0.3]),
    gamma=st.floats(0.1, 1),
    seed=seeds,
)
@example(shape=(1, 4, 4), k=3, reach=0.5, theta=1.0, gamma=1.0, seed=0)
def test_jsma_takes_the_pairs_of_its_algorithms(
    shape: Any, k: int, reach: float, theta: float, gamma: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = images(rng, 3, shape, reach)
    model, y = linear(rng, shape, k, x)
    model.weights = model.weights.astype(np.float32).astype(float)
    goals = (y + 1) % k
    x_adv = jsma(model, x, goals, theta=theta, gamma=gamma)
    for i in range(3):
        alpha = model.weights[goals[i]].ravel()
        beta = (model.weights.sum(axis=0) - model.weights[goals[i]]).astype(np.float32).astype(float).ravel()
        expected = x[i].ravel().copy()
        for _ in range(int(expected.size * gamma / 2)):
            if model.logits(expected.reshape(1, *shape).astype(np.float32)).argmax() == goals[i]:
                break
            free = [p for p, value in enumerate(expected) if (value < 1 if theta > 0 else value > 0)]
            pair = pairs_one_by_one(alpha, beta, free, 1 if theta > 0 else -1)
            if pair is None:
                break
            expected[list(pair)] = np.clip(expected[list(pair)] + theta, 0, 1)
        assert np.abs(x_adv[i].ravel() - expected).max() <= 1e-12


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(shape=shapes, reach=reach, eps=st.floats(0.01, 0.5), targeted=st.booleans(), seed=seeds)
@settings(max_examples=40)
def test_square_never_leaves_the_budget_and_never_beats_the_best_point(
    norm: str, shape: Any, reach: float, eps: float, targeted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = images(rng, 2, shape, reach)
    model, y = linear(rng, shape, 2, x)
    labels = 1 - y if targeted else y
    x_adv = square(
        model, x, labels, norm=norm, eps=eps, queries=40, p_init=0.8, restarts=2, seed=seed, targeted=targeted
    )
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    for i in range(2):
        delta = x_adv[i] - x[i]
        assert (np.abs(delta).max() if norm == "linf" else np.linalg.norm(delta)) <= eps + 1e-12
        direction = model.weights[1 - y[i]] - model.weights[y[i]]
        best = (best_in_the_cube if norm == "linf" else best_in_the_ball)(x[i], direction, eps)
        least = margin(model, best[None], y[i : i + 1])
        assert margin(model, x_adv, y)[i] >= least - ROUNDING
    assert (margin(model, x_adv, y) <= margin(model, x, y)).all()


def test_square_finds_the_corner_of_the_cube() -> None:
    """Of 2^12 corners, by random search."""
    rng = np.random.default_rng(0)
    model = Linear(rng.normal(0, 1, (2, 1, 3, 4)), np.array([100.0, 0.0]))  # out of reach, so that it searches on
    x, y = images(rng, 2, (1, 3, 4), 0.3), np.array([0, 0])
    x_adv = square(model, x, y, norm="linf", eps=0.1, queries=400, p_init=0.5, restarts=1, seed=0)
    for i in range(2):
        assert np.abs(x_adv[i] - best_in_the_cube(x[i], model.weights[1] - model.weights[0], 0.1)).max() <= 1e-9
