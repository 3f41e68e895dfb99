"""Any classifier as a ``torch.nn.Module``: the one bridge for every library that speaks torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.protocol import Classifier, Differentiable

guard()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.autograd.function import once_differentiable  # noqa: E402


class TorchView(nn.Module):
    """A module: [0, 1] images (N, C, H, W) -> logits (N, classes), forwards by ``logits`` and backwards by ``vjp``.

    The tensors may be on any device and of any floating dtype. The classifier sees float32; logits and gradients come
    back on the device and in the dtype of the images, as torch's own do. Libraries read from a module's first parameter
    where to put their tensors: the view has one empty parameter, on ``device``. A backward pass through a classifier
    without gradients raises ``NotSupported``; wrong images raise ``InputError``, as the classifier does.
    """

    def __init__(self, classifier: Classifier, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.classifier = classifier
        self.dummy = nn.Parameter(torch.zeros(0, device=device), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = _Logits.apply(x, self.classifier)
        return logits


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, classifier: Classifier) -> Tensor:
        ctx.classifier = classifier
        ctx.save_for_backward(x)
        return _like(classifier.logits(_array(x)), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if not isinstance(ctx.classifier, Differentiable):
            raise NotSupported("needs gradients; this classifier gives only its outputs")
        return _like(ctx.classifier.vjp(_array(x), _array(gradient)), x), None


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy()


def _like(values: npt.NDArray[np.float32], x: Tensor) -> Tensor:
    return torch.from_numpy(values).to(x.device, x.dtype)
