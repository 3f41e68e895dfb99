"""What an attack is given: the labels that its library gets."""

import numpy as np
import pytest

from sparring.adapters.attacks.inputs import labels_of_call
from sparring.adapters.attacks.request import request
from sparring.adapters.errors import InputError

Y = np.array([0, 1, 2, 3])


def test_a_library_gets_the_true_labels_or_the_classes_to_reach() -> None:
    fgsm, jsma = request("fgsm", params={"eps": 0.1}), request("jsma")
    np.testing.assert_array_equal(labels_of_call(fgsm, Y, None, 10, 0), Y)
    np.testing.assert_array_equal(labels_of_call(jsma, Y, None, 4, 0), [1, 2, 3, 0])


def test_a_targeted_attack_draws_its_targets_or_takes_those_given() -> None:
    targeted = request("pgd", params={"eps": 0.1}, targeted=True)
    drawn = [labels_of_call(targeted, Y, None, 10, seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != Y).all()
    assert (drawn[0] != drawn[2]).any()
    np.testing.assert_array_equal(labels_of_call(targeted, Y, [3, 2, 1, 0], 10, 5), [3, 2, 1, 0])
    with pytest.raises(InputError, match="targets: 9 is out of range"):
        labels_of_call(targeted, Y, [3, 2, 1, 9], 4, 5)
