"""White-box attacks on a bare ONNX file do what they do on the model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from models_for_tests import LIGHT, cnn, images, labels
from onnx_zoo import digits, quiet
from torch import Tensor, nn

from sparring.adapters import attack, wrap
from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.library import AttackMapping, load_library
from sparring.adapters.attacks.request import request, why_not
from sparring.adapters.onnx.classifier import OnnxClassifier

LIBRARIES = ("art", "foolbox", "torchattacks")
_temporary = TemporaryDirectory()


def exported(name: str, module: nn.Module, shape: tuple[int, int, int]) -> Path:
    path = Path(_temporary.name, f"{name}.onnx")
    axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    with quiet():
        torch.onnx.export(
            module.eval(),
            (torch.zeros(2, *shape),),
            str(path),
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    return path


@lru_cache
def on_file() -> OnnxClassifier:
    classifier = wrap(exported("cnn", cnn().network, (1, 8, 8)), device="cpu")
    assert isinstance(classifier, OnnxClassifier)
    return classifier


# --- every attack ---------------------------------------------------------------------------------------------------

EVERY = [
    (library, name, norm)
    for library in LIBRARIES
    for name, norm in LIGHT
    if isinstance(load_library(library).find(find(name, norm)), AttackMapping)
]
BY_SIGN = ("fgsm", "bim", "pgd", "mi-fgsm", "ni-fgsm", "si-ni-fgsm", "vmi-fgsm", "vni-fgsm")


@pytest.mark.parametrize(("library", "name", "norm"), EVERY)
def test_every_canonical_attack_gives_the_images_of_the_source_model(library: str, name: str, norm: str) -> None:
    x = images(6)
    y = labels(cnn(), x)
    (theirs, ours) = (
        attack(model, x, y, name, library=library, norm=norm, route="bridged", params=LIGHT[name, norm])
        for model in (cnn(), on_file())
    )
    assert ours.route == "bridged"
    assert (ours.backwards > 0) == (theirs.backwards > 0)
    if find(name, norm).needs == "gradients":
        off = np.abs(ours.images - theirs.images)
        # where a gradient is zero to within rounding its sign, and so a whole step, is another
        assert (off > 1e-3).mean() <= (0.002 if name in BY_SIGN else 0)
    np.testing.assert_array_equal(ours.samples["success"], theirs.samples["success"])


def test_a_targeted_attack() -> None:
    x = images(6)
    y = labels(cnn(), x)
    params = {"eps": 0.3, "steps": 20}
    result = attack(on_file(), x, y, "pgd", library="foolbox", norm="linf", targets=(y + 3) % 10, params=params)
    assert (result.samples["pred_adv"] == (y + 3) % 10).any()
    np.testing.assert_array_equal(result.samples["success"], on_file().logits(result.images).argmax(1) == (y + 3) % 10)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_class_of_a_library_is_refused_for_want_of_gradients(library: str) -> None:
    listed = load_library(library)
    for name, raw in listed.raw().items():
        if raw.unsupported is None and not name.endswith("TensorFlowV2"):
            assert "onnx" in raw.runs_on, name
            parsed = request(f"{library}:{name}", params={key: 1 for key in required(raw.signature)})
            assert why_not(listed, parsed, "onnx", {}) is None


def required(signature: Any) -> list[str]:
    """Keywords without a default, other than the model."""
    skipped = ("self", "model", "classifier", "estimator")
    return [
        key
        for key, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and parameter.kind in (1, 3) and key not in skipped
    ]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("art:ProjectedGradientDescentPyTorch", {"eps": 0.1, "eps_step": 0.02, "max_iter": 3}),
        ("art:ShadowAttack", {"nb_steps": 2}),
        ("art:NewtonFool", {"max_iter": 2}),
        ("art:ElasticNet", {"max_iter": 2, "binary_search_steps": 1}),
        ("foolbox:LinfPGD", {"eps": 0.1, "steps": 3}),
        ("foolbox:NewtonFoolAttack", {"steps": 2}),
        ("foolbox:L2FMNAttack", {"steps": 3}),
        ("torchattacks:APGD", {"steps": 3, "eps": 0.1}),
        ("torchattacks:FAB", {"steps": 2, "n_classes": 10}),
        ("torchattacks:PGDL2", {"steps": 3, "eps": 0.5}),
    ],
)
def test_a_library_s_own_classes(name: str, params: dict[str, Any]) -> None:
    x = images(3)
    theirs, ours = (
        attack(model, x, labels(cnn(), x), name, route="bridged", params=params) for model in (cnn(), on_file())
    )
    assert ours.backwards > 0
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-3)


# --- as strong as on the source -------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.last = nn.Linear(16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        scores: Tensor = self.last(nn.functional.avg_pool2d((x + self.block(x)).relu(), 2).flatten(1))
        return scores


def mobile() -> nn.Module:
    def separable(inputs: int, outputs: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        return [depthwise, nn.BatchNorm2d(inputs), nn.ReLU6(), nn.Conv2d(inputs, outputs, 1), nn.Hardswish()]

    parts = [nn.Conv2d(1, 16, 3, padding=1), nn.Hardswish(), *separable(16, 24), nn.MaxPool2d(2), *separable(24, 32)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(512, 10))


class OverRows(nn.Module):
    """A recurrent or an attentive layer over the rows of the image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.attentive = kind == "transformer"
        self.embed = nn.Linear(8, 32)
        if self.attentive:
            self.layer: nn.Module = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, activation="gelu")
        else:
            self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](32, 32, batch_first=True, bidirectional=kind == "gru")
        self.last = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(self.embed(x[:, 0]))
        scores: Tensor = self.last((rows if self.attentive else rows[0]).flatten(1))
        return scores


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)),
    "convolutional": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10)
    ),
    "residual": Residual,
    "mobile": mobile,
    "lstm": lambda: OverRows("lstm"),
    "gru": lambda: OverRows("gru"),
    "transformer": lambda: OverRows("transformer"),
}


def trained(build: Callable[[], nn.Module]) -> nn.Module:
    """On scikit-learn's digits, the last 300 left out."""
    x, y = (torch.from_numpy(array) for array in digits())
    torch.manual_seed(0)
    network = build()
    network(x[:2])
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(6):
        for part in torch.randperm(len(x) - 300).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[part]), y[part]).backward()
            optimizer.step()
    return network.eval()


def check_pgd(source: Any, on_its_file: Any) -> None:
    """Half a point of 300 images is one of them."""
    x, y = digits()[0][-300:], digits()[1][-300:]
    assert (source.logits(x).argmax(1) == y).mean() > 0.8
    params = {"eps": 0.1, "steps": 10, "eps_step": 0.02, "random_start": False}
    theirs, ours = (
        attack(model, x, y, "pgd", library="torchattacks", norm="linf", batch_size=300, params=params).samples
        for model in (source, on_its_file)
    )
    assert 0.1 < theirs["success"].mean() < 0.99
    assert abs(ours["success"].mean() - theirs["success"].mean()) <= 0.005


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pgd_succeeds_as_often_as_on_the_source_model(name: str) -> None:
    network = trained(ARCHITECTURES[name])
    source = wrap(network, input_shape=(1, 8, 8), device="cpu")
    check_pgd(source, wrap(exported(name, network, (1, 8, 8)), device="cpu"))


@pytest.mark.parametrize("kind", ["convolutional", "recurrent"])
def test_pgd_succeeds_as_often_as_on_the_source_model_of_keras(kind: str) -> None:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    body = {
        "convolutional": [layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()],
        "recurrent": [layers.Reshape((8, 8)), layers.GRU(32)],
    }[kind]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.optimizer.learning_rate = 0.01
    x, y = digits()
    model.fit(x[:-300].transpose(0, 2, 3, 1), y[:-300], batch_size=100, epochs=6, verbose=0)
    path = Path(_temporary.name, f"keras-{kind}.onnx")
    with quiet():
        model.export(str(path), format="onnx", verbose=False)
    check_pgd(wrap(model, device="cpu"), wrap(path, device="cpu"))
