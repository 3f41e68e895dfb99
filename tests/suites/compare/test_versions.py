"""The studies that are run in many environments: what they attack is the same function in each of them."""

from pathlib import Path

import numpy as np
import pytest

from sparring.models.data import datasets
from sparring.models.model_spec import ObjectModel, WeightsModel
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import is_prepared, prepare
from sparring.suites.plan.file import home, load_suite, studies

SHIPPED = [name for name in studies() if name.startswith("versions-")]


def classifiers(name):
    suite = load_suite(name)
    refs = [prepare(spec, data=suite.data, base=home(name), device="cpu") for spec in suite.models]
    return suite, {ref.name: open_model(ref, device="cpu") for ref in refs}


def test_there_is_a_study_for_each_package_under_test():
    subjects = ["art", "foolbox", "keras", "torch", "torchattacks"]
    assert [name.removeprefix("versions-") for name in SHIPPED] == subjects


@pytest.mark.parametrize("name", SHIPPED)
def test_a_study_trains_nothing(name):
    for spec in load_suite(name).models:
        assert isinstance(spec, WeightsModel | ObjectModel)
        assert spec.weights is not None
        assert (home(name) / spec.weights).stat().st_size <= 200_000


def test_a_study_finds_its_files_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = load_suite("versions-art")
    prepare(suite.models[0], data=suite.data, base=home("versions-art"), device="cpu")
    assert is_prepared(suite.models[0], data=suite.data, base=home("versions-art")) is not None


def test_torch_keras_and_the_clamped_model_compute_the_same():
    suite, of_torch = classifiers("versions-torch")
    _, of_keras = classifiers("versions-keras")
    data = datasets.load(suite.data, base=Path("."))
    logits = {name: model.logits(data.x) for name, model in of_torch.items()}
    for other in (logits["clamped"], of_keras["cnn"].logits(data.x)):  # to within float32: logits go up to 15
        np.testing.assert_allclose(other, logits["cnn"], rtol=1e-5, atol=1e-5)
    assert (logits["cnn"].argmax(axis=1) == data.y).mean() > 0.9


def test_the_clamp_alone_makes_the_gradient():
    """Inside the box the two models have the same gradient, whatever torch says of its border."""
    suite, models = classifiers("versions-torch")
    x = datasets.load(suite.data, base=Path(".")).x[:8]
    inner = np.clip(x, 0.01, 0.99)
    one_hot = np.eye(10, dtype=np.float32)[:8]
    one, two = (models[name].vjp(inner, one_hot) for name in ("cnn", "clamped"))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert (x == 0).mean() > 0.3  # the border is where a change of the clamp's gradient would show
