"""The checks pass a right classifier, and each of them catches what it is there for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from sparring.adapters.conformance import classifiers
from sparring.adapters.conformance.classifiers import (
    CLASSIFIER_CHECKS,
    DIFFERENTIABLE_CHECKS,
    Check,
    check_leaves_input_alone,
    check_rebuilds,
    check_torch_module,
    checks_for,
)
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.protocol import Counter, Images, Logits, check_cotangent, check_images


class Right:
    """A small network in NumPy, with its gradient by hand: tanh(x A) B."""

    input_shape, classes = (3, 4, 4), 5

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.a = rng.standard_normal((48, 16)).astype(np.float32) / 4
        self.b = rng.standard_normal((16, 5)).astype(np.float32)

    def logits(self, x: Images) -> Logits:
        check_images(x, self.input_shape)
        return np.tanh(x.reshape(-1, 48) @ self.a) @ self.b

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        hidden = np.tanh(x.reshape(-1, 48) @ self.a)
        return ((cotangent @ self.b.T * (1 - hidden**2)) @ self.a.T).reshape(x.shape)


class OutputsOnly:
    def __init__(self) -> None:
        self.input_shape, self.classes, self.logits = Right.input_shape, Right.classes, Right().logits


class Float64(Right):
    def logits(self, x: Images) -> Any:
        return super().logits(x).astype(np.float64)


class Transposed(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(x).T


class Overflows(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(x) * np.float32(np.inf)


class NothingFromNothing(Right):
    def logits(self, x: Images) -> Any:
        return super().logits(x) if len(x) else np.zeros(0, np.float32)


class TrainingModeLeftOn(Right):
    """Dropout."""

    random = np.random.default_rng(0)

    def logits(self, x: Images) -> Logits:
        return super().logits(x) * (self.random.random((len(x), 5)) < 0.9)


class ReusesItsBuffer(Right):
    buffer = np.zeros((100, 5), np.float32)

    def logits(self, x: Images) -> Logits:
        self.buffer[: len(x)] = super().logits(x)
        return self.buffer[: len(x)]


class BatchStatistics(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(x - x.mean(axis=0)) if len(x) else super().logits(x)


class WritesToItsInput(Right):
    def logits(self, x: Images) -> Logits:
        scores = super().logits(x)
        if x.flags.writeable:
            x -= 0.5
        return scores


class NeedsWriteable(Right):
    def logits(self, x: Images) -> Logits:
        if not x.flags.writeable:
            raise ValueError("array is read-only")
        return super().logits(x)


class ReadsMemoryNotStrides(Right):
    def logits(self, x: Images) -> Logits:
        check_images(x, self.input_shape)
        owner = x if x.base is None else x.base
        return super().logits(np.resize(owner, x.shape))


class Constant(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(x) * 0


class TakesNaN(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(np.nan_to_num(x, posinf=1.0))


class TakesFloat64(Right):
    def logits(self, x: Images) -> Logits:
        return super().logits(np.asarray(x).astype(np.float32))


class RaisesItsOwnError(Right):
    def logits(self, x: Images) -> Logits:
        if x.ndim != 4:
            raise RuntimeError("expected 4-dimensional input")
        return super().logits(x)


class WrongSign(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return -super().vjp(x, cotangent)


class WrongScale(Right):
    """The gradient for the normalised image, not for the image."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent) * np.float32(1.05)


class LosesAColour(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        gradient = super().vjp(x, cotangent)
        gradient[:, 2] = 0
        return gradient


class SwapsColours(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent)[:, ::-1]


class TransposesPixels(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent).transpose(0, 1, 3, 2)


class ClampsBeforeTheModel(Right):
    """No gradient where a clamp bites; here, above the middle."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent) * (x < 0.5)


class MeanOverTheBatch(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent) / np.float32(max(len(x), 1))


class NotLinear(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, np.clip(cotangent, -1, 1))


class NotEvenZero(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent) + np.float32(0.5)


class NoisyGradient(Right):
    random = np.random.default_rng(0)

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        noise = self.random.standard_normal(x.shape).astype(np.float32)
        return super().vjp(x, cotangent) + 1e-6 * noise


class Float64Gradient(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Any:
        return super().vjp(x, cotangent).astype(np.float64)


class FlatGradient(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, cotangent).reshape(-1, 48)


class WritesToTheCotangent(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        gradient = super().vjp(x, cotangent)
        if cotangent.flags.writeable:
            cotangent[:] = 0
        return gradient


class BroadcastsTheCotangent(Right):
    def vjp(self, x: Images, cotangent: Logits) -> Images:
        return super().vjp(x, np.resize(cotangent, (len(x), self.classes)).astype(np.float32))


class LacksWhatItHas(Right):
    lacks: ClassVar = {"gradients": "needs gradients, and this one says that it has none"}


class LacksWithoutAReason(Right):
    lacks: ClassVar = {"logits": ""}


class LacksWhatNobodyAsksFor(Right):
    lacks: ClassVar = {"gradient": "needs gradients, and this is a slip of the pen"}


DEFECTS: list[tuple[type[Right], str]] = [
    (Float64, "check_shape_and_dtype"),
    (Transposed, "check_shape_and_dtype"),
    (Overflows, "check_shape_and_dtype"),
    (NothingFromNothing, "check_empty_batch"),
    (TrainingModeLeftOn, "check_deterministic"),
    (ReusesItsBuffer, "check_deterministic"),
    (BatchStatistics, "check_batch_independence"),
    (WritesToItsInput, "check_leaves_input_alone"),
    (ReadsMemoryNotStrides, "check_leaves_input_alone"),
    (Constant, "check_uses_input"),
    (TakesNaN, "check_refuses_bad_images"),
    (TakesFloat64, "check_refuses_bad_images"),
    (RaisesItsOwnError, "check_refuses_bad_images"),
    (LacksWhatItHas, "check_lacks"),
    (LacksWithoutAReason, "check_lacks"),
    (LacksWhatNobodyAsksFor, "check_lacks"),
    (WrongSign, "check_vjp_is_the_derivative"),
    (WrongScale, "check_vjp_is_the_derivative"),
    (LosesAColour, "check_vjp_is_the_derivative"),
    (SwapsColours, "check_vjp_is_the_derivative"),
    (TransposesPixels, "check_vjp_is_the_derivative"),
    (ClampsBeforeTheModel, "check_vjp_is_the_derivative"),
    (MeanOverTheBatch, "check_vjp_batch_independence"),
    (NotLinear, "check_vjp_linear"),
    (NotEvenZero, "check_vjp_linear"),
    (NoisyGradient, "check_vjp_deterministic"),
    (Float64Gradient, "check_vjp_shape_and_dtype"),
    (FlatGradient, "check_vjp_shape_and_dtype"),
    (WritesToTheCotangent, "check_vjp_leaves_input_alone"),
    (BroadcastsTheCotangent, "check_vjp_refuses_bad_arguments"),
]


@pytest.mark.parametrize("check", checks_for(Right()), ids=lambda check: check.__name__)
def test_a_right_classifier_passes(check: Check) -> None:
    check(Right())


@pytest.mark.parametrize(("defect", "name"), DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_defect_is_caught(defect: type[Right], name: str) -> None:
    with pytest.raises(AssertionError):
        getattr(classifiers, name)(defect())


def test_a_classifier_that_takes_no_read_only_array_is_caught() -> None:
    with pytest.raises(ValueError, match="array is read-only"):
        check_leaves_input_alone(NeedsWriteable())


def test_every_check_has_something_that_it_catches() -> None:
    assert {name for _, name in DEFECTS} == {check.__name__ for check in DIFFERENTIABLE_CHECKS}


def test_checks_go_by_what_a_classifier_can() -> None:
    assert checks_for(OutputsOnly()) == CLASSIFIER_CHECKS
    assert checks_for(Right()) == DIFFERENTIABLE_CHECKS


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5))


def _left_training(module: Any) -> None:
    module.train()


def _left_thawed(module: Any) -> None:
    module.requires_grad_(True)


def _other_numbers(module: Any) -> None:
    module.register_forward_hook(lambda module, inputs, scores: scores + 0.1)


def _not_counting(module: Any) -> None:
    module.forward = module.net.forward


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_left_training, "training mode"),
        (_left_thawed, "not frozen"),
        (_other_numbers, "disagrees with logits"),
        (_not_counting, "counts as"),
    ],
)
def test_a_broken_native_door_is_caught(spoil: Callable[[Any], None], message: str) -> None:
    class Broken(TorchClassifier):
        @contextmanager
        def torch_module(self, counter: Counter) -> Iterator[nn.Module]:
            with super().torch_module(counter) as module:
                spoil(module)
                yield module

    whole = Broken(network(), input_shape=(3, 4, 4), device="cpu")
    with pytest.raises(AssertionError, match=message):
        check_torch_module(whole)


REBUILT = """
import torch
from torch import nn
from sparring.adapters.frameworks.pytorch import TorchClassifier

def build():
    {seed}
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return TorchClassifier(net, input_shape=(3, 8, 8), device="cpu")
"""


@pytest.fixture
def rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"rebuilt_{request.node.name}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text(REBUILT.format(seed="torch.manual_seed(0)" if "same" in name else ""))
    return f"{name}:build"


def test_the_same_model_in_a_fresh_process(rebuilt: str) -> None:
    check_rebuilds(rebuilt)


def test_another_model_in_a_fresh_process(rebuilt: str) -> None:
    with pytest.raises(AssertionError, match="are others in a fresh process"):
        check_rebuilds(rebuilt)


def test_the_checks_need_no_test_framework() -> None:
    code = "import sys; sys.modules['pytest'] = None; import sparring.adapters.conformance.classifiers"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
