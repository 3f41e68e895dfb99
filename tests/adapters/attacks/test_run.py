"""`attack`: what it refuses, what it decides itself, and what it tells."""

import numpy as np
import pytest
import torch

from sparring.adapters import attack, wrap
from sparring.adapters.errors import InputError, LibraryError, NotSupported


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    return wrap(module, input_shape=(3, 2, 2))


@pytest.fixture(scope="module")
def images(linear):
    x = np.random.default_rng(0).uniform(0.3, 0.7, (20, 3, 2, 2)).astype(np.float32)
    return x, linear.logits(x).argmax(1)


class LogitsOnly:
    """What an ONNX session is: the same classifier without gradients."""

    def __init__(self, inner):
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes

    def logits(self, x):
        return self.inner.logits(x)


def test_the_facts_are_those_of_the_images(linear, images):
    x, y = images
    done = attack(linear, x, y, "fgsm", library="foolbox", eps=0.2)
    frame = done.frame
    assert (frame["pred_clean"] == y).all()
    assert (frame["pred_adv"] == linear.logits(done.images).argmax(1)).all()
    assert (frame["success"] == (frame["pred_adv"] != y)).all()
    assert frame["linf"].to_numpy() == pytest.approx(np.abs(done.images.astype(float) - x).reshape(20, -1).max(1))
    assert (frame["target"] == -1).all()
    assert done.backwards == 20
    assert done.forwards >= 20
    assert done.library_version
    assert done.route == "native"
    assert done.call["class"] == "LinfFastGradientAttack"


@pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks"])
def test_batches_change_nothing_for_an_attack_without_chance(library, linear, images):
    x, y = images
    whole = attack(linear, x, y, "pgd", library=library, eps=0.1, random_start=False, steps=5)
    parts = attack(linear, x, y, "pgd", library=library, eps=0.1, random_start=False, steps=5, batch_size=7)
    assert np.abs(whole.images - parts.images).max() <= 1e-6
    assert (whole.forwards, whole.backwards) == (parts.forwards, parts.backwards)


@pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks"])
def test_a_targeted_attack_is_judged_by_its_target(library, linear, images):
    x, y = images
    targets = (y + 2) % 4
    done = attack(linear, x, y, "pgd", library=library, eps=1.0, steps=40, random_start=False, targets=targets)
    frame = done.frame
    assert (frame["target"] == targets).all()
    assert (frame["success"] == (frame["pred_adv"] == targets)).all()
    assert frame["success"].mean() > 0.9


def test_targets_are_drawn_by_the_seed_and_never_the_label(linear, images):
    x, y = images
    drawn = [
        attack(linear, x, y, "fgsm", library="art", eps=0.1, targeted=True, seed=s).samples["target"] for s in (0, 0, 1)
    ]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert (drawn[0] != y).all()


def test_a_model_without_gradients_refuses_white_box_attacks_and_takes_black_box_ones(linear, images):
    x, y = images
    blind = LogitsOnly(linear)
    for library in ("art", "foolbox", "torchattacks"):
        with pytest.raises(NotSupported, match=r"fgsm needs gradients.*LogitsOnly"):
            attack(blind, x, y, "fgsm", library=library, eps=0.1)
    done = attack(blind, x, y, "hopskipjump", library="foolbox", steps=2, max_evaluations=50, initial_evaluations=10)
    assert done.samples["success"].any()
    assert done.route == "bridged"


def test_what_a_library_lacks_says_so(linear, images):
    with pytest.raises(NotSupported, match="Foolbox has no JSMA"):
        attack(linear, *images, "jsma", library="foolbox")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(np.float64), y), "float32, not float64"),
        (lambda x, y: (x[:, :2], y), r"\(N, 3, 2, 2\), not \(20, 2, 2, 2\)"),
        (lambda x, y: (np.where(x > 0.6, np.float32(np.nan), x), y), "NaN"),
        (lambda x, y: (x * 255, y), r"lie in \[0, 1\], but go from"),
        (lambda x, y: (x, y + 4), "out of range, for the model has 4 classes, 0 to 3"),
        (lambda x, y: (x, -y - 1), "out of range"),
        (lambda x, y: (x, y[:5]), "20 whole numbers"),
        (lambda x, y: (x, y.astype(float)), "20 whole numbers, not float64"),
    ],
)
def test_bad_images_and_labels_are_refused(change, message, linear, images):
    with pytest.raises(InputError, match=message):
        attack(linear, *change(*images), "fgsm", library="art", eps=0.1)


def test_bad_words_are_refused(linear, images):
    with pytest.raises(InputError, match="fgsm needs a library: library= one of"):
        attack(linear, *images, "fgsm", eps=0.1)
    with pytest.raises(InputError, match=r"unknown library 'artt'.*'art'"):
        attack(linear, *images, "fgsm", library="artt", eps=0.1)
    with pytest.raises(InputError, match=r"unknown parameter 'epsilon'.*eps"):
        attack(linear, *images, "fgsm", library="art", epsilon=0.1)
    with pytest.raises(InputError, match="targets: 9 is out of range"):
        attack(linear, *images, "fgsm", library="art", eps=0.1, targets=np.full(20, 9))


def test_the_raw_door_takes_the_librarys_own_words(linear, images):
    x, y = images
    raw = attack(linear, x, y, "torchattacks:PGD", eps=0.1, alpha=0.02, steps=5, random_start=False)
    canonical = attack(linear, x, y, "pgd", library="torchattacks", eps=0.1, eps_step=0.02, steps=5, random_start=False)
    assert (raw.images == canonical.images).all()
    with pytest.raises(InputError, match=r"unknown parameter 'eps_step'.*alpha"):
        attack(linear, x, y, "torchattacks:PGD", eps=0.1, eps_step=0.02)


def test_a_librarys_keyword_may_be_called_as_one_of_ours(linear, images):
    x, y = images
    words = {"norm": "Linf", "eps": 0.1, "n_queries": 30, "seed": 3}  # its L2 wants images of more than 2 x 2
    raw = attack(linear, x, y, "torchattacks:Square", params=words, seed=5)
    assert raw.call["kwargs"] == words
    assert raw.samples["linf"].max() <= 0.1 + 1e-6


def test_a_librarys_crash_is_translated_with_its_cause(linear, images):
    with pytest.raises(LibraryError, match=r"torchattacks's TIFGSM raised") as caught:
        attack(linear, *images, "torchattacks:TIFGSM", eps=0.1, len_kernel=-3)
    assert caught.value.__cause__ is not None


def test_no_images_are_no_attack(linear, images):
    x, y = images
    done = attack(linear, x[:0], y[:0], "fgsm", library="art", eps=0.1)
    assert done.images.shape == (0, 3, 2, 2)
    assert len(done.frame) == 0


def test_global_random_states_are_left_as_they_were(linear, images):
    np.random.seed(7)  # noqa: NPY002 - the global state is what is tested
    torch.manual_seed(7)
    expected = np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    attack(linear, *images, "pgd", library="art", eps=0.1, steps=2)
    attack(linear, *images, "pgd", library="torchattacks", eps=0.1, steps=2)
    assert (np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002
