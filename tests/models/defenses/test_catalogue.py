"""Defenses by name, and the wrappers as defenses: what each costs, what it stops, and what an aware attack takes back."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from little import environment
from masked_mnist import EPS, MASKS, N, accuracy, aware_attacks, behind, length, mean_accuracy, mnist, said, stepwise
from models_for_tests import OutputsOnly, cnn, images

from sparring.adapters import attack
from sparring.adapters.errors import InputError
from sparring.adapters.parameters import Parameter
from sparring.adapters.protocol import Differentiable
from sparring.models.defenses import catalogue as defenses
from sparring.models.defenses import shipped
from sparring.models.defenses.catalogue import catalogue, find, resolve, seen_by_unaware, wrap_defended
from sparring.models.defenses.defense import Defense, called

WRAPPERS = [one.name for one in shipped.WRAPPERS]  # and none of another package that is installed


# By name


def test_every_defense_has_a_source_and_explains_its_parameters() -> None:
    for one in shipped.SHIPPED:
        assert one.source
        assert one.description
        params = one.resolve({})
        assert list(params) == list(one.parameters)
        for parameter in one.parameters.values():
            assert parameter.help
        if one.kind == "wrapper":
            assert one.passes(params) in ("exact", "straight-through", "expectation")
            signature = inspect.signature(called(one.build)).parameters
            assert {"seed"} <= set(signature)


def test_what_the_issue_names_is_there() -> None:
    names = {one.name: one.kind for one in catalogue()}
    for name in (
        "bit-depth",
        "median-smoothing",
        "mean-smoothing",
        "gaussian-blur",
        "jpeg",
        "total-variation",
        "random-resize-pad",
        "random-rotation",
        "random-shift",
        "random-noise",
        "randomization",
        "gradient-noise",
    ):
        assert names[name] == "wrapper"
    for name in (
        "adversarial-training",
        "madry",
        "adversarial-fine-tuning",
        "distillation",
        "noisy-gradients",
        "noisy-weights",
        "augmentation",
    ):
        assert names[name] == "training"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gausian-blur", "unknown defense 'gausian-blur'. Did you mean 'gaussian-blur'"),
        ("art:JpgCompression", "unknown defense class of ART 'JpgCompression'. Did you mean 'JpegCompression'"),
        ("art:PixelDefend", "can't defend an image classifier: it needs a PixelCNN"),
        ("nowhere.at.all:DEFENSE", "the defense 'nowhere.at.all:DEFENSE' can't be loaded: No module named 'nowhere'"),
        ("json:loads", "'json:loads' is no sparring.models.defenses.catalogue.Defense but a function"),
    ],
)
def test_a_name_that_is_not_known_says_what_is(name, message) -> None:
    with pytest.raises(InputError) as error:
        find(name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (said("jpeg", quality=200), "jpeg: quality: 200 is not a whole number at least 1 and at most 95"),
        (said("jpeg", qualty=20), "jpeg: unknown parameter 'qualty'. Did you mean 'quality'"),
        (said("jpeg", gradients="exact"), "jpeg: gradients: 'exact' is not one of 'straight-through', 'none'"),
        (said("random-noise", draws=0), "random-noise: draws: 0 is not a whole number at least 1"),
        (said("total-variation", weight=0), "total-variation: weight: 0 is not a number above 0"),
        (said("art:JpegCompression", quality=101), "art:JpegCompression: ART refuses: Image quality must be"),
        (said("art:JpegCompression", channels_first=True), "unknown parameter 'channels_first'. Valid: gradients, q"),
        (said("art:Cutout"), "art:Cutout needs a value for length"),
    ],
)
def test_a_parameter_that_cant_be_says_what_can(spec, message) -> None:
    with pytest.raises(InputError) as error:
        resolve(spec)
    assert message in str(error.value)


def test_an_entry_point_and_an_object_of_ones_own_are_found(tmp_path) -> None:
    """In a process of its own, for what is found is kept; the documented example is run by tests/test_docs.py."""
    (tmp_path / "mine.py").write_text(
        "from sparring.models.defenses.catalogue import Defense\n"
        "DIM = Defense('dim', 'wrapper', 'darker', 'me', {}, lambda classifier, *, seed: classifier)\n"
        "WRONG = 3\n"
    )
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sparring.defenses]\ndim = mine:DIM\n")
    code = (
        "import mine\nfrom sparring.models.defenses.catalogue import find, catalogue\n"
        "assert find('dim') is find('mine:DIM') is mine.DIM\n"
        "assert 'dim' in [one.name for one in catalogue()]\n"
        "import sys; assert 'torch' not in sys.modules and 'art' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), check=True, timeout=900)
    (metadata / "entry_points.txt").write_text("[sparring.defenses]\ndim = mine:WRONG\n")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert "the entry point 'dim' is no sparring.models.defenses.catalogue.Defense but a int" in done.stderr


def test_a_check_of_what_the_ranges_cant_say_is_asked() -> None:
    def check(low: float, high: float) -> None:
        if low > high:
            raise InputError(f"low {low} is above high {high}")

    parameters = {name: Parameter(float, name, default) for name, default in (("low", 0.0), ("high", 1.0))}
    one = Defense("band", "wrapper", "", "", parameters, check=check)
    assert one.resolve({"high": 2}) == {"low": 0.0, "high": 2.0}
    with pytest.raises(InputError, match=r"band: low 2\.0 is above high 1\.0"):
        one.resolve({"low": 2})


# Around a classifier


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_is_built_as_it_is_listed(name) -> None:
    made = wrap_defended(cnn(), [said(name)], seed=3)
    assert made.framework == "defended"
    assert made.gradients == find(name).gradients
    assert isinstance(made, Differentiable)
    again = wrap_defended(cnn(), [said(name)], seed=3)
    np.testing.assert_array_equal(made.logits(images()), again.logits(images()))
    without = wrap_defended(OutputsOnly(cnn()), [said(name)], seed=3)
    assert not isinstance(without, Differentiable)
    if "gradients" in find(name).parameters:
        assert not isinstance(wrap_defended(cnn(), [said(name, gradients="none")], seed=3), Differentiable)
    if find(name).random and name != "gradient-noise":
        other = wrap_defended(cnn(), [said(name)], seed=4)
        assert np.abs(made.logits(images()) - other.logits(images())).max() > 1e-3


@given(st.lists(st.sampled_from(["bit-depth", "gaussian-blur", "jpeg"]), min_size=1, max_size=3))
def test_a_chain_is_applied_in_the_order_of_the_list(chain) -> None:
    x = images(2)
    made: Any = wrap_defended(cnn(), [said(name) for name in chain], seed=0)
    moved = x
    for _ in chain:
        moved, _pull = made.transform(moved, lambda row: np.random.default_rng(row))
        made = made.inner
    assert made is cnn()
    np.testing.assert_array_equal(
        wrap_defended(cnn(), [said(name) for name in chain], seed=0).logits(x), cnn().logits(moved)
    )


def test_two_of_the_same_in_a_chain_draw_apart() -> None:
    made: Any = wrap_defended(cnn(), [said("random-noise"), said("random-noise")], seed=0)
    assert made.seed != made.inner.seed


def test_training_defenses_are_not_put_around_a_classifier() -> None:
    assert wrap_defended(cnn(), [said("distillation")], seed=0) is cnn()
    specs = [said("madry"), said("gaussian-blur"), said("augmentation"), said("jpeg")]
    assert [one.defense for one in defenses.wrappers(specs)] == ["gaussian-blur", "jpeg"]


def test_an_unaware_attacker_sees_the_undefended_classifier_but_for_noisy_gradients() -> None:
    for name in WRAPPERS:
        unaware = wrap_defended(cnn(), [said(name)], seed=0, attacker="unaware")
        assert (unaware is cnn()) == (name != "gradient-noise") == (not seen_by_unaware([said(name)]))
        aware = wrap_defended(cnn(), [said(name)], seed=0, attacker="aware")
        np.testing.assert_array_equal(
            aware.logits(images()), wrap_defended(cnn(), [said(name)], seed=0).logits(images())
        )


# As defenses: a CNN on MNIST, .15 of the box for FGSM and PGD


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", MASKS)
def test_what_a_transform_costs_what_it_stops_and_what_is_taken_back(name) -> None:
    """DeepFool's images lie just past the boundary, and any transform moves most of them back. Of an attacker who knows
    of it fewer are moved back, though they are hardly further from the originals; and .25 is enough for PGD.

    Xu, Evans, Qi 2018, Guo et al. 2018 and Xie et al. 2018 report the first, Athalye, Carlini, Wagner 2018 the second.
    """
    classifier, x, y, unaware = mnist()
    spec, cost, least, taken_back = MASKS[name]
    defended = behind(spec, classifier)
    assert mean_accuracy(defended, x, y) >= accuracy(classifier, x, y) - cost
    assert accuracy(classifier, unaware, y) < 0.05
    stopped = mean_accuracy(defended, unaware, y)
    assert stopped >= least
    left, change, far_left = aware_attacks(defended, x[:N], y)
    assert left <= stopped - taken_back
    assert change < 1.35 * length(unaware - x[:N])
    assert far_left <= 0.1


@pytest.mark.usefixtures("real_data")
def test_fgsm_is_stopped_where_the_papers_say_so() -> None:
    """Xu, Evans, Qi 2018, section 5.2 (MNIST, one bit) and Guo et al. 2018, section 5 (total variation)."""
    classifier, x, y, _ = mnist()
    fgsm = stepwise(classifier, x[:100], y[:100], "fgsm")
    undefended = accuracy(classifier, fgsm, y)
    assert undefended < 0.6
    one_bit = wrap_defended(classifier, [said("bit-depth", levels=2)], seed=0)
    assert accuracy(one_bit, fgsm, y) > undefended + 0.3
    varied = wrap_defended(classifier, [said("total-variation", weight=0.1, keep=0.8, steps=20)], seed=0)
    assert accuracy(varied, fgsm, y) > undefended + 0.1


@pytest.mark.usefixtures("real_data")
def test_one_bit_on_black_and_white_is_no_mask() -> None:
    """.15 doesn't take black past 1/2, and knowing of it helps nobody within that; beyond 1/2 it is nothing."""
    classifier, x, y, _ = mnist()
    one_bit = wrap_defended(classifier, [said("bit-depth", levels=2)], seed=0)
    assert accuracy(one_bit, stepwise(one_bit, x[:N], y), y) > 0.8
    assert accuracy(one_bit, stepwise(one_bit, x[:N], y, eps=0.55), y) < 0.1


@pytest.mark.usefixtures("real_data")
def test_noise_on_the_gradients_stops_who_trusts_them_and_nobody_else() -> None:
    classifier, x, y, _ = mnist()
    x, y = x[:N], y[:N]
    spec = said("gradient-noise", eps=0.5, draws=30)
    deployed = wrap_defended(classifier, [spec], seed=0)
    unaware = wrap_defended(classifier, [spec], seed=0, attacker="unaware")
    assert accuracy(deployed, x, y) == accuracy(classifier, x, y)
    undefended = accuracy(classifier, stepwise(classifier, x, y, "fgsm"), y)
    trusting = accuracy(deployed, stepwise(unaware, x, y, "fgsm"), y)
    averaging = accuracy(deployed, stepwise(deployed, x, y), y)
    assert trusting > undefended + 0.3
    assert averaging < trusting - 0.4
    queries = attack(deployed, x, y, "square", library="torchattacks", eps=EPS, queries=300)
    assert accuracy(deployed, queries.images, y) < trusting - 0.3  # a black box asks for no gradients


@pytest.mark.usefixtures("real_data")
def test_who_averages_more_draws_gets_further() -> None:
    classifier, x, y, _ = mnist()
    left = [
        accuracy(made, stepwise(made, x[:N], y, "fgsm"), y)
        for draws in (1, 10, 1000)
        for made in (wrap_defended(classifier, [said("gradient-noise", eps=0.5, draws=draws)], seed=0),)
    ]
    assert left[0] > left[2] + 0.3
    assert left[0] >= left[1] >= left[2]
