"""The catalogue: what a user may write, and what is filled in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters.attacks import catalogue as attacks
from sparring.adapters.attacks.catalogue import ATTACKS, find
from sparring.adapters.errors import InputError


def test_every_attack_names_its_source_and_explains_every_parameter() -> None:
    for attack in ATTACKS.values():
        dated = any(character.isdigit() for character in attack.source)
        # the study bears no year, and the control has no source
        assert dated or any(name in attack.source for name in ("Foolbox", "Lasselle")) or attack.name == "none"
        assert all(parameter.help for parameter in attack.parameters.values())


def test_the_issue_s_attacks_are_all_there() -> None:
    assert set(attacks.names()) == {
        "fgsm", "bim", "pgd", "mi-fgsm", "ni-fgsm", "si-ni-fgsm", "vmi-fgsm", "vni-fgsm", "deepfool", "cw", "jsma",
        "square", "apgd", "autoattack", "worst-of", "pixle", "one-pixel", "hopskipjump", "boundary", "salt-and-pepper",
        "uniform-noise", "gaussian-noise", "pixel-swap", "patch", "none",
    }  # fmt: skip


def test_the_first_norm_is_the_default_one() -> None:
    assert find("pgd").norm == "linf"
    assert find("pgd", "l2").norm == "l2"
    assert find("hopskipjump").norm == "l2"


@given(st.floats(1e-4, 1), st.integers(1, 200))
def test_the_step_of_pgd_follows_from_eps_and_steps_and_stays_within_the_ball(eps: float, steps: int) -> None:
    params = find("pgd").resolve({"eps": eps, "steps": steps})
    assert params["eps_step"] == pytest.approx(min(2.5 * eps / steps, eps))
    assert list(params) == list(find("pgd").parameters)


def test_a_given_step_is_kept() -> None:
    assert find("pgd").resolve({"eps": 0.1, "eps_step": 0.02})["eps_step"] == 0.02


def test_a_fraction_is_a_number() -> None:
    assert find("fgsm").resolve({"eps": "8/255"})["eps"] == pytest.approx(8 / 255)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("fgsm", {}, "fgsm needs a value for eps"),
        ("fgsm", {"eps": -0.1}, "-0.1 is not a number above 0 and at most 1"),
        ("fgsm", {"eps": 8}, "looks like the 0-255 scale, but images here are in [0, 1]: write 8/255"),
        ("fgsm", {"eps": "big"}, "'big' is not a number"),
        ("fgsm", {"eps": "1/0"}, "'1/0' is not a number"),
        ("fgsm", {"eps": True}, "True is not a number"),
        ("pgd", {"eps": 0.1, "steps": 2.5}, "steps: 2.5 is not a whole number"),
        ("pgd", {"eps": 0.1, "step": 2}, "unknown parameter 'step'. Did you mean 'steps'"),
        ("pgd", {"eps": 0.1, "random_start": "yes"}, "'yes' is not true or false"),
        ("pixle", {"pixel_mapping": "rnd"}, "'rnd' is not one of 'random'"),
        ("pixle", {"x_dimensions": 3}, "3 is not a pair"),
    ],
)
def test_bad_values_are_named_with_what_is_valid(name: str, given: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        find(name).resolve(given)
    assert says in str(caught.value)


def test_a_misspelt_attack_gets_the_nearest_names() -> None:
    with pytest.raises(InputError, match="Did you mean 'deepfool'"):
        find("deepfol")
    with pytest.raises(InputError, match="unknown norm 'l7'"):
        find("pgd", "l7")
