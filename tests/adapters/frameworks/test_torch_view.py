from __future__ import annotations

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.frameworks.torch_view import TorchView
from sparring.adapters.protocol import Counter, Images, Logits, counted


def classifier() -> TorchClassifier:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return TorchClassifier(net, input_shape=(3, 8, 8), mean=(0.5,), std=(0.25,), device="cpu")


class OutputsOnly:
    """What an ONNX file is: a classifier without gradients."""

    input_shape, classes = (3, 8, 8), 5

    def __init__(self) -> None:
        self.logits = classifier().logits


def images(n: int = 4) -> Images:
    return np.random.default_rng(0).random((n, 3, 8, 8), np.float32)


def cotangent(n: int = 4) -> Logits:
    return np.random.default_rng(1).standard_normal((n, 5)).astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_forwards_is_logits_and_backwards_is_vjp_in_the_dtype_of_the_images(dtype: torch.dtype) -> None:
    view = TorchView(classifier())
    x = torch.from_numpy(images()).to(dtype).requires_grad_()
    seen = x.detach().float().numpy()
    scores = view(x)
    scores.backward(torch.from_numpy(cotangent()).to(dtype))
    assert x.grad is not None
    assert (scores.dtype, x.grad.dtype) == (dtype, dtype)
    expected = classifier().vjp(seen, torch.from_numpy(cotangent()).to(dtype).float().numpy())
    assert torch.equal(scores, torch.from_numpy(classifier().logits(seen)).to(dtype))
    assert torch.equal(x.grad, torch.from_numpy(expected).to(dtype))


def test_an_attack_through_the_view_gives_the_images_of_the_module() -> None:
    x, y = torch.from_numpy(images(8)), torch.arange(8) % 5
    with classifier().torch_module(Counter()) as module:
        native = torchattacks.PGD(module, eps=0.1, alpha=0.02, steps=7, random_start=False)(x, y)
    bridged = torchattacks.PGD(TorchView(classifier()), eps=0.1, alpha=0.02, steps=7, random_start=False)(x, y)
    assert (native - x).abs().max() > 0.05
    assert torch.equal(native, bridged)


def test_counting_is_the_classifiers_business() -> None:
    counter = Counter()
    x = torch.from_numpy(images()).requires_grad_()
    TorchView(counted(classifier(), counter))(x).sum().backward()
    assert counter == Counter(4, 4)


def test_an_empty_batch() -> None:
    x = torch.zeros((0, 3, 8, 8), requires_grad=True)
    scores = TorchView(classifier())(x)
    scores.sum().backward()
    assert (scores.shape, x.grad.shape) == ((0, 5), (0, 3, 8, 8))


def test_images_that_are_views_or_not_contiguous() -> None:
    x = torch.from_numpy(images()).permute(0, 1, 3, 2)[::2]
    expected = classifier().logits(images().transpose(0, 1, 3, 2)[::2].copy())
    np.testing.assert_allclose(TorchView(classifier())(x), expected, rtol=1e-6)


def test_the_classifier_never_sees_memory_that_torch_writes_to_later() -> None:
    view, x = TorchView(classifier()), torch.from_numpy(images())
    first = view(x).clone()
    kept = view(x)
    x += 0.5
    view(x)
    assert torch.equal(kept, first)


def test_without_gradients_forwards_works_and_backwards_says_what_is_missing() -> None:
    view = TorchView(OutputsOnly())
    x = torch.from_numpy(images()).requires_grad_()
    with torch.no_grad():
        quiet = view(x)
    scores = view(x)
    assert torch.equal(scores, quiet)
    with pytest.raises(NotSupported, match="needs gradients"):
        scores.sum().backward()


def test_bad_images_are_refused_as_by_the_classifier() -> None:
    with pytest.raises(InputError, match="NaN"):
        TorchView(classifier())(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(InputError, match="shape"):
        TorchView(classifier())(torch.zeros((1, 3, 9, 8)))


def test_libraries_find_the_device_and_nothing_to_train() -> None:
    (parameter,) = TorchView(classifier(), "cpu").parameters()
    assert parameter.device == torch.device("cpu")
    assert not parameter.requires_grad
    assert not TorchView(classifier()).training
