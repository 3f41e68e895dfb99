"""Where images come from: arrays, a folder of pictures or a torchvision data set, each as a ``Pool``.

A pool holds the labels of one part of a data set and a function that fetches chosen images, so that a sample can be
drawn before a single picture is decoded: memory grows with the sample, not with the data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images
from sparring.models.data import class_mapping, picture_cache
from sparring.models.data.class_mapping import MappingFile
from sparring.models.spec import DataSpec

if TYPE_CHECKING:
    from PIL.Image import Image
from sparring.models.data.pool import PARTS, Indices, NoPart, Pool, Progress, Split, class_names

DEFAULT_CROP = 224
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


# --- pictures -------------------------------------------------------------------------------------------------------


def class_folders(root: Path) -> list[str]:
    """The names of the class folders, sorted: the position is the class index."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def part_folder(root: Path, split: Split) -> Path | None:
    """The subfolder of a split. A class that happens to be called 'train' holds files; a split holds folders."""
    named = (root / name for name in PARTS[split])
    return next((p for p in named if p.is_dir() and class_folders(p)), None)


def is_picture_folder(folder: Path) -> bool:
    """Whether the folder is in ImageFolder layout, with or without train and test subfolders."""
    if not folder.is_dir():
        return False
    roots = [root for split in PARTS if (root := part_folder(folder, split))] or [folder]
    return any(_pictures(root / name) for root in roots for name in class_folders(root)[:1])


def from_folder(path: Path, spec: DataSpec, split: Split, mapping: MappingFile | None = None) -> Pool:
    """A pool of RGB pictures in ImageFolder layout, optionally with train/ and test/ (or val/) subfolders.

    With a mapping the classes are those of ImageNet, and folders that it has no class for are left out. Raises
    ``InputError`` for a part that isn't there, a folder without pictures, and, once fetched, for a broken picture or
    one that is smaller than the crop.
    """
    parts = {part: root for part in PARTS if (root := part_folder(path, part))}
    if split not in parts and (parts or split == "train"):
        parts_there = ", ".join(p.name for p in parts.values()) or "class folders only"
        raise NoPart(f"{path} has no {split} part: it holds {parts_there}; wanted the subfolders train and test")
    # one numbering for both parts: a class that is absent from one must not shift the others
    folders = sorted({name for root in parts.values() or [path] for name in class_folders(root)})
    root = parts.get(split, path)
    mapped = None if mapping is None else class_mapping.mapped(mapping, folders, str(spec.mapping))
    labels = {name: label for label, name in enumerate(folders)} if mapped is None else mapped.labels
    files = [(file, name) for name in labels for file in _pictures(root / name)]
    if not files:
        raise InputError(f"{root} holds no pictures; wanted a folder a class with files {', '.join(IMAGE_SUFFIXES)}")
    if mapped is None:
        names = class_names(path) or class_mapping.names_of(folders) or tuple(folders)
        if len(names) != len(folders):
            listing = path / "class_names.txt"
            raise InputError(f"{listing} names {len(names)} classes, but there are {len(folders)} folders")
    else:
        names = tuple(name for _, name in class_mapping.imagenet())

    def fetch(chosen: Indices, progress: Progress | None) -> Images:
        return decode([files[i][0] for i in chosen], _open, spec, path.name, progress)

    pool = Pool(np.array([labels[name] for _, name in files], dtype=np.int64), names, fetch, facts=picture_facts(spec))
    if mapped is None:
        return pool
    classes = {folder: f"{label} {names[label]}" for folder, label in labels.items()}
    groups = {
        group: [folder for folder in labels if mapped.groups.get(folder) == group] for group in mapped.group_names
    }
    facts_of_mapping = {"mapping": spec.mapping, "classes": classes, "groups": groups, "left_out": mapped.left_out}
    of_each = np.array([mapped.groups.get(name, "") for _, name in files])
    return replace(pool, groups=of_each, group_names=mapped.group_names, facts={**pool.facts, **facts_of_mapping})


def picture_facts(spec: DataSpec) -> dict[str, Any]:
    """How pictures become images, as plain JSON values; None where a step isn't taken."""
    whole = spec.size is not None and spec.crop is None and spec.resize is None
    resizes = spec.resize is not None or spec.size is not None
    return {
        "transforms": spec.transforms,
        "resize": spec.resize,
        "crop": None if whole else spec.crop or DEFAULT_CROP,
        "size": spec.size,
        "interpolation": (spec.interpolation or "bilinear") if resizes else None,
    }


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _open(path: Path) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as exc:
        raise InputError(f"{path} is not a readable picture: {exc}") from exc


def decode(
    items: list[Any], opened: Callable[[Any], Image], spec: DataSpec, what: str, progress: Progress | None
) -> Images:
    """RGB pictures as float32 (N, 3, side, side), cropped; where only a size is asked for, that of the whole pictures.

    ``opened`` turns an item into a picture.
    """
    whole = spec.size if spec.crop is None and spec.resize is None else None
    side = whole or spec.crop or DEFAULT_CROP

    def fill(x: Images) -> None:
        for i, item in enumerate(items):
            picture = opened(item).convert("RGB")
            name = item if isinstance(item, Path) else f"image {item} of {what}"
            picture = _resized(picture, (whole, whole), spec) if whole else _fit(picture, spec, side, name)
            x[i] = np.moveaxis(np.asarray(picture, dtype=np.uint8), 2, 0).astype(np.float32) / np.float32(255)
            arrays.let_go(x)
            if progress:
                progress(i + 1, len(items), f"loading {what}")

    if items and all(isinstance(item, Path) for item in items):
        return picture_cache.images(items, (3, side, side), picture_facts(spec), fill)
    x = arrays.empty_like(np.broadcast_to(np.float32(0), (len(items), 3, side, side)))
    fill(x)
    return x


def _resized(picture: Image, sides: tuple[int, int], spec: DataSpec) -> Image:
    from PIL.Image import Resampling

    return picture.resize(sides, Resampling.BICUBIC if spec.interpolation == "bicubic" else Resampling.BILINEAR)


def _fit(picture: Image, spec: DataSpec, crop: int, what: object) -> Image:
    """The pixels of torchvision's ``Resize`` (antialias), then a centre crop.

    Where the margins can't be equal, the smaller is left and above, as Keras has it; with ``transforms``, which are
    torchvision's, its ``CenterCrop`` is taken to the letter, which rounds half to even.
    """
    if spec.resize:
        short = min(picture.size)
        width, height = (int(spec.resize * side / short) for side in picture.size)
        picture = _resized(picture, (width, height), spec)
    width, height = picture.size
    if min(width, height) < crop:
        raise InputError(
            f"{what} is {width} x {height} pixels, smaller than the crop of {crop}: "
            f"set data.crop to {min(width, height)} or less, or data.resize to {crop} or more"
        )
    rounded = round if spec.transforms else math.floor
    left, top = rounded((width - crop) / 2), rounded((height - crop) / 2)
    return picture.crop((left, top, left + crop, top + crop))
