"""The networks in Keras, for every backend, with logits as outputs. The names of the layers are those of torch's."""

from __future__ import annotations

from typing import Any

from sparring.adapters.coexistence import guard

guard()

import keras  # noqa: E402
from keras import layers  # noqa: E402

LAYOUT = "channels_last"
"""Whatever Keras is configured for."""


def cnn(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 6."""
    if min(input_shape[1:]) < 6:  # not every release of Keras refuses an empty layer
        raise ValueError("two 3x3 convolutions and a pooling need 6 x 6 pixels")
    return _chain(
        input_shape,
        layers.Conv2D(32, 3, activation="relu", data_format=LAYOUT, name="conv1"),
        layers.Conv2D(64, 3, activation="relu", data_format=LAYOUT, name="conv2"),
        layers.MaxPooling2D(2, data_format=LAYOUT, name="pool"),
        layers.Dropout(0.25, name="dropout1"),
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(128, activation="relu", name="dense1"),
        layers.Dropout(0.5, name="dropout2"),
        layers.Dense(classes, name="logits"),
    )


def dnn(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, C) -> (N, classes)."""
    return _chain(
        input_shape,
        layers.Flatten(data_format=LAYOUT, name="flatten"),
        layers.Dense(256, activation="relu", name="dense1"),
        layers.Dropout(0.25, name="dropout1"),
        layers.Dense(128, activation="relu", name="dense2"),
        layers.Dropout(0.25, name="dropout2"),
        layers.Dense(classes, name="logits"),
    )


def rnn(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, C) -> (N, classes); each row is a time step of W * C features, pixel by pixel."""
    return _rows(input_shape, classes, layers.LSTM(128, name="lstm"))


def gru(input_shape: tuple[int, int, int], classes: int) -> Any:
    """As ``rnn``, with a GRU."""
    return _rows(input_shape, classes, layers.GRU(128, reset_after=True, name="gru"))


def simple_rnn(input_shape: tuple[int, int, int], classes: int) -> Any:
    """As ``rnn``, with the plain cell, tanh."""
    return _rows(input_shape, classes, layers.SimpleRNN(128, name="simple_rnn"))


def mobilenet_v2(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, C) -> (N, classes); H and W at least 32."""
    channels, height, width = input_shape
    return keras.applications.MobileNetV2(
        input_shape=(height, width, channels), weights=None, classes=classes, classifier_activation=None
    )


mobilenet_v2_keras = mobilenet_v2


def _rows(input_shape: tuple[int, int, int], classes: int, cell: Any) -> Any:
    channels, height, width = input_shape
    return _chain(
        input_shape,
        layers.Reshape((height, width * channels), name="rows"),
        cell,
        layers.Dense(64, activation="relu", name="dense1"),
        layers.Dense(classes, name="logits"),
    )


def _chain(input_shape: tuple[int, int, int], *parts: Any) -> Any:
    channels, height, width = input_shape
    inputs = x = layers.Input((height, width, channels))
    for part in parts:
        x = part(x)
    # not a Sequential: that would put its own, numbered name in front of the path of every variable
    return keras.Model(inputs, x)
