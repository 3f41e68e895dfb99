"""Networks by name: what sparring ships, what torchvision has, and what other packages register.

Another package adds an architecture through the entry-point group ``sparring.models``: an ``Architecture``, found by
the name of the entry point. No framework is imported until a network is built, but for torchvision's names.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

from sparring.adapters.errors import InputError, unknown
from sparring.models.architectures.architecture import Architecture, checked, parse
from sparring.models.architectures.options import Convolutional, Dense, Options, Recurrent


def _shipped(
    name: str,
    description: str,
    options: type[Options] = Options,
    torch: str = "torch_networks",
    keras: str = "keras_networks",
) -> Architecture:
    home = "sparring.models.architectures"
    builders = {"torch": f"{home}.{torch}:{name}", "keras": f"{home}.{keras}:{name}"}
    return Architecture(name, description, builders, options)


_TORCHVISION, _IN_KERAS = "torchvision_networks", "torchvision_in_keras"
SHIPPED = {
    architecture.name: architecture
    for architecture in (
        _shipped(
            "cnn", "two 3x3 convolutions (32, 64), max-pooling, a dense layer of 128; from 8x8 pixels", Convolutional
        ),
        _shipped(
            "cnn_dropout2d", "as cnn, dropping whole channels after the pooling; PyTorch's MNIST example", Convolutional
        ),
        _shipped(
            "cnn_unpooled",
            "as cnn, without pooling, dropout after each convolution; the CNN of Guliani's study",
            Convolutional,
        ),
        _shipped(
            "cnn_batchnorm",
            "two blocks of padded 3x3 convolution (32, 64), batch normalization, dropout and max-pooling, a dense "
            "layer of 128; the CNN of Campbell and Lasselle, who don't print the channels",
            Convolutional,
        ),
        _shipped("dnn", "two dense layers, 256 and 128", Dense),
        _shipped("rnn", "an LSTM of 128 over the rows, a dense layer of 64", Recurrent),
        _shipped("gru", "as rnn, with a GRU", Recurrent),
        _shipped("simple_rnn", "as rnn, with the plain cell, tanh", Recurrent),
        _shipped("resnet18", "torchvision's in both", torch=_TORCHVISION, keras=_IN_KERAS),
        _shipped("resnet50", "torchvision's in both", torch=_TORCHVISION, keras=_IN_KERAS),
        _shipped(
            "mobilenet_v2",
            "torchvision's in torch, keras.applications' in Keras; weights: imagenet-mobilenet in both",
            torch=_TORCHVISION,
        ),
        _shipped("mobilenet_v2_torchvision", "torchvision's in both", torch=_TORCHVISION, keras=_IN_KERAS),
        _shipped("mobilenet_v2_keras", "keras.applications' in both"),
    )
}


def find(name: str, framework: str) -> Architecture:
    """The architecture of that name for ``torch``, ``keras`` or Keras on a backend (``keras-torch``).

    Raises ``InputError`` for a name that is not known, nearest names first, for one that the framework lacks, and for
    parameters that its builder doesn't take.
    """
    family = framework.partition("-")[0]
    base, given = parse(name)
    architecture = SHIPPED.get(base) or _registered().get(base) or _torchvision().get(base)
    if architecture is None:
        names = [*SHIPPED, *_registered(), *_torchvision()]
        raise InputError(unknown("architecture", base, names))
    if family not in architecture.frameworks:
        raise InputError(
            f"architecture {base!r} is there for {', '.join(architecture.frameworks)}, not for {framework}"
        )
    if given:
        architecture = replace(architecture, name=name, given=checked(name, given, architecture.parameters(family)))
    return architecture


def catalogue() -> list[Architecture]:
    """Every architecture that can be named, by name. Imports torchvision."""
    everything = {**_torchvision(), **_registered(), **SHIPPED}
    return [everything[name] for name in sorted(everything)]


def _registered() -> dict[str, Architecture]:
    architectures = {point.name: point.load() for point in importlib.metadata.entry_points(group="sparring.models")}
    for name, architecture in architectures.items():
        if not isinstance(architecture, Architecture):
            raise InputError(
                f"the entry point {name!r} of sparring.models is no Architecture but a {type(architecture)}"
            )
    return architectures


def _torchvision() -> dict[str, Architecture]:
    from sparring.models.architectures import torchvision_networks

    return {
        name: Architecture(name, "torchvision", {"torch": torchvision_networks.from_torchvision(name)})
        for name in torchvision_networks.torchvision_names()
    }
