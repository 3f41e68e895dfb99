from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparring.adapters.conformance.classifiers import DIFFERENTIABLE_CHECKS, Check, check_torch_module, checks_for
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.frameworks.pytorch import TorchClassifier, choose_device
from sparring.adapters.protocol import Counter, TorchNative, counted, linearized

CLASSES = 5


def cnn(channels: int = 3) -> nn.Sequential:
    """12 x 12 pixels -> 5 logits, with layers that training changes, and running statistics that are not 0 and 1."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, CLASSES))
    net = nn.Sequential(nn.Conv2d(channels, 8, 3), norm, nn.ReLU(), nn.Dropout(0.5), head)
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return net


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.permute(0, 3, 1, 2))


class Probabilities(nn.Module):
    """A softmax that can't be taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class WritesToItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.net(x)


class WithoutParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) ** 2


CAFFE: dict[str, Any] = {"input_range": (0, 255), "mean": (104, 117, 123), "std": (58, 57, 56), "channel_order": "bgr"}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (cnn, {}),
    "grey, normalised": (lambda: cnn(1), {"input_shape": (1, 12, 12), "mean": (0.1307,), "std": (0.3081,)}),
    "caffe, channels last": (ChannelsLast, {"layout": "channels-last", **CAFFE}),
    "softmax taken off": (lambda: nn.Sequential(cnn(), nn.Softmax(1)), {"output": "probabilities"}),
    "logarithm of probabilities": (Probabilities, {"output": "probabilities"}),
    "in place": (WritesToItsInput, {}),
    "no parameters": (WithoutParameters, {}),
}


def wrapped(module: nn.Module, **options: Any) -> TorchClassifier:
    return TorchClassifier(module, **{"input_shape": (3, 12, 12), "device": "cpu", **options})


@lru_cache
def case(name: str) -> TorchClassifier:
    build, options = CASES[name]
    return wrapped(build(), **options)


def images(n: int = 4, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, channels, 12, 12), np.float32)


@pytest.mark.parametrize("check", [*DIFFERENTIABLE_CHECKS, check_torch_module], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_laws(name: str, check: Check) -> None:
    check(case(name))


def test_all_laws_apply() -> None:
    assert checks_for(case("rgb")) == [*DIFFERENTIABLE_CHECKS, check_torch_module]


def test_preprocessing_is_what_the_options_say() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, CLASSES))
    x = images()
    published = (x[:, ::-1] * 255 - np.reshape(CAFFE["mean"], (3, 1, 1))) / np.reshape(CAFFE["std"], (3, 1, 1))
    for layout, seen in (("channels-first", published), ("channels-last", published.transpose(0, 2, 3, 1))):
        weight, bias = (p.detach().numpy().astype(np.float64) for p in linear.parameters())
        expected = seen.reshape(len(x), -1) @ weight.T + bias
        np.testing.assert_allclose(wrapped(linear, layout=layout, **CAFFE).logits(x), expected, atol=1e-5)


def test_one_number_of_mean_and_std_is_for_all_channels() -> None:
    net = cnn()
    one, three = ({"mean": (0.4,) * n, "std": (0.2,) * n} for n in (1, 3))
    assert np.array_equal(wrapped(net, **one).logits(images()), wrapped(net, **three).logits(images()))


def test_without_options_libraries_get_the_module_itself() -> None:
    net = cnn()
    with wrapped(net).torch_module(Counter()) as module:
        assert module.net is net


def test_nothing_clamps() -> None:
    outside = images() * 4 - 2
    expected = cnn().eval()(torch.from_numpy(outside)).detach().numpy()
    np.testing.assert_allclose(case("rgb").logits(outside), expected, rtol=1e-5)
    edges = np.round(images())  # a clamp to [0, 1] would cut the gradient off where a pixel is 0 or 1
    assert (case("rgb").vjp(edges, np.ones((4, CLASSES), np.float32)) != 0).mean() > 0.5


@pytest.mark.parametrize("name", ["softmax taken off", "logarithm of probabilities"])
def test_probabilities_become_logits_of_the_same_classifier(name: str) -> None:
    x = images()
    np.testing.assert_allclose(
        torch.from_numpy(case(name).logits(x)).softmax(1),
        CASES[name][0]().eval()(torch.from_numpy(x)).detach(),
        rtol=1e-5,
    )


def test_a_softmax_taken_off_leaves_gradients_where_probabilities_underflow() -> None:
    sure = nn.Sequential(nn.Flatten(), nn.Linear(432, CLASSES, bias=False))
    with torch.no_grad():
        sure[1].weight.mul_(1000)
    model = nn.Sequential(sure, nn.Sequential(nn.Softmax(dim=1)))
    x, least = images(1), np.zeros((1, CLASSES), np.float32)
    least[0, model(torch.from_numpy(x)).argmin()] = 1
    assert model(torch.from_numpy(x)).min() == 0
    weights = sure[1].weight.detach().numpy()[least[0].argmax()].reshape(x.shape)
    np.testing.assert_allclose(wrapped(model, output="probabilities").vjp(x, least), weights, rtol=1e-5)
    assert len(model) == 2


def fingerprint(module: nn.Module) -> tuple[Any, ...]:
    state = {name: value.clone() for name, value in module.state_dict().items()}
    return state, [part.training for part in module.modules()], [p.requires_grad for p in module.parameters()]


def assert_untouched(module: nn.Module, before: tuple[Any, ...]) -> None:
    state, training, requires_grad = fingerprint(module)
    assert all(torch.equal(value, before[0][name]) for name, value in state.items())
    assert (training, requires_grad) == before[1:]
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("options", [{}, CAFFE, {"output": "probabilities"}])
def test_the_module_is_never_written_to(options: dict[str, Any]) -> None:
    module = nn.Sequential(cnn(), nn.Softmax(1))
    module[0][1].eval()  # some parts train, others don't; some parameters are frozen, others aren't
    module[0][0].weight.requires_grad_(False)
    before = fingerprint(module)
    classifier = wrapped(module, **options)
    assert_untouched(module, before)
    classifier.logits(images())
    assert_untouched(module, before)
    classifier.vjp(images(), np.ones((4, CLASSES), np.float32))
    assert_untouched(module, before)
    with suppress(KeyError), classifier.torch_module(Counter()) as native:
        native.train()
        native.requires_grad_(True)
        raise KeyError
    assert_untouched(module, before)


def test_a_module_in_another_precision_is_copied() -> None:
    double = cnn().double()
    classifier = wrapped(double)
    assert next(double.parameters()).dtype == torch.float64
    np.testing.assert_allclose(classifier.logits(images()), case("rgb").logits(images()), rtol=1e-5)


def test_counts_what_a_library_does() -> None:
    counter = Counter()
    with case("rgb").torch_module(counter) as module:
        with torch.no_grad():
            module(torch.from_numpy(images(3)))
        assert counter == Counter(3, 0)
        x = torch.from_numpy(images(2)).requires_grad_()
        scores = module(x)
        for label in range(CLASSES):  # as DeepFool does
            torch.autograd.grad(scores[:, label].sum(), x, retain_graph=True)
        assert counter == Counter(5, 2 * CLASSES)


def test_native_module_without_parameters_says_where_it_is() -> None:
    with case("no parameters").torch_module(Counter()) as module:
        assert next(module.parameters()).device == torch.device("cpu")


def test_no_gradient_is_said_and_not_zero() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().mean((2, 3))

    with pytest.raises(NotSupported, match="needs gradients"):
        wrapped(Detached()).vjp(images(), np.ones((4, 3), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 12)}, r"input_shape must be \(channels, height, width\).*\(3, 12\)"),
        ({"input_shape": (3, 12, 0)}, r"input_shape must be"),
        ({"input_shape": (3, 20, 20)}, r"does not take images of shape \(3, 20, 20\)"),
        ({"classes": 7}, "classes is 7, but the model gives 5"),
        ({"mean": (0.1, 0.2)}, r"mean must be 3 finite numbers, not \(0.1, 0.2\)"),
        ({"mean": ("a", "b", "c")}, "mean must be 3 numbers"),
        ({"std": (1, 0, 1)}, "std must be positive"),
        ({"input_range": (1, 0)}, "low < high"),
        ({"input_range": (0, 1, 2)}, "input_range must be 2"),
        ({"channel_order": "hsv"}, "'rgb' or 'bgr', not 'hsv'"),
        ({"layout": "NHWC"}, "'channels-first' or 'channels-last', not 'NHWC'"),
        ({"output": "softmax"}, "'logits' or 'probabilities', not 'softmax'"),
        ({"device": "tpu9"}, "unknown device 'tpu9'; valid: auto, cpu, cuda"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrapped(cnn(), **options)


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.LSTM(432, 5))])
def test_a_module_that_gives_no_rows_of_scores_is_refused(module: nn.Module) -> None:
    with pytest.raises(InputError, match=r"one row of class scores per image"):
        wrapped(module)


def test_grey_images_have_no_bgr() -> None:
    with pytest.raises(InputError, match="'bgr' needs three channels"):
        wrapped(cnn(1), input_shape=(1, 12, 12), channel_order="bgr")


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    there = torch.cuda.device_count()
    assert choose_device("auto").type == ("cuda" if there else "cpu")
    with pytest.raises(InputError, match=f"'cuda:{there}' is not there: torch sees {there} CUDA devices"):
        choose_device(f"cuda:{there}")


def test_on_a_gpu_numbers_are_those_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net = cnn()
    before = fingerprint(net)
    gpu = wrapped(net, device="cuda", **CAFFE)
    assert_untouched(net, before)
    for check in checks_for(gpu):
        check(gpu)
    x, cotangent = images(), np.ones((4, CLASSES), np.float32)
    cpu = wrapped(net, **CAFFE)
    np.testing.assert_allclose(gpu.logits(x), cpu.logits(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gpu.vjp(x, cotangent), cpu.vjp(x, cotangent), rtol=1e-3, atol=1e-4)


def test_is_native() -> None:
    assert isinstance(case("rgb"), TorchNative)


@pytest.mark.parametrize("outer", [lambda inner: inner, lambda inner: counted(inner, Counter())])
def test_linearized_it_gives_logits_and_gradients_after_one_pass_forwards(outer):
    classifier, x = (
        outer(TorchClassifier(cnn(), input_shape=(3, 12, 12), device="cpu")),
        np.random.default_rng(0).random((4, 3, 12, 12), np.float32),
    )
    rng = np.random.default_rng(0)
    logits, pull = linearized(classifier, x)
    np.testing.assert_array_equal(logits, classifier.logits(x))
    for _ in range(2):
        cotangent = rng.normal(size=logits.shape).astype(np.float32)
        np.testing.assert_array_equal(pull(cotangent), classifier.vjp(x, cotangent))
    with pytest.raises(InputError, match="cotangent"):
        pull(cotangent[:2])
    empty, pull_none = linearized(classifier, x[:0])
    assert (empty.shape, pull_none(empty).shape) == ((0, CLASSES), (0, 3, 12, 12))


def test_linearized_counts_one_pass_forwards_for_several_backwards():
    counter = Counter()
    logits, pull = linearized(
        counted(TorchClassifier(cnn(), input_shape=(3, 12, 12), device="cpu"), counter),
        np.zeros((3, 3, 12, 12), np.float32),
    )
    for _ in range(2):
        pull(logits)
    assert (counter.forwards, counter.backwards) == (3, 6)


def test_linearized_it_says_that_a_module_cuts_the_gradient_off():
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().mean((2, 3))

    logits, pull = wrapped(Detached()).linearize(images())
    with pytest.raises(NotSupported, match="gives none with respect to its input"):
        pull(logits)
