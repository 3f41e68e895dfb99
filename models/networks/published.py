"""torchvision's published weights: by their enum, never by DEFAULT, which means others in another release.

They lie in torch hub's cache and are downloaded there where a network allows it. A file that was put there under the
official name is as good: its digest says which weights were used.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sparring.adapters.errors import InputError, first_line, unknown
from sparring.adapters.frameworks.coexistence import guard
from sparring.models.data import pictures
from sparring.models.networks import weights

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
        known = [member for member in _every() if member.startswith(name.removesuffix(".DEFAULT") + ".")]
    else:
        known = list(_members(architecture)) if architecture else []
    valid = f"one of {', '.join(known)}" if known else "a member, as in ResNet50_Weights.IMAGENET1K_V1"
    raise InputError(f"{key}: {name!r} means other weights in other releases of torchvision: write {valid}")


def transforms(enum: str, key: str = "data.transforms") -> Transforms:
    """The transforms of the weights of that enum. ``InputError``, which begins with ``key``, where there is none."""
    refuse_bare(enum, None, key)
    every = _every()
    if enum not in every:
        raise InputError(f"{key}: {unknown('weights enum', enum, every)}")
    return _transforms(every[enum])


def fetched(architecture: str, enum: str) -> Path:
    """The file of the weights, downloaded to torch hub's cache if it isn't there.

    Raises ``InputError`` for weights of another network, and where they are neither here nor can be downloaded.
    """
    member = _member(architecture, enum)
    path = _place(member)
    if not path.is_file():
        _download(member.url, path)
    return path


def place(architecture: str, enum: str) -> Path:
    """Where the file of the weights is, or would be. Raises ``InputError`` for weights of another network."""
    return _place(_member(architecture, enum))


def facts(architecture: str, enum: str, path: Path, digest: str) -> dict[str, Any]:
    """What a result should say of the weights in a file of that sha256, as plain JSON values.

    ``weights``: the enum, the sha256 of the file and whether it is the one that torchvision publishes, as far as the
    digits in its name tell; ``transforms``: those of the weights' own definition.
    """
    of_file = {"enum": enum, "sha256": digest, "as_published": digest.startswith(_digits(path))}
    own = _transforms(_member(architecture, enum))
    return {
        "weights": of_file,
        "transforms": {
            "resize": own.resize, "crop": own.crop, "interpolation": own.interpolation,
            "mean": list(own.mean), "std": list(own.std),
        },
    }  # fmt: skip


def network(architecture: str, enum: str) -> Any:
    """torchvision's network with these weights, in evaluation mode. Nothing is unpickled.

    Raises ``InputError`` as ``fetched`` does, and for a file that can't be read or doesn't fit.
    """
    import torchvision

    path, member = fetched(architecture, enum), _member(architecture, enum)
    with _never_unpickle():
        try:
            made = torchvision.models.get_model(architecture, weights=member)
        except (pickle.UnpicklingError, zipfile.BadZipFile, *_BROKEN) as exc:
            why = _why(path, torchvision.models.get_model(architecture, weights=None)) or first_line(exc)
            raise InputError(f"weights: {path} can't be loaded as {enum}: {why}") from exc
    return made.eval()


_BROKEN = (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError)


def _why(path: Path, wanted: Any) -> str:
    """What is wrong with the file, in a line."""
    try:
        weights.load_torch(wanted, path)
    except InputError as exc:
        return str(exc).removeprefix(f"weights: {path} ")
    return ""


def _place(member: Any) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name


def _digits(path: Path) -> str:
    """The first digits of the sha256 of the published file, in which its name ends."""
    return path.stem.rpartition("-")[2]


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


def _download(url: str, path: Path) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pictures.short_timeout():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_digits(path))
    except (OSError, RuntimeError) as exc:
        raise InputError(
            f"weights: {path.name} is not here and can't be downloaded ({first_line(exc)}): put {url} at {path}"
        ) from exc


@contextmanager
def _never_unpickle() -> Iterator[None]:
    """torchvision calls torch.load itself; this variable is how it is told ``weights_only``."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
