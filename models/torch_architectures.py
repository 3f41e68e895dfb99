"""The networks in PyTorch, with logits as outputs. The names of the layers are those of Keras'."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt

from sparring.adapters.coexistence import guard
from sparring.models import mobilenet

guard()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def cnn(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """(N, C, H, W) -> (N, classes); H and W at least 6."""
    channels, height, width = input_shape
    if min(height, width) < 6:
        raise ValueError("two 3x3 convolutions and a pooling need 6 x 6 pixels")
    flat = 64 * ((height - 4) // 2) * ((width - 4) // 2)
    layers = {
        "conv1": nn.Conv2d(channels, 32, 3),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(32, 64, 3),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "dropout1": nn.Dropout(0.25),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(flat, 128),
        "relu3": nn.ReLU(),
        "dropout2": nn.Dropout(0.5),
        "logits": nn.Linear(128, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def dnn(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """(N, C, H, W) -> (N, classes)."""
    channels, height, width = input_shape
    layers = {
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(channels * height * width, 256),
        "relu1": nn.ReLU(),
        "dropout1": nn.Dropout(0.25),
        "dense2": nn.Linear(256, 128),
        "relu2": nn.ReLU(),
        "dropout2": nn.Dropout(0.25),
        "logits": nn.Linear(128, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def rnn(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """(N, C, H, W) -> (N, classes); each row is a time step of W * C features, pixel by pixel."""
    return _RowLstm(input_shape, classes)


class _RowLstm(nn.Module):
    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, _, width = input_shape
        self.lstm = nn.LSTM(channels * width, 128, batch_first=True)
        self.dense1 = nn.Linear(128, 64)
        self.logits = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(2)
        # cuDNN's LSTM has no backward pass in evaluation mode, where every attack needs one
        attacked_on_gpu = x.is_cuda and not self.training
        with torch.backends.cudnn.flags(enabled=False) if attacked_on_gpu else nullcontext():
            steps, _ = self.lstm(rows)
        scores: Tensor = self.logits(F.relu(self.dense1(steps[:, -1])))
        return scores


class FoldedMobileNet(nn.Module):
    """MobileNet v2 as TensorFlow computes it, with batch normalisation folded into the convolutions.

    (N, 3, H, W) in [-1, 1] -> (N, classes). Where the stride is 2 TensorFlow pads below and to the right only; the
    torchvision network, which pads all around, computes something else from the same weights. ``arrays`` are those of
    ``mobilenet.read``.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        super().__init__()
        for conv in mobilenet.CONVOLUTIONS:
            kernel = arrays[f"{conv.name}/kernel"]
            weight = kernel.transpose((2, 3, 0, 1) if conv.depthwise else (3, 2, 0, 1))
            out, into, size, _ = weight.shape
            groups = out if conv.depthwise else 1
            padding = size // 2 if conv.stride == 1 else 0
            layer = nn.Conv2d(into * groups, out, size, conv.stride, padding, groups=groups)
            layer.load_state_dict(_parameters(weight, arrays[f"{conv.name}/bias"]))
            self.add_module(conv.name, layer)
        kernel = arrays["predictions/kernel"]
        self.predictions = nn.Linear(*kernel.shape)
        self.predictions.load_state_dict(_parameters(kernel.T, arrays["predictions/bias"]))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        for conv in mobilenet.CONVOLUTIONS:
            if conv.opens_block:
                shortcut = x
            layer = self.get_submodule(conv.name)
            if conv.stride > 1:
                height, width = x.shape[2:]
                x = F.pad(x, _same(width, conv.size, conv.stride) + _same(height, conv.size, conv.stride))
            x = layer(x)
            x = F.relu6(x) if conv.relu else x
            x = x + shortcut if conv.adds_shortcut else x
        scores: Tensor = self.predictions(x.mean((2, 3)))
        return scores


def _same(side: int, size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding: before and after."""
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def _parameters(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> dict[str, Tensor]:
    return {"weight": torch.tensor(np.ascontiguousarray(weight)), "bias": torch.tensor(bias)}
