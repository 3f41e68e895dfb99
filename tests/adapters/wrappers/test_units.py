"""What an attack is shown: other units, divided logits; and that `normalised-first` is what scripts do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.adapters import attack, wrap
from sparring.adapters.conformance.classifiers import checks_for
from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.protocol import Classifier, Images, Labels
from sparring.adapters.wrappers.units import SPACES, View, view

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (3, 6, 5)


@pytest.fixture(scope="module")
def network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(3)
    made = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 3, 4)).eval()
    with torch.no_grad():
        made[-1].weight.mul_(6)
    return made


@pytest.fixture(scope="module")
def classifier(network: Any) -> Classifier:
    return wrap(network, input_shape=SHAPE, mean=MEAN, std=STD, device="cpu")


@pytest.fixture(scope="module")
def images(classifier: Classifier) -> tuple[Images, Labels]:
    x = np.random.default_rng(1).random((40, *SHAPE), np.float32)
    return x, classifier.logits(x).argmax(axis=1)


def shown(classifier: Classifier, space: Any = "pixels", temperature: float = 1.0) -> View:
    found = view(classifier, space=space, temperature=temperature, before=preprocessing(SHAPE, mean=MEAN, std=STD))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("space", "temperature"), [("normalised", 1.0), ("normalised-first", 1.0), ("pixels", 20.0), ("normalised", 7.0)]
)
def test_a_view_keeps_the_laws_of_the_protocol(classifier: Classifier, space: str, temperature: float) -> None:
    one = shown(classifier, space, temperature).classifier
    for check in checks_for(one):
        check(one)


def test_without_anything_to_change_there_is_no_view(classifier: Classifier) -> None:
    assert view(classifier) is None


@pytest.mark.parametrize("space", [space for space in SPACES if space != "pixels"])
def test_the_view_of_an_image_has_its_logits(classifier: Classifier, images: Any, space: str) -> None:
    one = shown(classifier, space)
    there = one.to(images[0])
    np.testing.assert_allclose(one.classifier.logits(there), classifier.logits(images[0]), atol=2e-4)
    np.testing.assert_allclose(one.back(there), images[0], atol=1e-6)
    assert (there.min() >= 0 and there.max() <= 1) == (space == "normalised")


@settings(max_examples=25, deadline=None)
@given(eps=st.floats(0.005, 0.5))
def test_eps_on_the_normalised_input_is_eps_times_the_channels_deviation(
    classifier: Classifier, images: Any, eps: float
) -> None:
    x, y = images
    done = attack(classifier, x, y, "fgsm", library="foolbox", eps=eps, shown=shown(classifier, "normalised"))
    moved = np.abs(done.images - x)
    inside = (
        (x > eps * max(STD)) & (x < 1 - eps * max(STD)) & (moved > 1e-5)
    )  # where neither box nor a zero gradient rules
    for channel, std in enumerate(STD):
        assert moved[:, channel].max() <= eps * std + 1e-6
        np.testing.assert_allclose(moved[:, channel][inside[:, channel]], eps * std, atol=1e-6)


@pytest.mark.parametrize("library", ["torchattacks", "art"])
def test_normalising_first_is_what_a_script_does(
    network: Any, classifier: Classifier, images: Any, library: str
) -> None:
    """The script's own images, to rounding. torchattacks 3.5.1 clamps standardised pictures to [0, 1] and loses them;
    ART 1.20.1 clips, too, but projects back around the picture after it, so that the picture survives.
    """
    import torch

    x, y = images
    done = attack(classifier, x, y, "fgsm", library=library, eps=0.1, shown=shown(classifier, "normalised-first"))
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    standardised = (x - mean) / std
    if library == "torchattacks":
        import torchattacks

        of_script = torchattacks.FGSM(network, eps=0.1)(torch.from_numpy(standardised), torch.from_numpy(y)).numpy()
    else:
        from art.attacks.evasion import FastGradientMethod
        from art.estimators.classification import PyTorchClassifier

        loss = torch.nn.CrossEntropyLoss()
        estimator = PyTorchClassifier(network, loss, SHAPE, 4, clip_values=(0, 1), device_type="cpu")
        of_script = FastGradientMethod(estimator, eps=0.1, eps_step=0.1).generate(standardised, y)
    np.testing.assert_allclose(done.images, (of_script * std + mean).clip(0, 1), atol=1e-6)
    lost = np.abs(done.images - x).max()
    if library == "torchattacks":
        with torch.no_grad():
            decided = network(torch.from_numpy(of_script)).argmax(dim=1).numpy()
        np.testing.assert_array_equal(done.samples["pred_adv"], decided)
        # no pixel below the mean is left: the picture has lost more than half of its range
        assert (of_script.min(), of_script.max()) == (0, 1)
        assert (done.images >= mean - 1e-6).all()
        assert lost > 0.4
    else:
        assert of_script.min() < -1
        assert lost <= 0.1 * max(STD) + 1e-6


def test_foolbox_refuses_standardised_pictures(classifier: Classifier, images: Any) -> None:
    """Foolbox 3.3.4 asserts that inputs lie within its bounds, so it can't fall into this trap."""
    from sparring.adapters.errors import LibraryError

    with pytest.raises(LibraryError, match="foolbox"):
        attack(classifier, *images, "fgsm", library="foolbox", eps=0.1, shown=shown(classifier, "normalised-first"))


def test_what_the_clamp_does_alone(classifier: Classifier, images: Any) -> None:
    x, y = images
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    done = attack(classifier, x, y, "none", library="sparring", shown=shown(classifier, "normalised-first"))
    np.testing.assert_allclose(done.images, np.clip((x - mean) / std, 0, 1) * std + mean, atol=1e-6)
    plain = attack(classifier, x, y, "none", library="sparring")
    np.testing.assert_array_equal(plain.images, x)


def test_dividing_the_logits_brings_gradients_back(network: Any, images: Any) -> None:
    """At 1,000 times its logits the softmax is 1 to the last bit, and FGSM leaves every image where it is."""
    import torch

    class Saturated(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return 1000 * network(x)

    x, y = images
    hard = wrap(Saturated().eval(), input_shape=SHAPE, mean=MEAN, std=STD, device="cpu")
    blind = attack(hard, x, y, "fgsm", library="torchattacks", eps=0.1)
    shown = view(hard, temperature=1000, before=preprocessing(SHAPE, mean=MEAN, std=STD))
    seeing = attack(hard, x, y, "fgsm", library="torchattacks", eps=0.1, shown=shown)
    untouched = (blind.images == x).all(axis=(1, 2, 3)).mean()
    assert untouched > 0.5
    assert not (seeing.images == x).all(axis=(1, 2, 3)).any()
    assert (seeing.samples["pred_adv"] == y).sum() < (blind.samples["pred_adv"] == y).sum()


def test_bad_views_are_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match=r"unknown space 'normalized'.*normalised"):
        view(classifier, space="normalized")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="temperature"):
        view(classifier, temperature=0)
