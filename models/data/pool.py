"""What a data set has to offer before a sample is drawn: labels, class names, and how its images are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images, Labels
from sparring.models.spec import DataSpec

Split: TypeAlias = Literal["train", "test"]
Indices: TypeAlias = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)``."""
PICTURES = ("resize", "crop", "interpolation", "transforms")
"""The keys that say how a picture becomes an image."""
PARTS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "valid", "validation")}


class NoPart(InputError):
    """The data come in one part, and the other was asked for."""


@dataclass(frozen=True)
class Pool:
    """One part of a data set before sampling."""

    labels: Labels
    class_names: tuple[str, ...]
    fetch: Callable[[Indices, Progress | None], Images]
    groups: npt.NDArray[np.str_] | None = None
    """the group of each image, where a mapping has groups; empty where it is in none"""
    group_names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """how the images are made of what lies on the disk: plain JSON values"""


def draw_stratified(labels: Labels, samples: int, rng: np.random.Generator) -> Indices:
    """Indices of ``samples`` images, each class with its share; the largest remainders take what rounding leaves."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = samples * counts / len(labels)
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: samples - quota.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(inverse == c))[:k] for c, k in enumerate(quota)]
    return rng.permutation(np.concatenate(chosen))


def fixed_part(labels: Labels, split: Split) -> Indices:
    """The indices of one part where there are no official ones: always the same fifth, by class, is the test part."""
    test = draw_stratified(labels, round(len(labels) / 5), np.random.default_rng(0))
    return np.sort(test) if split == "test" else np.setdiff1d(np.arange(len(labels)), test)


def class_names(folder: Path) -> tuple[str, ...] | None:
    """The lines of ``class_names.txt`` in the folder, or None where there is none."""
    listing = folder / "class_names.txt"
    return tuple(listing.read_text(encoding="utf-8").splitlines()) if listing.is_file() else None


def refuse(spec: DataSpec, what: str, keys: Sequence[str] = (*PICTURES, "mapping"), has: str = "") -> None:
    """Raise ``InputError`` if the spec has one of the keys, which are for folders of pictures."""
    for key in keys:
        if getattr(spec, key) is not None:
            raise InputError(f"data.{key} is for folders of pictures; {what} {has or 'holds images of one size'}")
