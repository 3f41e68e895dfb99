"""torchvision's enums of published weights: what they are called, and what they were evaluated with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.frameworks.coexistence import guard

ENUM = re.compile(r"\w+_Weights\.\w+")
BARE = re.compile(r"DEFAULT|\w+_Weights(\.DEFAULT)?")
FACTS = ("weights", "transforms")
"""The keys of what ``facts`` tells."""


@dataclass(frozen=True)
class Transforms:
    """What weights were evaluated with, by their own definition: torchvision's ``weights.transforms()``."""

    resize: int
    """the shorter side, pixels"""
    crop: int
    """the side of the centre crop, pixels"""
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def refuse_bare(name: str, architecture: str | None, key: str) -> None:
    """Raise ``InputError``, which names the members, for an enum without one, and for DEFAULT."""
    if not BARE.fullmatch(name):
        return
    if name != "DEFAULT":
        members = [member for member in _every() if member.startswith(name.removesuffix(".DEFAULT") + ".")]
    else:
        members = list(_members(architecture)) if architecture else []
    valid = f"one of {', '.join(members)}" if members else "a member, as in ResNet50_Weights.IMAGENET1K_V1"
    raise InputError(f"{key}: {name!r} means other weights in other releases of torchvision: write {valid}")


def transforms(enum: str, key: str = "data.transforms") -> Transforms:
    """The transforms of the weights of that enum. ``InputError``, which begins with ``key``, where there is none."""
    refuse_bare(enum, None, key)
    every = _every()
    if enum not in every:
        raise InputError(f"{key}: {unknown('weights enum', enum, every)}")
    return _transforms(every[enum])


def _member(architecture: str, enum: str) -> Any:
    members = _members(architecture)
    if not members:
        raise InputError(f"weights: {architecture} has no published weights {enum}: it is not torchvision's")
    if enum not in members:
        raise InputError(f"weights: {unknown(f'weights of {architecture}', enum, members)}")
    return members[enum]


def _members(architecture: str) -> dict[str, Any]:
    """Name -> member, of one of torchvision's networks; empty for any other."""
    guard()
    import torchvision

    try:
        return {str(member): member for member in torchvision.models.get_model_weights(architecture)}
    except ValueError:
        return {}


@cache
def _every() -> dict[str, Any]:
    """Name -> member, of all classifiers."""
    guard()
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return {name: member for architecture in names for name, member in _members(architecture).items()}


def _transforms(member: Any) -> Transforms:
    preset = member.transforms()
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    return Transforms(resize, crop, preset.interpolation.value, tuple(preset.mean), tuple(preset.std))
