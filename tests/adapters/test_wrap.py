from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparring.adapters import InputError, TorchClassifier, check_outputs, wrap
from sparring.adapters.protocol import Images

HEAVY = "('numpy', 'torch', 'tensorflow', 'keras', 'onnxruntime', 'art', 'foolbox', 'torchattacks', 'pandas')"


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()


def images(n: int = 6) -> Images:
    return np.random.default_rng(0).random((n, 3, 4, 4), np.float32)


def loaded_after(code: str) -> set[str]:
    code += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import sparring.adapters as a; a.wrap, a.check_outputs, a.InputError; dir(a)") == set()


def test_a_framework_that_is_not_there_is_not_loaded(tmp_path: Path) -> None:
    torch_only = "import torch; from sparring.adapters import wrap; wrap(torch.nn.Flatten(), input_shape=(1, 2, 2))"
    assert loaded_after(torch_only) == {"numpy", "torch"}
    path = tmp_path / "flat.onnx"
    torch.onnx.export(module(), (torch.zeros(2, 3, 4, 4),), path, dynamo=True, external_data=False, verbose=False)
    onnx_only = f"from sparring.adapters import wrap; wrap({str(path)!r})"
    assert loaded_after(onnx_only) == {"numpy", "onnxruntime", "torch"}


def test_every_public_name_is_there() -> None:
    import sparring.adapters

    for name in sparring.adapters.__all__:
        assert getattr(sparring.adapters, name).__name__ == name
    assert set(sparring.adapters.__all__) <= set(dir(sparring.adapters))
    with pytest.raises(AttributeError, match="no attribute 'wrapp'"):
        _ = sparring.adapters.wrapp


def test_wrap_stays_the_function_when_its_module_is_imported() -> None:
    code = "import sparring.adapters.wrap; from sparring.adapters import wrap; wrap.__call__"
    assert loaded_after(code) == set()


def test_options_reach_the_adapter() -> None:
    classifier = wrap(
        module(), input_shape=(3, 4, 4), mean=(0.5, 0.4, 0.3), std=(0.2,), channel_order="bgr", device="cpu"
    )
    assert isinstance(classifier, TorchClassifier)
    seen = ((images()[:, ::-1] - np.reshape((0.5, 0.4, 0.3), (3, 1, 1))) / 0.2).astype(np.float32)
    np.testing.assert_allclose(classifier.logits(images()), module()(torch.from_numpy(seen)).detach(), atol=1e-5)


def test_keras_and_onnx_are_recognised(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
    kind = type(wrap(model)).__name__
    assert kind == {"tensorflow": "KerasTensorflowClassifier", "torch": "KerasTorchClassifier"}[keras.backend.backend()]
    path = tmp_path / "model.onnx"
    torch.onnx.export(module(), (torch.zeros(2, 3, 4, 4),), path, dynamo=True, external_data=False, verbose=False)
    for given in (path, str(path)):
        assert type(wrap(given)).__name__ == "OnnxClassifier"


@pytest.mark.parametrize(
    ("model", "named"),
    [(7, "a builtins.int"), ("weights.pt", "'weights.pt'"), (Path("net"), "'net'"), (nn.Flatten, "a builtins.type")],
)
def test_anything_else_is_refused_with_what_is_accepted(model: Any, named: str) -> None:
    with pytest.raises(
        InputError, match=rf"a torch.nn.Module, a Keras 3 model or the path of an .onnx file, not {named}"
    ):
        wrap(model)


def test_a_torch_module_needs_input_shape() -> None:
    with pytest.raises(InputError, match=r"needs input_shape=\(channels, height, width\)"):
        wrap(module())


def test_logits_pass() -> None:
    check_outputs(wrap(module(), input_shape=(3, 4, 4)), images())


def test_logarithms_of_probabilities_are_logits() -> None:
    check_outputs(wrap(nn.Sequential(module(), nn.LogSoftmax(1)), input_shape=(3, 4, 4)), images())


@pytest.mark.parametrize("scale", [1, 1000])
def test_probabilities_do_not_pass_but_when_they_are_declared(scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scale * x

    model = nn.Sequential(module(), Scaled(), nn.Softmax(1))
    with pytest.raises(InputError, match=r"looks like probabilities .* say `output: probabilities`"):
        check_outputs(wrap(model, input_shape=(3, 4, 4)), images())
    check_outputs(wrap(model, input_shape=(3, 4, 4), output="probabilities"), images())


class Divides(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) / (x.mean() > 2)


def test_outputs_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="NaN or infinite for 6 of 6 images"):
        check_outputs(wrap(Divides(), input_shape=(3, 4, 4)), images())


def test_one_score_is_not_a_classification() -> None:
    with pytest.raises(InputError, match=r"\(N, classes\) with two classes or more; 6 images give \(6, 1\)"):
        check_outputs(wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 1)), input_shape=(3, 4, 4)), images())
