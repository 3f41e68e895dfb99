"""The networks in Keras, for every backend, with logits as outputs. The names of the layers are those of torch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures.options import (
    CONVOLUTIONAL,
    DENSE,
    RECURRENT,
    Convolutional,
    Dense,
    Recurrent,
)

guard()

import keras  # noqa: E402
from keras import layers  # noqa: E402

LAYOUT = "channels_last"
"""Whatever Keras is configured for."""


def cnn(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 6. ``conv_dropout`` follows the pooling, ``dropout`` the units."""
    return _pooled(input_shape, classes, options, layers.Dropout)


def cnn_dropout2d(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> Any:
    """As ``cnn``, but ``conv_dropout`` drops whole channels (Tompson et al. 2015, section 3.2). The network of
    PyTorch's MNIST example, examples/mnist/main.py, which J. Sen, A. Sen and Chatterjee take for their distillation."""
    spatial = partial(layers.SpatialDropout2D, data_format=LAYOUT)
    return _pooled(input_shape, classes, options, spatial)


def _pooled(
    input_shape: tuple[int, int, int],
    classes: int,
    options: Convolutional,
    drop: Callable[..., Any],
) -> Any:
    if min(input_shape[1:]) < 6:  # not every release of Keras refuses an empty layer
        raise ValueError("two 3x3 convolutions and a pooling need 6 x 6 pixels")
    return _chain(
        input_shape,
        layers.Conv2D(options.filters[0], 3, activation="relu", data_format=LAYOUT, name="conv1"),
        layers.Conv2D(options.filters[1], 3, activation="relu", data_format=LAYOUT, name="conv2"),
        layers.MaxPooling2D(2, data_format=LAYOUT, name="pool"),
        drop(options.conv_dropout, name="dropout1"),
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(options.units, activation="relu", name="dense1"),
        layers.Dropout(options.dropout, name="dropout2"),
        layers.Dense(classes, name="logits"),
    )


def cnn_unpooled(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 5. The CNN of Guliani, Enhancing Robustness of Machine Learning
    Models Against Adversarial Attacks: ``conv_dropout`` follows each convolution, ``dropout`` the dense layer."""
    if min(input_shape[1:]) < 5:
        raise ValueError("two 3x3 convolutions need 5 x 5 pixels")
    return _chain(
        input_shape,
        layers.Conv2D(options.filters[0], 3, activation="relu", data_format=LAYOUT, name="conv1"),
        layers.Dropout(options.conv_dropout, name="dropout1"),
        layers.Conv2D(options.filters[1], 3, activation="relu", data_format=LAYOUT, name="conv2"),
        layers.Dropout(options.conv_dropout, name="dropout2"),
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(options.units, activation="relu", name="dense"),
        layers.Dropout(options.dropout, name="dropout3"),
        layers.Dense(classes, name="logits"),
    )


def cnn_batchnorm(input_shape: tuple[int, int, int], classes: int, options: Convolutional = CONVOLUTIONAL) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 4. The CNN of Campbell and Lasselle, Enhancing the Robustness of
    Deep Neural Networks, whose text has the order of the layers but not their sizes: those are ours."""
    if min(input_shape[1:]) < 4:
        raise ValueError("two poolings need 4 x 4 pixels")
    return _chain(
        input_shape,
        *_normed_block(1, options.filters[0], options.conv_dropout),
        *_normed_block(2, options.filters[1], options.conv_dropout),
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(options.units, activation="relu", name="dense1"),
        layers.Dropout(options.dropout, name="dropout3"),
        layers.Dense(classes, name="logits"),
    )


def _normed_block(number: int, filters: int, dropout: float) -> list[Any]:
    return [
        layers.Conv2D(filters, 3, padding="same", data_format=LAYOUT, name=f"conv{number}"),
        # torch's constants; its momentum of .1 is what comes in, Keras' what stays
        layers.BatchNormalization(axis=-1, epsilon=1e-5, momentum=0.9, name=f"bn{number}"),
        layers.ReLU(name=f"relu{number}"),
        layers.Dropout(dropout, name=f"dropout{number}"),
        layers.MaxPooling2D(2, data_format=LAYOUT, name=f"pool{number}"),
    ]


def dnn(input_shape: tuple[int, int, int], classes: int, options: Dense = DENSE) -> Any:
    """(N, H, W, C) -> (N, classes); ``dropout`` follows each dense layer."""
    return _chain(
        input_shape,
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(options.units[0], activation="relu", name="dense1"),
        layers.Dropout(options.dropout, name="dropout1"),
        layers.Dense(options.units[1], activation="relu", name="dense2"),
        layers.Dropout(options.dropout, name="dropout2"),
        layers.Dense(classes, name="logits"),
    )


def rnn(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> Any:
    """(N, H, W, C) -> (N, classes); each row is a time step of W * C features, pixel by pixel.

    ``units`` has the cell, ``dense`` the layer after it; ``dropout`` lies between the two.
    """
    return _rows(input_shape, classes, layers.LSTM(options.units, name="lstm"), options.dense, options.dropout)


def gru(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> Any:
    """As ``rnn``, with a GRU."""
    return _rows(
        input_shape, classes, layers.GRU(options.units, reset_after=True, name="gru"), options.dense, options.dropout
    )


def simple_rnn(input_shape: tuple[int, int, int], classes: int, options: Recurrent = RECURRENT) -> Any:
    """As ``rnn``, with the plain cell, tanh."""
    return _rows(
        input_shape, classes, layers.SimpleRNN(options.units, name="simple_rnn"), options.dense, options.dropout
    )


def mobilenet_v2(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 32."""
    channels, height, width = input_shape
    return keras.applications.MobileNetV2(
        input_shape=(height, width, channels), weights=None, classes=classes, classifier_activation=None
    )


mobilenet_v2_keras = mobilenet_v2


def _rows(input_shape: tuple[int, int, int], classes: int, cell: Any, dense: int, dropout: float) -> Any:
    channels, height, width = input_shape
    return _chain(
        input_shape,
        layers.Reshape((height, width * channels), name="rows"),
        cell,
        *([layers.Dropout(dropout, name="dropout")] if dropout else []),
        layers.Dense(dense, activation="relu", name="dense1"),
        layers.Dense(classes, name="logits"),
    )


def _chain(input_shape: tuple[int, int, int], *parts: Any) -> Any:
    channels, height, width = input_shape
    inputs = x = layers.Input((height, width, channels))
    for part in parts:
        x = part(x)
    # not a Sequential: that would put its own, numbered name in front of the path of every variable
    return keras.Model(inputs, x)
