"""The networks in PyTorch, with logits as outputs. The names of the layers are those of Keras'."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures import mobilenet
from sparring.models.architectures.options import (
    CONVOLUTIONAL,
    DENSE,
    RECURRENT,
    Convolutional,
    Dense,
    Recurrent,
)

guard()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def cnn(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> nn.Module:
    """(N, C, H, W) -> (N, classes); H and W at least 6. ``conv_dropout`` follows the pooling, ``dropout`` the units."""
    channels, height, width = input_shape
    if min(height, width) < 6:
        raise ValueError("two 3x3 convolutions and a pooling need 6 x 6 pixels")
    flat = options.filters[1] * ((height - 4) // 2) * ((width - 4) // 2)
    layers = {
        "conv1": nn.Conv2d(channels, options.filters[0], 3),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(options.filters[0], options.filters[1], 3),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "dropout1": nn.Dropout(options.conv_dropout),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(flat, options.units),
        "relu3": nn.ReLU(),
        "dropout2": nn.Dropout(options.dropout),
        "logits": nn.Linear(options.units, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def cnn_dropout2d(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> nn.Module:
    """As ``cnn``, but ``conv_dropout`` drops whole channels (Tompson et al. 2015, section 3.2). The network of
    PyTorch's MNIST example, examples/mnist/main.py, which J. Sen, A. Sen and Chatterjee take for their distillation."""
    net = cnn(input_shape, classes, options)
    net.dropout1 = nn.Dropout2d(options.conv_dropout)  # in place of the one that drops single values
    return net


def cnn_unpooled(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> nn.Module:
    """(N, C, H, W) -> (N, classes); H and W at least 5. The CNN of Guliani, Enhancing Robustness of Machine Learning
    Models Against Adversarial Attacks: ``conv_dropout`` follows each convolution, ``dropout`` the dense layer."""
    channels, height, width = input_shape
    if min(height, width) < 5:
        raise ValueError("two 3x3 convolutions need 5 x 5 pixels")
    layers = {
        "conv1": nn.Conv2d(channels, options.filters[0], 3),
        "relu1": nn.ReLU(),
        "dropout1": nn.Dropout(options.conv_dropout),
        "conv2": nn.Conv2d(options.filters[0], options.filters[1], 3),
        "relu2": nn.ReLU(),
        "dropout2": nn.Dropout(options.conv_dropout),
        "flatten": nn.Flatten(),
        "dense": nn.Linear(options.filters[1] * (height - 4) * (width - 4), options.units),
        "relu3": nn.ReLU(),
        "dropout3": nn.Dropout(options.dropout),
        "logits": nn.Linear(options.units, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def cnn_batchnorm(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> nn.Module:
    """(N, C, H, W) -> (N, classes); H and W at least 4. The CNN of Campbell and Lasselle, Enhancing the Robustness of
    Deep Neural Networks, whose text has the order of the layers but not their sizes: those are ours."""
    channels, height, width = input_shape
    if min(height, width) < 4:
        raise ValueError("two poolings need 4 x 4 pixels")
    layers = {
        **_normed_block(1, channels, options.filters[0], options.conv_dropout),
        **_normed_block(2, options.filters[0], options.filters[1], options.conv_dropout),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(options.filters[1] * (height // 4) * (width // 4), options.units),
        "relu3": nn.ReLU(),
        "dropout3": nn.Dropout(options.dropout),
        "logits": nn.Linear(options.units, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def _normed_block(number: int, into: int, out: int, dropout: float) -> dict[str, nn.Module]:
    return {
        f"conv{number}": nn.Conv2d(into, out, 3, padding=1),
        f"bn{number}": nn.BatchNorm2d(out),
        f"relu{number}": nn.ReLU(),
        f"dropout{number}": nn.Dropout(dropout),
        f"pool{number}": nn.MaxPool2d(2),
    }


def dnn(input_shape: tuple[int, int, int], classes: int, options: Dense = DENSE) -> nn.Module:
    """(N, C, H, W) -> (N, classes); ``dropout`` follows each dense layer."""
    channels, height, width = input_shape
    layers = {
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(channels * height * width, options.units[0]),
        "relu1": nn.ReLU(),
        "dropout1": nn.Dropout(options.dropout),
        "dense2": nn.Linear(options.units[0], options.units[1]),
        "relu2": nn.ReLU(),
        "dropout2": nn.Dropout(options.dropout),
        "logits": nn.Linear(options.units[1], classes),
    }
    return nn.Sequential(OrderedDict(layers))


def rnn(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> nn.Module:
    """(N, C, H, W) -> (N, classes); each row is a time step of W * C features, pixel by pixel.

    ``units`` has the cell, ``dense`` the layer after it; ``dropout`` lies between the two.
    """
    return _Rows("lstm", nn.LSTM, input_shape, classes, options)


def gru(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> nn.Module:
    """As ``rnn``, with a GRU."""
    return _Rows("gru", nn.GRU, input_shape, classes, options)


def simple_rnn(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> nn.Module:
    """As ``rnn``, with the plain cell, tanh."""
    return _Rows("simple_rnn", nn.RNN, input_shape, classes, options)


class _Rows(nn.Module):
    def __init__(
        self,
        name: str,
        cell: Callable[..., nn.Module],
        input_shape: tuple[int, int, int],
        classes: int,
        options: Recurrent,
    ) -> None:
        super().__init__()
        channels, _, width = input_shape
        self.name = name
        self.add_module(name, cell(channels * width, options.units, batch_first=True))
        self.dropout = nn.Dropout(options.dropout) if options.dropout else None
        self.dense1 = nn.Linear(options.units, options.dense)
        self.logits = nn.Linear(options.dense, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(2)
        # cuDNN's cells have no backward pass in evaluation mode, where every attack needs one
        attacked_on_gpu = x.is_cuda and not self.training
        with torch.backends.cudnn.flags(enabled=False) if attacked_on_gpu else nullcontext():
            steps, _ = self.get_submodule(self.name)(rows)
        last = steps[:, -1] if self.dropout is None else self.dropout(steps[:, -1])
        scores: Tensor = self.logits(F.relu(self.dense1(last)))
        return scores


class _KerasMobileNet(nn.Module):
    """MobileNet v2 as TensorFlow computes it; a convolution without a batch normalization of its own has none.

    Where the stride is 2 TensorFlow pads below and to the right only; the torchvision network, which pads all around,
    computes something else from the same weights.
    """

    predictions: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        for conv in mobilenet.CONVOLUTIONS:
            if conv.opens_block:
                shortcut = x
            if conv.stride > 1:
                height, width = x.shape[2:]
                x = F.pad(x, _same(width, conv.size, conv.stride) + _same(height, conv.size, conv.stride))
            x = self.get_submodule(conv.name)(x)
            x = self.get_submodule(conv.norm)(x) if hasattr(self, conv.norm) else x
            x = F.relu6(x) if conv.relu else x
            x = x + shortcut if conv.adds_shortcut else x
        scores: Tensor = self.predictions(x.mean((2, 3)))
        return scores


class FoldedMobileNet(_KerasMobileNet):
    """The network of ``keras.applications`` with batch normalization folded into the convolutions.

    (N, 3, H, W) in [-1, 1] -> (N, classes). ``arrays`` are those of a file that ``mobilenet.check`` has passed.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        super().__init__()
        for conv in mobilenet.CONVOLUTIONS:
            kernel = arrays[f"{conv.name}/kernel"]
            weight = kernel.transpose((2, 3, 0, 1) if conv.depthwise else (3, 2, 0, 1))
            out, into, _, _ = weight.shape
            layer = _convolution(conv, into * out if conv.depthwise else into, out, bias=True)
            layer.load_state_dict(_parameters(weight, arrays[f"{conv.name}/bias"]))
            self.add_module(conv.name, layer)
        kernel = arrays["predictions/kernel"]
        self.predictions = nn.Linear(*kernel.shape)
        self.predictions.load_state_dict(_parameters(kernel.T, arrays["predictions/bias"]))


def mobilenet_v2_keras(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network of ``keras.applications``, (N, C, H, W) -> (N, classes); H and W at least 32. Names are Keras'."""
    if min(input_shape[1:]) < 32:
        raise ValueError("five strides of 2 need 32 x 32 pixels")
    net = _KerasMobileNet()
    channels = input_shape[0]
    for conv in mobilenet.CONVOLUTIONS:
        net.add_module(conv.name, _convolution(conv, channels, conv.out, bias=False))
        # Keras' momentum of .999 is what stays, torch's what comes in
        net.add_module(conv.norm, nn.BatchNorm2d(conv.out, eps=mobilenet.EPSILON, momentum=1e-3))
        channels = conv.out
    net.predictions = nn.Linear(channels, classes)
    return net


def _convolution(conv: mobilenet.Convolution, into: int, out: int, bias: bool) -> nn.Module:
    padding = conv.size // 2 if conv.stride == 1 else 0
    groups = into if conv.depthwise else 1
    return nn.Conv2d(into, out, conv.size, conv.stride, padding, groups=groups, bias=bias)


def _same(side: int, size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding: before and after."""
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def _parameters(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> dict[str, Tensor]:
    return {"weight": torch.tensor(np.ascontiguousarray(weight)), "bias": torch.tensor(bias)}
