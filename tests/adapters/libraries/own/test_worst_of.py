"""Worst-of and AutoAttack: the per-image worst of their parts, within the budget, whatever the batch."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import OutputsOnly, linear
from odd_models import digits, odd

from sparring.adapters.attacks.catalogue import in_words
from sparring.adapters.attacks.request import parts, request
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.libraries.own import bridge as own
from sparring.adapters.libraries.own.autoattack import stages
from sparring.adapters.libraries.own.worst_of import ALREADY, NONE, worst_of
from sparring.adapters.libraries.rewriting import margins
from sparring.suites.plan.keys import AttackSpec

PGD = {"attack": "pgd", "library": "foolbox", "steps": 4}
SQUARE = {"attack": "square", "library": "torchattacks", "queries": 30}
CW = {"attack": "cw", "norm": "l2", "library": "foolbox", "steps": 30, "search_steps": 2, "learning_rate": 0.05}
FGSM = {"attack": "fgsm", "library": "art"}
NOISE = {"attack": "uniform-noise", "library": "foolbox"}
FEW = {"steps": 6, "queries": 40}


@cache
def case(n: int = 20):
    """A small network, images, and its classes of them, the first two of which are called wrong."""
    model = odd("one channel")
    x = digits(model, n)
    y = model.logits(x).argmax(axis=1).astype(np.int64)
    y[:2] = (y[:2] + 1) % model.classes
    return model, x, y


def run(name, norm="linf", **more):
    model, x, y = case()
    return attack(model, x, y, name, norm=norm, library=more.pop("library", "sparring"), **more)


@settings(max_examples=6)
@given(
    st.lists(st.sampled_from(["pgd", "square", "noise"]), min_size=1, max_size=3, unique=True),
    st.floats(0.01, 0.2),
    st.integers(0, 5),
)
def test_it_is_the_per_image_worst_of_its_parts_run_alone(names, eps, seed):
    attacks = [{"pgd": PGD, "square": SQUARE, "noise": NOISE}[name] for name in names]
    model, x, y = case()
    result = run("worst-of", eps=eps, attacks=attacks, survivors=False, seed=seed)
    alone = [
        run(
            part["attack"],
            library=part["library"],
            eps=eps,
            seed=seed,
            params={k: v for k, v in part.items() if k in ("steps", "queries")},
        )
        for part in attacks
    ]
    right = np.flatnonzero(model.logits(x).argmax(axis=1) == y)
    wins = np.stack([one.samples["success"] for one in alone])
    assert (result.samples["success"][right] == wins.any(axis=0)[right]).all()
    clean = margins(model.logits(x), y, False)
    for i in right:
        if wins[:, i].any():
            first = int(wins[:, i].argmax())
            assert result.extras["fooled_by"][i] == first
            np.testing.assert_array_equal(result.images[i], alone[first].images[i])
        else:
            assert result.extras["fooled_by"][i] == NONE
            least = min(float(margins(one.logits_adv[i : i + 1], y[i : i + 1], False)[0]) for one in alone)
            margin = float(margins(result.logits_adv[i : i + 1], y[i : i + 1], False)[0])
            assert margin == pytest.approx(min(least, clean[i]), abs=1e-4)
    wrong = np.setdiff1d(np.arange(len(y)), right)
    assert (result.extras["fooled_by"][wrong] == ALREADY).all()
    np.testing.assert_array_equal(result.images[wrong], x[wrong])


def test_survivors_alone_cost_less_and_fall_the_same_where_nothing_is_drawn():
    weak_first = {"eps": 0.06, "attacks": [FGSM, {**PGD, "steps": 10, "random_start": False}]}
    all_images, survivors = (run("worst-of", **weak_first, survivors=value) for value in (False, True))
    np.testing.assert_array_equal(all_images.images, survivors.images)
    assert survivors.backwards < all_images.backwards
    assert len(set(survivors.extras["fooled_by"]) - {NONE, ALREADY}) == 2  # both were needed


def test_what_an_attack_leaves_beyond_the_budget_is_brought_back_and_judged_there():
    alone = run(
        "cw", norm="l2", library="foolbox", **{key: CW[key] for key in ("steps", "search_steps", "learning_rate")}
    )
    far = alone.samples["l2"]
    eps = float(np.median(far[far > 0]))
    result = run("worst-of", norm="l2", eps=eps, attacks=[CW])
    near = (far <= eps) & (far > 0)
    assert result.samples["l2"].max() <= eps + 1e-6
    assert (result.samples["success"] >= (near & alone.samples["success"])).all()
    assert not result.samples["success"].all()
    assert result.samples["success"].tolist() == (result.extras["fooled_by"] != NONE).tolist()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.25)])
def test_autoattack_leaves_no_more_right_than_any_of_its_pieces_or_pgd(norm, eps):
    model, x, y = case()
    result = run("autoattack", norm=norm, eps=eps, **FEW)
    assert result.samples[norm].max() <= eps + 1e-6
    assert 0 < result.samples["success"].mean() < 1  # or it would say nothing
    for part, library in stages(norm, {"eps": eps, **FEW, "targets": 9}, model.classes, 0):
        more = {"norm": norm} if part.canonical else {}
        one = attack(model, x, y, part.name, library=library, params=part.params, **more)
        fallen = one.samples["success"] & (one.samples[norm] <= eps + 1e-6)
        assert (result.samples["success"] >= fallen).all()
    pgd = run("pgd", norm=norm, library="torchattacks", eps=eps, steps=20)
    assert result.samples["success"].sum() >= pgd.samples["success"].sum()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.25)])
def test_an_image_does_not_depend_on_its_batch(norm, eps):
    model, x, y = case()
    whole = run("autoattack", norm=norm, eps=eps, **FEW)
    some = np.arange(len(x))[::-3]
    part = attack(model, x[some], y[some], "autoattack", norm=norm, library="sparring", eps=eps, **FEW)
    assert part.extras["fooled_by"].tolist() == whole.extras["fooled_by"][some].tolist()
    np.testing.assert_allclose(part.images, whole.images[some], atol=1e-4)
    again = run("autoattack", norm=norm, eps=eps, **FEW)
    np.testing.assert_array_equal(again.images, whole.images)


def test_on_a_linear_model_an_image_falls_just_when_the_closed_form_says_so():
    """The margin to class c falls by eps times the L1 norm of the difference of weights (box far away)."""
    model, weights = linear(classes=5)
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 0.7, (24, *model.input_shape)).astype(np.float32)
    logits = model.logits(x).astype(np.float64)
    y = logits.argmax(axis=1).astype(np.int64)
    reach = np.full((len(x), 5), np.inf)
    for i, label in enumerate(y):
        for c in range(5):
            if c != label:
                reach[i, c] = (logits[i, label] - logits[i, c]) / np.abs(weights[c] - weights[label]).sum()
    nearest = reach.min(axis=1)
    eps = float(np.median(nearest))
    sure = np.abs(nearest - eps) > 1e-3 * eps
    result = attack(model, x, y, "autoattack", library="sparring", eps=eps, steps=20, queries=50)
    assert result.samples["success"][sure].tolist() == (nearest < eps)[sure].tolist()
    assert 0 < result.samples["success"].sum() < len(x)


def test_parts_are_checked_and_filled_in_once():
    parsed = request(
        "worst-of", params={"eps": "8/255", "attacks": [PGD, {"attack": "torchattacks:EADL1", "kappa": 1}]}
    )
    first, raw = parsed.params["attacks"]
    assert first["norm"] == "linf"
    assert first["eps"] == pytest.approx(8 / 255)
    assert set(first) == {"attack", "library", "norm", "eps", "steps", "eps_step", "random_start", "restarts"}
    assert raw == {"attack": "torchattacks:EADL1", "library": "torchattacks", "kappa": 1}
    assert request("worst-of", params=parsed.params).params == parsed.params
    assert [library for _, library in parts("linf", parsed.params)] == ["foolbox", "torchattacks"]


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        ([], "attacks is an empty list"),
        (["pgd"], r"attacks\[0\]: 'pgd' is not a mapping"),
        ([{"attack": "pgd"}], r"attacks\[0\]: pgd needs a library: library: one of art, foolbox"),
        ([PGD, {"attack": "pgdd", "library": "art"}], r"attacks\[1\]: unknown attack 'pgdd'. Did you mean 'pgd'"),
        ([{**PGD, "step": 3}], r"attacks\[0\]: pgd: unknown parameter 'step'"),
        ([{**PGD, "library": "fool"}], r"attacks\[0\]: unknown library 'fool'"),
        ([{"attack": "deepfool", "library": "art"}], r"attacks\[0\]: deepfool: unknown norm 'linf'.*l2"),
        (
            [{"attack": "patch", "library": "sparring", "size": 3, "norm": "l0"}],
            "patch is trained on other images first",
        ),
        ("pgd", "attacks: 'pgd' is not a list"),
    ],
)
def test_what_is_wrong_with_a_part_is_said_before_anything_runs(attacks, says):
    with pytest.raises(InputError, match=says):
        request("worst-of", params={"eps": 0.1, "attacks": attacks})


def test_a_suite_takes_the_list_of_parts_as_one_value_and_other_lists_as_a_grid():
    spec = AttackSpec.model_validate({"attack": "worst-of", "eps": [0.1, 0.2], "attacks": [PGD, NOISE]})
    both = spec.requests()
    assert [parsed.eps for parsed in both] == [0.1, 0.2]
    assert [[part["eps"] for part in parsed.params["attacks"]] for parsed in both] == [[0.1, 0.1], [0.2, 0.2]]
    assert in_words(both[0].params["attacks"]) == "[foolbox pgd steps=4, foolbox uniform-noise]"


def test_what_an_attack_of_our_own_computes_with():
    both = request("worst-of", params={"eps": 0.1, "attacks": [PGD, {"attack": "autoattack", "library": "sparring"}]})
    assert own.packages(both) == ("foolbox", "torchattacks")
    assert own.packages(request("autoattack", params={"eps": 0.1})) == ("torchattacks",)
    assert own.packages(request("pixel-swap")) == ()


def test_without_gradients_only_attacks_that_need_none():
    model, x, y = case()
    result = attack(OutputsOnly(model), x, y, "worst-of", library="sparring", eps=0.1, attacks=[NOISE, SQUARE])
    assert result.backwards == 0
    with pytest.raises(NotSupported, match="pgd needs gradients"):
        attack(OutputsOnly(model), x, y, "worst-of", library="sparring", eps=0.1, attacks=[NOISE, PGD])
    with pytest.raises(NotSupported, match="autoattack needs gradients"):
        attack(OutputsOnly(model), x, y, "autoattack", library="sparring", eps=0.1)


def test_three_classes_are_too_few_for_the_targeted_loss_and_four_are_enough():
    few, _ = linear(classes=3)
    x = np.full((2, *few.input_shape), 0.5, np.float32)
    y = few.logits(x).argmax(axis=1)
    for library in ("sparring", "torchattacks"):
        with pytest.raises(NotSupported, match="3"):
            attack(few, x, y, "autoattack", library=library, eps=0.1, **FEW)
    with pytest.raises(NotSupported, match="DLR"):
        attack(linear(classes=2)[0], x, y % 2, "apgd", library="art", eps=0.1, loss="dlr")
    enough, _ = linear(classes=4)
    for library in ("sparring", "torchattacks", "art"):
        result = attack(enough, x, enough.logits(x).argmax(axis=1), "autoattack", library=library, eps=0.5, **FEW)
        assert result.samples["success"].all()


def test_no_images_are_no_images():
    model, x, y = case()
    empty = worst_of(
        model, x[:0], y[:0], targeted=False, norm="linf", eps=0.1, attacks=[PGD], survivors=True, part_seed=0
    )
    assert empty.images.shape == x[:0].shape
    assert empty.samples["fooled_by"].shape == (0,)
