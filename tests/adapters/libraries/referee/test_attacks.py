"""The referee as a library: it runs everywhere, agrees with the others where they agree, and follows its papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import Linear, Quadratic
from hypothesis import assume, given
from hypothesis import strategies as st
from models_for_tests import LIGHT, OutputsOnly, cnn, images, keras_cnn, labels

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import AttackMapping, load_library
from sparring.adapters.attacks.run import attack
from sparring.adapters.attacks.starts import draw_start
from sparring.adapters.errors import NotSupported
from sparring.adapters.libraries.referee.attacks import (
    LIBRARY,
    cw,
    deepfool,
    margin_cotangent,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pgd_from,
)
from sparring.adapters.libraries.referee.square import (
    bump,
    eta,
    judge,
    sample_l2,
    sample_linf,
    side,
    square,
    stripes,
    tiles,
)
from sparring.adapters.libraries.referee.terms import ball, logits, loss_gradient, margin_loss

WRITTEN = [key for key, mapping in LIBRARY.attacks.items() if isinstance(mapping, AttackMapping)]
every_attack = pytest.mark.parametrize(("name", "norm"), WRITTEN)


def run(name: str, norm: str, classifier: Any = None, x: Any = None, y: Any = None, **more: Any) -> Any:
    classifier = cnn() if classifier is None else classifier
    x = images() if x is None else x
    y = labels(classifier, x) if y is None else y
    return attack(classifier, x, y, name, norm=norm, library="referee", **{**LIGHT[name, norm], **more})


def test_it_has_the_attacks_of_the_plan() -> None:
    assert set(WRITTEN) == {
        ("fgsm", "linf"),
        ("bim", "linf"),
        ("pgd", "linf"),
        ("pgd", "l2"),
        ("mi-fgsm", "linf"),
        ("ni-fgsm", "linf"),
        ("deepfool", "l2"),
        ("cw", "l2"),
        ("jsma", "l0"),
        ("square", "linf"),
        ("square", "l2"),
    }
    assert load_library("referee") is LIBRARY


@every_attack
def test_it_runs_on_torch_and_does_harm(name: str, norm: str) -> None:
    result = run(name, norm)
    assert result.samples["success"].mean() >= 0.5
    assert result.notes == ()
    assert result.route == "bridged"
    if ATTACKS[name, norm].goal == "budget":
        assert result.samples[norm].max() <= LIGHT[name, norm]["eps"] + 1e-6


@every_attack
def test_it_runs_on_tensorflow(name: str, norm: str) -> None:
    classifier = keras_cnn()
    result = run(name, norm, classifier)
    assert result.samples["success"].any()


@every_attack
def test_on_outputs_alone_square_runs_and_the_others_say_why_not(name: str, norm: str) -> None:
    classifier = OutputsOnly(cnn())
    if name == "square":
        assert (run(name, norm, classifier).images == run(name, norm).images).all()
    else:
        with pytest.raises(NotSupported, match="gives logits only"):
            run(name, norm, classifier)


@every_attack
def test_targeted_it_reaches_classes_or_says_that_there_is_no_such_thing(name: str, norm: str) -> None:
    x = images(20)
    goals = (labels(cnn(), x) + 1) % 10
    if name == "deepfool":
        with pytest.raises(NotSupported, match="no targeted version"):
            run(name, norm, x=x, targets=goals)
        return
    result = run(name, norm, x=x, targets=goals)
    before = margin_loss(logits(cnn(), x.astype(float)), goals, True)
    after = margin_loss(logits(cnn(), result.images.astype(float)), goals, True)
    assert (after < before).mean() >= 0.5
    assert result.samples["success"].any()


@every_attack
def test_no_image_depends_on_the_others(name: str, norm: str) -> None:
    x = images(6)
    whole, first = run(name, norm, x=x).images, run(name, norm, x=x[:3]).images
    tolerance = 1e-4 if name in ("cw", "deepfool") else 1e-6  # of torch's sums, which a batch rounds in its own way
    if (name, norm) == ("pgd", "l2"):  # its starts' radii are drawn after the directions of the whole batch
        whole, first = (run(name, norm, x=part, random_start=False).images for part in (x, x[:3]))
    assert np.abs(whole[:3] - first).max() <= tolerance


@every_attack
def test_the_empty_batch_is_a_batch_and_the_seed_decides(name: str, norm: str) -> None:
    assert run(name, norm, x=images(0), y=np.zeros(0, np.int64)).images.shape == (0, 1, 8, 8)
    one, again, other = (run(name, norm, seed=seed).images for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one == other).all() == (name not in ("pgd", "square"))


def test_what_a_step_costs() -> None:
    assert (run("fgsm", "linf").forwards, run("fgsm", "linf").backwards) == (8, 8)
    assert (run("pgd", "linf").forwards, run("pgd", "linf").backwards) == (24, 24)


def test_the_raw_door_takes_a_functions_own_keywords() -> None:
    x = images()
    y = labels(cnn(), x)
    raw = attack(
        cnn(),
        x,
        y,
        "referee:pgd",
        params={
            "norm": "linf",
            "eps": 0.05,
            "eps_step": 0.02,
            "steps": 3,
            "random_start": True,
            "restarts": 1,
            "seed": 5,
        },
    )
    assert (raw.images == run("pgd", "linf", eps_step=0.02, seed=5).images).all()
    aimed = attack(cnn(), x, y, "referee:fgsm", eps=0.05, targets=(y + 1) % 10)
    assert (aimed.images == run("fgsm", "linf", targets=(y + 1) % 10).images).all()


@pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks"])
def test_where_the_others_follow_the_source_they_agree(library: str) -> None:
    x = images(16)
    y = labels(cnn(), x)
    for name, settings in (("fgsm", {}), ("bim", {"steps": 5}), ("pgd", {"steps": 10, "random_start": False})):
        theirs = attack(cnn(), x, y, name, norm="linf", library=library, eps=0.05, **settings).images
        ours = attack(cnn(), x, y, name, norm="linf", library="referee", eps=0.05, **settings).images
        assert np.abs(theirs - ours).max() <= 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_starts_where_everybody_may_start(norm: str) -> None:
    x, eps = images(4), 0.05
    y = labels(cnn(), x)
    start = draw_start(x, norm, eps, 7).astype(float)
    expected = pgd_from(cnn(), x.astype(float), y, start, norm, eps, 0.01, 3)
    images_of_pgd = run("pgd", norm, x=x, y=y, eps=eps, eps_step=0.01, seed=7).images
    assert (images_of_pgd == expected.astype(np.float32)).all()


def test_pgd_goes_back_to_the_ball_and_then_to_the_box() -> None:
    """A step of length 1/2 along (3, 4)/5 from near the border; half of it is left in the ball, then the box cuts."""
    model = Linear(np.array([[0.0, 0], [3, 4]]).reshape(2, 1, 1, 2), np.array([5.0, 0]))
    x = np.array([[[[0.5, 0.9]]]])
    x_adv = pgd_from(model, x, np.array([0]), x, "l2", 0.25, 0.5, 1)
    assert x_adv.ravel() == pytest.approx([0.65, 1], abs=1e-6)


def test_of_several_starts_the_best_end_counts() -> None:
    x = images(8).astype(float)
    y = labels(cnn(), images(8))
    settings = {"norm": "linf", "eps": 0.02, "eps_step": 0.01, "steps": 2, "random_start": True, "seed": 0}
    margins = [
        margin_loss(logits(cnn(), pgd(cnn(), x, y, restarts=restarts, **settings)), y, False) for restarts in (1, 2, 6)
    ]
    assert (margins[1] <= margins[0]).all()
    assert (margins[2] <= margins[1]).all()
    assert (margins[2] < margins[0]).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_ball_keeps_what_is_inside_and_fetches_the_rest_back(norm: str) -> None:
    x = np.full((2, 1, 1, 2), 0.5)
    inside, outside = (x + np.array(delta) for delta in ((0.03, -0.04), (0.6, -0.8)))
    assert ball(inside, x, norm, 0.1) == pytest.approx(inside)
    fetched = ball(outside, x, norm, 0.1)
    assert fetched[0].ravel() == pytest.approx([0.6, 0.4] if norm == "linf" else [0.56, 0.42])
    assert (fetched[0] == fetched[1]).all()


def test_the_gradient_is_that_of_the_cross_entropy() -> None:
    """Up to a positive factor an image; checked against finite differences of a float64 cross-entropy."""
    rng = np.random.default_rng(0)
    model = Linear(rng.normal(0, 1, (4, 1, 2, 3)), np.zeros(4))
    x, y = rng.random((5, 1, 2, 3)), np.array([0, 1, 2, 3, 0])

    def cross_entropy(x: np.ndarray) -> np.ndarray:
        z = np.tensordot(x - 0.5, model.weights, ([1, 2, 3], [1, 2, 3]))
        result: np.ndarray = np.log(np.exp(z).sum(axis=1)) - z[np.arange(5), y]
        return result

    numeric = np.zeros_like(x)
    for index in np.ndindex(1, 2, 3):
        step = np.zeros((1, 2, 3))
        step[index] = 1e-6
        numeric[(slice(None), *index)] = (cross_entropy(x + step) - cross_entropy(x - step)) / 2e-6
    for targeted, sign in ((False, 1), (True, -1)):
        gradient = sign * loss_gradient(model, x, y, targeted)
        factor = (numeric * gradient).sum(axis=(1, 2, 3)) / (gradient**2).sum(axis=(1, 2, 3))
        assert (factor > 0).all()
        assert np.abs(numeric - factor[:, None, None, None] * gradient).max() <= 1e-5


def test_a_model_that_is_sure_of_itself_is_attacked_all_the_same() -> None:
    """Logits 2,000 apart, where 1 - p is 0 in float64 too."""
    rng = np.random.default_rng(1)
    model = Linear(1e5 * rng.normal(0, 1, (3, 1, 4, 4)), np.array([3000.0, 0, -2000]))
    x, y = np.full((1, 1, 4, 4), 0.5, np.float32), np.array([0])
    result = attack(model, x, y, "fgsm", library="referee", eps=0.1)
    assert result.images[0] == pytest.approx(0.5 + 0.1 * np.sign(model.weights[1] - model.weights[0]), abs=1e-6)
    assert result.samples["success"].all()


def test_the_margin_falls_along_its_cotangent() -> None:
    z = np.array([[3.0, 1, 2], [0, 5, 6]])
    y = np.array([0, 1])
    assert margin_loss(z, y, False).tolist() == [1, -1]
    assert margin_loss(z, y, True).tolist() == [-1, 1]
    assert margin_cotangent(z, y, False).tolist() == [[1, 0, -1], [0, 1, -1]]
    assert margin_cotangent(z, y, True).tolist() == [[-1, 0, 1], [0, -1, 1]]


# Two pixels, and a ball around a center: gradients that can be written down.
CENTRE = np.array([[[0.5, 0.5]]])
BALL = Quadratic(CENTRE, 0.05)
OUTSIDE, CLASS_1 = np.array([[[[0.7, 0.55]]]]), np.array([1])
MOMENTUM = {"eps": 0.3, "eps_step": 0.08, "steps": 6}


@pytest.mark.parametrize("nesterov", [False, True])
@given(
    start=st.tuples(st.floats(0.4, 0.9), st.floats(0.4, 0.9)),
    step=st.floats(0.01, 0.1),
    decay=st.sampled_from([0.0, 0.4, 0.7, 1.0]),
)
def test_momentum_by_hand(nesterov: bool, start: tuple[float, float], step: float, decay: float) -> None:
    """Out of the ball the loss rises towards the center: its gradient is a multiple of center - x."""
    eps = 0.2
    x, g = list(start), [0.0, 0.0]
    for _ in range(8):
        at = [x[i] + step * decay * g[i] if nesterov else x[i] for i in (0, 1)]
        gradient = [0.5 - at[0], 0.5 - at[1]]
        assume(abs(gradient[0]) + abs(gradient[1]) > 1e-3)
        g = [decay * g[i] + gradient[i] / (abs(gradient[0]) + abs(gradient[1])) for i in (0, 1)]
        assume(min(abs(g[0]), abs(g[1])) > 1e-3)  # else its sign is rounding
        x = [x[i] + step * math.copysign(1, g[i]) for i in (0, 1)]
        x = [min(max(x[i], start[i] - eps, 0), start[i] + eps, 1) for i in (0, 1)]
    function = ni_fgsm if nesterov else mi_fgsm
    x_adv = function(BALL, np.array([[[start]]]), CLASS_1, eps=eps, eps_step=step, steps=8, decay=decay)
    assert x_adv.ravel() == pytest.approx(x, abs=1e-6)


def test_momentum_and_looking_ahead_make_a_difference() -> None:
    without = mi_fgsm(BALL, OUTSIDE, CLASS_1, decay=0.0, **MOMENTUM)
    momentum = mi_fgsm(BALL, OUTSIDE, CLASS_1, decay=1.0, **MOMENTUM)
    nesterov = ni_fgsm(BALL, OUTSIDE, CLASS_1, decay=1.0, **MOMENTUM)
    assert np.abs(momentum - without).max() > 0.01
    assert np.abs(nesterov - momentum).max() > 0.01


def test_what_is_wrong_already_stays() -> None:
    x = images(4)
    y = (labels(cnn(), x) + 1) % 10
    for name, norm in (("deepfool", "l2"), ("square", "linf"), ("square", "l2")):
        assert (run(name, norm, x=x, y=y).images == x).all()
    assert run("cw", "l2", x=x, y=y).samples["l2"].max() <= 1e-5
    assert (run("jsma", "l0", x=x, targets=labels(cnn(), x), y=y).images == x).all()


def test_deepfool_looks_only_at_the_candidates() -> None:
    """Of three classes the third by its logit is nearest, and not among the first two."""
    weights = np.array([[0.0, 0], [1, 0], [0, 30]]).reshape(3, 1, 1, 2)
    model = Linear(weights, np.array([0.2, 0.0, -0.1]))
    x, y = np.full((1, 1, 1, 2), 0.5), np.array([0])
    two, three = (deepfool(model, x, y, steps=9, overshoot=0.0, candidates=k) - x for k in (2, 3))
    assert two.ravel() == pytest.approx([0.2, 0], abs=1e-6)
    assert three.ravel() == pytest.approx([0, 0.01], abs=1e-6)


def test_deepfool_asks_the_point_before_it_overshoots() -> None:
    """Class 0 begins at 0.05 from here: there are further Newton steps although 1.5 times the first would do."""
    x = np.array([[[[0.6, 0.5]]]])
    first = (0.1**2 - 0.05**2) / (2 * 0.1)
    assert 1.5 * first > 0.05 > first
    x_adv = deepfool(BALL, x, CLASS_1, steps=50, overshoot=0.5, candidates=2)
    assert np.linalg.norm(x_adv - x) == pytest.approx(1.5 * 0.05, abs=1e-5)


@pytest.mark.parametrize("targeted", [False, True])
def test_cw_descends_as_autograd_and_adam_do_on_the_papers_objective(targeted: bool) -> None:
    rng = np.random.default_rng(0)
    model = Linear(rng.normal(0, 1, (3, 1, 2, 3)), np.zeros(3))
    x, y, c, kappa = rng.random((1, 1, 2, 3)), 1, 2.0, 0.05
    image, weights = torch.from_numpy(x), torch.from_numpy(model.weights)
    w = torch.atanh((2 * image - 1) * 0.999999).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.05)
    expected = []
    for _ in range(20):
        at = (torch.tanh(w) + 1) / 2
        expected.append(at.detach().numpy().copy())
        z = ((at - 0.5) * weights).sum(dim=(1, 2, 3))
        margin = z[y] - torch.cat([z[:y], z[y + 1 :]]).max()
        objective = ((at - image) ** 2).sum() + c * torch.clamp(-margin if targeted else margin, min=-kappa)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()

    queries: list[np.ndarray] = []
    outputs = model.logits
    model.logits = lambda at: (queries.append(at), outputs(at))[1]  # type: ignore[method-assign,func-returns-value]
    cw(
        model,
        x,
        np.array([y]),
        steps=20,
        learning_rate=0.05,
        confidence=kappa,
        initial_const=c,
        search_steps=1,
        abort_early=False,
        targeted=targeted,
    )
    assert np.concatenate(queries) == pytest.approx(np.concatenate(expected), abs=1e-5)


def test_cw_keeps_the_image_where_it_finds_nothing() -> None:
    flat = Linear(np.zeros((2, 1, 2, 2)), np.array([1.0, 0.0]))
    x = np.array([[[[0.0, 1.0], [0.3, 0.6]]]])
    x_adv = cw(
        flat,
        x,
        np.array([0]),
        steps=5,
        learning_rate=0.1,
        confidence=0.0,
        initial_const=1.0,
        search_steps=9,
        abort_early=True,
    )
    assert (x_adv == x).all()


def test_cw_moves_pixels_that_start_at_the_border() -> None:
    model = Linear(np.array([[0.0, 0], [1, -1]]).reshape(2, 1, 1, 2), np.array([0.0, 0.5]))
    x = np.array([[[[0.0, 1.0]]]])  # logits 0 and -0.5: a quarter on each pixel
    x_adv = cw(
        model,
        x,
        np.array([0]),
        steps=300,
        learning_rate=0.05,
        confidence=0.0,
        initial_const=1.0,
        search_steps=9,
        abort_early=False,
    )
    assert (x_adv - x).ravel() == pytest.approx([0.25, -0.25], abs=0.01)


def test_cw_that_aborts_early_costs_less_and_ends_near() -> None:
    late, early = (run("cw", "l2", steps=400, search_steps=3, abort_early=abort) for abort in (False, True))
    assert early.forwards < late.forwards
    assert early.samples["l2"] == pytest.approx(late.samples["l2"], rel=0.05)


# Square Attack, piece by piece


def test_the_squares_shrink_as_in_the_paper() -> None:
    """p is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries; 32 x 32 pixels."""
    sides = {
        i: side("linf", 0.8, i, 10_000, 32, 32) for i in (1, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
    }
    p = {1: 1, 10: 1, 11: 2, 50: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256, 8001: 512}
    assert sides == {i: max(round(math.sqrt(0.8 / p[i] * 1024)), 1) for i in p}
    assert [side("linf", 0.8, i, 100, 32, 32) for i in (1, 2, 3, 99)] == [sides[51], sides[51], sides[201], 1]
    assert [side("l2", 0.8, i, 10_000, 32, 32) for i in (1, 11, 51, 9000)] == [29, 21, 15, 3]
    assert side("linf", 1.0, 0, 10, 5, 40) == 5


@given(
    h=st.integers(1, 6),
    channels=st.integers(1, 3),
    height=st.integers(6, 9),
    width=st.integers(6, 9),
    seed=st.integers(0, 9999),
)
def test_a_change_under_linf_is_one_square_with_one_sign_a_channel(
    h: int, channels: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random((channels, height, width))
    delta = sample_linf(0.1, h, x, x, rng)
    rows, columns = np.nonzero(delta[0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (h, h, h * h)
    for channel in delta:
        assert len(set(channel[rows, columns])) == 1
        assert np.count_nonzero(channel) == h * h
    assert set(np.unique(np.abs(delta))) <= {0.0, 0.2}


def test_a_square_can_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((1, 3, 4))
    corners = {tuple(np.argwhere(sample_linf(1, 2, x, x, rng)[0])[0].tolist()) for _ in range(200)}
    assert corners == {(r, s) for r in (0, 1) for s in (0, 1, 2)}


def test_the_start_under_linf_is_stripes() -> None:
    x = np.full((3, 5, 7), 0.5)
    delta = stripes(0.1, x, np.random.default_rng(0)) - x
    assert np.allclose(np.abs(delta), 0.1)
    assert np.ptp(delta, axis=1).max() == 0
    assert (delta[:, 0] > 0).any()
    assert (delta[:, 0] < 0).any()


@pytest.mark.parametrize(("h1", "h2"), [(1, 1), (3, 1), (3, 2), (5, 2), (7, 4), (8, 4)])
def test_a_bump_is_that_of_equation_2(h1: int, h2: int) -> None:
    n = h1 // 2
    for r in range(1, h1 + 1):
        for s in range(1, h2 + 1):
            m = n - max(abs(r - h1 // 2 - 1), abs(s - h2 // 2 - 1))
            expected = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
            assert bump(h1, h2)[r - 1, s - 1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("h", [1, 3, 5, 8])
def test_eta_has_length_1_and_two_halves(h: int) -> None:
    shapes = [eta(h, np.random.default_rng(seed)) for seed in range(20)]
    for shape in shapes:
        assert np.linalg.norm(shape) == pytest.approx(1)
        if h > 1:
            upright = shape if (shape[:, 0] > 0).all() else shape.T
            assert (upright[:, : h // 2] > 0).all()
            assert (upright[:, h // 2 :] < 0).all()
    assert h == 1 or len({shape.tobytes() for shape in shapes}) == 2


@given(
    h=st.integers(2, 6),
    channels=st.integers(1, 3),
    height=st.integers(6, 9),
    width=st.integers(6, 9),
    used=st.floats(0, 1),
    seed=st.integers(0, 9999),
)
def test_a_change_under_l2_spends_what_is_left_in_one_window(
    h: int, channels: int, height: int, width: int, used: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, eps = rng.random((channels, height, width)), 0.7
    nu = rng.normal(0, 1, x.shape)
    best = x + nu * used * eps / np.linalg.norm(nu)
    after = best + sample_l2(eps, h, best, x, rng) - x
    assert np.linalg.norm(after) == pytest.approx(eps)
    rows, columns = np.nonzero((np.abs(after - (best - x)) > 1e-12).any(axis=0))
    assert len(rows) <= 2 * h * h
    before = best - x
    window = np.zeros(x.shape[1:], bool)
    window[rows, columns] = True
    per_channel = (after[:, window] ** 2).sum(axis=1) - (before[:, window] ** 2).sum(axis=1)
    assert per_channel == pytest.approx((eps**2 - (before**2).sum()) / channels)  # the same for every channel


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 12, 10), (1, 8, 8), (1, 3, 4), (2, 1, 1)])
def test_the_start_under_l2_is_tiles_of_length_eps(shape: tuple[int, int, int]) -> None:
    x = np.full(shape, 0.5)
    delta = tiles(0.4, x, np.random.default_rng(0)) - x
    assert np.linalg.norm(delta) == pytest.approx(0.4)
    n = min(5, *shape[1:])
    assert np.count_nonzero(delta[0]) == (n * (min(shape[1:]) // n)) ** 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("queries", [1, 2, 17])
def test_square_asks_no_more_than_it_may(norm: str, queries: int) -> None:
    flat = Linear(np.zeros((2, 1, 6, 6)), np.array([1.0, 0.0]))  # never fooled
    x, y = images(3, (1, 6, 6)), np.zeros(3, np.int64)
    result = attack(flat, x, y, "square", norm=norm, library="referee", eps=0.1, queries=queries, restarts=2)
    assert result.forwards == 3 * (1 + 2 * queries)  # and one for the image itself
    assert (result.images == x).all()


def test_square_aims_by_the_cross_entropy() -> None:
    """Section 3.1; away from a class, by the margin."""
    x = images(8).astype(float)
    y = (labels(cnn(), images(8)) + 1) % 10
    loss, fooled = judge(cnn(), x, y, True)
    z = logits(cnn(), x)
    assert loss == pytest.approx(-np.log(np.exp(z)[np.arange(8), y] / np.exp(z).sum(axis=1)))
    assert not fooled.any()
    margins, wrong = judge(cnn(), x, y, False)
    assert (margins == margin_loss(z, y, False)).all()
    assert wrong.all()


def test_square_stops_at_the_first_success_and_restarts_only_the_rest() -> None:
    x = images(32).astype(float)
    y = labels(cnn(), images(32))
    settings = {"norm": "linf", "eps": 0.02, "queries": 6, "p_init": 0.8, "seed": 0}
    once, twice = (square(cnn(), x, y, restarts=restarts, **settings) for restarts in (1, 4))
    fooled = margin_loss(logits(cnn(), once), y, False) < 0
    assert 0 < fooled.mean() < 1
    assert (once[fooled] == twice[fooled]).all()
    losses = [margin_loss(logits(cnn(), x_adv), y, False) for x_adv in (once, twice)]
    assert (losses[1] <= losses[0]).all()
    assert (losses[1] < losses[0]).any()
