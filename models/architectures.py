"""Networks by name: what sparring ships, what torchvision has, and what other packages register.

Another package adds an architecture through the entry-point group ``sparring.models``: an ``Architecture``, found by
the name of the entry point. No framework is imported until a network is built, but for torchvision's names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparring.adapters.errors import InputError, unknown

Builder: TypeAlias = Callable[[tuple[int, int, int], int], Any]
"""(channels, height, width), classes -> an untrained network that gives logits (N, classes).

A torch module takes float32 (N, C, H, W), a Keras model (N, H, W, C), both in [0, 1]."""


@dataclass(frozen=True)
class Architecture:
    """A network by name. ``builders`` maps ``torch`` and ``keras`` to a builder or its place, ``module:name``."""

    name: str
    description: str
    builders: Mapping[str, Builder | str]

    @property
    def frameworks(self) -> tuple[str, ...]:
        return tuple(self.builders)

    def build(self, framework: str, input_shape: tuple[int, int, int], classes: int) -> Any:
        """A new network of ``torch`` or ``keras``. Raises ``InputError`` if it can't take images of that shape."""
        builder = self.builders[framework]
        if isinstance(builder, str):
            module, _, function = builder.partition(":")
            builder = getattr(importlib.import_module(module), function)
        try:
            return builder(input_shape, classes)
        except (ValueError, TypeError, RuntimeError) as exc:
            shape = " x ".join(map(str, input_shape))
            raise InputError(f"{self.name} can't be built for images of {shape} and {classes} classes: {exc}") from exc


def _shipped(
    name: str, description: str, torch: str = "torch_architectures", keras: str = "keras_architectures"
) -> Architecture:
    return Architecture(
        name, description, {"torch": f"sparring.models.{torch}:{name}", "keras": f"sparring.models.{keras}:{name}"}
    )


_TORCHVISION = {"torch": "torchvision_architectures", "keras": "keras_torchvision"}
SHIPPED = {
    architecture.name: architecture
    for architecture in (
        _shipped("cnn", "two 3x3 convolutions (32, 64), max-pooling, a dense layer of 128; from 8x8 pixels"),
        _shipped("dnn", "two dense layers, 256 and 128"),
        _shipped("rnn", "an LSTM of 128 over the rows, a dense layer of 64"),
        _shipped("gru", "as rnn, with a GRU"),
        _shipped("simple_rnn", "as rnn, with the plain cell, tanh"),
        _shipped("resnet18", "torchvision's in both", **_TORCHVISION),
        _shipped("resnet50", "torchvision's in both", **_TORCHVISION),
        _shipped(
            "mobilenet_v2",
            "torchvision's in torch, keras.applications' in Keras; weights: imagenet-mobilenet in both",
            torch="torchvision_architectures",
        ),
        _shipped("mobilenet_v2_torchvision", "torchvision's in both", **_TORCHVISION),
        _shipped("mobilenet_v2_keras", "keras.applications' in both"),
    )
}


def find(name: str, framework: str) -> Architecture:
    """The architecture of that name for ``torch``, ``keras`` or Keras on a backend (``keras-torch``).

    Raises ``InputError`` for a name that is not known, nearest names first, and for one that the framework lacks.
    """
    family = framework.partition("-")[0]
    architecture = SHIPPED.get(name) or _registered().get(name) or _torchvision().get(name)
    if architecture is None:
        names = [*SHIPPED, *_registered(), *_torchvision()]
        raise InputError(unknown("architecture", name, names))
    if family not in architecture.frameworks:
        raise InputError(
            f"architecture {name!r} is there for {', '.join(architecture.frameworks)}, not for {framework}"
        )
    return architecture


def catalogue() -> list[Architecture]:
    """Every architecture that can be named, by name. Imports torchvision."""
    everything = {**_torchvision(), **_registered(), **SHIPPED}
    return [everything[name] for name in sorted(everything)]


def _registered() -> dict[str, Architecture]:
    found = {point.name: point.load() for point in importlib.metadata.entry_points(group="sparring.models")}
    for name, architecture in found.items():
        if not isinstance(architecture, Architecture):
            raise InputError(
                f"the entry point {name!r} of sparring.models is no Architecture but a {type(architecture)}"
            )
    return found


def _torchvision() -> dict[str, Architecture]:
    from sparring.models import torchvision_architectures

    return {
        name: Architecture(name, "torchvision", {"torch": torchvision_architectures.from_torchvision(name)})
        for name in torchvision_architectures.torchvision_names()
    }
