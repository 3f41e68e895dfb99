"""Where images come from: arrays, a folder of pictures or a torchvision data set, each as a ``Pool``.

A pool holds the labels of one part of a data set and a function that fetches chosen images, so that a sample can be
drawn before a single picture is decoded: memory grows with the sample, not with the data set.
"""

from __future__ import annotations

import inspect
import math
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from sparring.adapters import arrays
from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images, Labels
from sparring.models.data import class_mapping, picture_cache
from sparring.models.data.class_mapping import MappingFile
from sparring.models.spec import DataSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Split: TypeAlias = Literal["train", "test"]
Indices: TypeAlias = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)``."""

DEFAULT_CROP = 224
TIMEOUT_SECONDS = 15.0
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PICTURES = ("resize", "crop", "interpolation", "transforms")
"""The keys that say how a picture becomes an image."""
PARTS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "valid", "validation")}

Parts: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""The arguments of a torchvision class that pick its training and its test part."""

_BY_FLAG: Parts = ({"train": True}, {"train": False})
_BY_TEST: Parts = ({"split": "train"}, {"split": "test"})
_BY_VAL: Parts = ({"split": "train"}, {"split": "val"})
_BY_TRAINVAL: Parts = ({"split": "trainval"}, {"split": "test"})

TORCHVISION: dict[str, tuple[str, Parts | None]] = {
    "caltech101": ("Caltech101", None),
    "caltech256": ("Caltech256", None),
    "cifar10": ("CIFAR10", _BY_FLAG),
    "cifar100": ("CIFAR100", _BY_FLAG),
    "clevr-classification": ("CLEVRClassification", _BY_VAL),
    "country211": ("Country211", _BY_TEST),
    "dtd": ("DTD", _BY_TEST),
    "emnist": ("EMNIST", ({"split": "balanced", "train": True}, {"split": "balanced", "train": False})),
    "eurosat": ("EuroSAT", None),
    "fashion-mnist": ("FashionMNIST", _BY_FLAG),
    "fer2013": ("FER2013", _BY_TEST),
    "fgvc-aircraft": ("FGVCAircraft", _BY_TRAINVAL),
    "flowers102": ("Flowers102", _BY_TEST),
    "food101": ("Food101", _BY_TEST),
    "gtsrb": ("GTSRB", _BY_TEST),
    "imagenet": ("ImageNet", _BY_VAL),
    "imagenette": ("Imagenette", _BY_VAL),
    "inaturalist": ("INaturalist", ({"version": "2021_train_mini"}, {"version": "2021_valid"})),
    "kmnist": ("KMNIST", _BY_FLAG),
    "lfw-people": ("LFWPeople", _BY_TEST),
    "mnist": ("MNIST", _BY_FLAG),
    "omniglot": ("Omniglot", ({"background": True}, {"background": False})),
    "oxford-iiit-pet": ("OxfordIIITPet", _BY_TRAINVAL),
    "pcam": ("PCAM", _BY_TEST),
    "places365": ("Places365", ({"split": "train-standard", "small": True}, {"split": "val", "small": True})),
    "qmnist": ("QMNIST", _BY_FLAG),
    "rendered-sst2": ("RenderedSST2", _BY_TEST),
    "semeion": ("SEMEION", None),
    "stanford-cars": ("StanfordCars", _BY_TEST),
    "stl10": ("STL10", _BY_TEST),
    "sun397": ("SUN397", None),
    "svhn": ("SVHN", _BY_TEST),
    "usps": ("USPS", _BY_FLAG),
}
"""Every labelled image data set of torchvision: our name -> its class and its parts (None: no official ones)."""


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


def stratified(labels: Labels, samples: int, rng: np.random.Generator) -> Indices:
    """Indices of ``samples`` images, each class with its share; the largest remainders take what rounding leaves."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = samples * counts / len(labels)
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: samples - quota.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(inverse == c))[:k] for c, k in enumerate(quota)]
    return rng.permutation(np.concatenate(chosen))


def fixed_part(labels: Labels, split: Split) -> Indices:
    """The indices of one part where there are no official ones: always the same fifth, by class, is the test part."""
    test = stratified(labels, round(len(labels) / 5), np.random.default_rng(0))
    return np.sort(test) if split == "test" else np.setdiff1d(np.arange(len(labels)), test)


# --- arrays ---------------------------------------------------------------------------------------------------------


def from_npz(path: Path, spec: DataSpec, split: Split) -> Pool:
    """A pool of an .npz file: x_train, y_train, x_test, y_test, or x, y (a test part alone), as for ``from_arrays``.

    Class names are the lines of ``class_names.txt`` beside the file. Raises ``InputError`` for a file that is missing,
    damaged, pickled or lacks arrays.
    """
    refuse(spec, str(path))
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is not an .npz archive but a single array")
        with archive:
            keys = set(archive.files)
            suffix = f"_{split}" if {f"x_{split}", f"y_{split}"} & keys else ""
            for key in (f"x{suffix}", f"y{suffix}"):
                if key not in keys:
                    held = ", ".join(sorted(keys)) or "nothing"
                    wanted = "wanted x_train, y_train, x_test, y_test, or x, y"
                    raise InputError(f"{path} has no array {key!r} for the {split} part: it holds {held}; {wanted}")
            if not suffix and split == "train":
                raise NoPart(f"{path} has no training part: it holds x, y; training needs x_train, y_train")
            x, y = archive[f"x{suffix}"], archive[f"y{suffix}"]
            # the classes are those of both parts: a small test part need not hold every class
            known = [archive[key] for key in sorted(keys & {"y", "y_train", "y_test"})]
            if not all(isinstance(array, np.ndarray) for array in (x, y, *known)):  # NumPy hands over plain bytes
                raise ValueError("it holds files that are no arrays")
    except InputError:
        raise
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as exc:
        pickled = "pickle" in str(exc)
        why = "it holds pickled objects, which are never loaded" if pickled else f"damaged or not an .npz file ({exc})"
        raise InputError(f"{path} can't be read: {why}") from exc
    names = class_names(path.parent)
    if names is None:
        highest = max((int(labels.max()) for labels in known if labels.dtype.kind in "iu" and labels.size), default=-1)
        names = tuple(map(str, range(highest + 1)))
    return from_arrays(x, y, split, names or None, str(path))


def from_arrays(
    x: npt.NDArray[Any], y: npt.NDArray[Any], split: Split, names: tuple[str, ...] | None, what: str
) -> Pool:
    """A pool of arrays: images uint8 0..255 or float in [0, 1], (N, H, W, C), (N, C, H, W) or (N, H, W); labels (N,) or
    (N, 1), integers from 0. Raises ``InputError``, which begins with ``what``, for anything else."""
    if x.ndim not in (3, 4):
        raise InputError(f"{what}: the images have shape {x.shape}; wanted (N, H, W, C), (N, C, H, W) or (N, H, W)")
    if not x.size:
        raise InputError(f"{what}: the {split} part is empty: its images have shape {x.shape}")
    if x.dtype.kind == "f":
        if bad := int(np.count_nonzero(~np.isfinite(x))):
            raise InputError(f"{what}: the images of the {split} part hold {bad} values that are NaN or infinite")
        if x.min() < 0 or x.max() > 1:
            span = f"[{x.min():g}, {x.max():g}]"
            raise InputError(f"{what}: the images lie in {span}; wanted floats in [0, 1], or uint8 in 0..255")
    elif x.dtype != np.uint8:
        raise InputError(f"{what}: the images have dtype {x.dtype}; wanted uint8 (0..255) or floats in [0, 1]")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        hint = ", which looks one-hot: use y.argmax(1)" if y.ndim == 2 else ""
        raise InputError(f"{what}: the labels have shape {y.shape}{hint}; wanted (N,)")
    if y.dtype.kind not in "iu":
        raise InputError(f"{what}: the labels have dtype {y.dtype}; wanted integers, class indices from 0")
    if len(x) != len(y):
        raise InputError(f"{what}: {len(x)} images but {len(y)} labels in the {split} part")
    names = names or tuple(map(str, range(int(y.max()) + 1)))
    if y.min() < 0 or y.max() >= len(names):
        span = f"they go from {y.min()} to {y.max()}, and there are {len(names)} classes"
        raise InputError(f"{what}: labels out of range: {span}")
    channels_first = x[:, None] if x.ndim == 3 else np.moveaxis(x, channel_axis(x.shape, what), 1)
    return Pool(y.astype(np.int64), names, lambda chosen, _: _as_float(channels_first[chosen]))


def channel_axis(shape: tuple[int, ...], what: str) -> int:
    """The axis of the channels of a batch of images: the one of 1, 3 or 4. ``InputError`` if both or none are."""
    candidates = [axis for axis in (1, 3) if shape[axis] in (1, 3, 4)]
    if len(candidates) == 1:
        return candidates[0]
    problem = "the channels could be first or last" if candidates else "neither axis 1 nor 3 has 1, 3 or 4 channels"
    raise InputError(f"{what}: images of shape {shape}: {problem}; wanted (N, H, W, C), (N, C, H, W) or (N, H, W)")


def class_names(folder: Path) -> tuple[str, ...] | None:
    """The lines of ``class_names.txt`` in the folder, or None where there is none."""
    listing = folder / "class_names.txt"
    return tuple(listing.read_text(encoding="utf-8").splitlines()) if listing.is_file() else None


def refuse(spec: DataSpec, what: str, keys: Sequence[str] = (*PICTURES, "mapping"), has: str = "") -> None:
    """Raise ``InputError`` if the spec has one of the keys, which are for folders of pictures."""
    for key in keys:
        if getattr(spec, key) is not None:
            raise InputError(f"data.{key} is for folders of pictures; {what} {has or 'holds images of one size'}")


def _as_float(x: npt.NDArray[Any]) -> Images:
    floats = np.ascontiguousarray(x, dtype=np.float32)
    return floats / np.float32(255) if x.dtype == np.uint8 else floats


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
        held = ", ".join(p.name for p in parts.values()) or "class folders only"
        raise NoPart(f"{path} has no {split} part: it holds {held}; wanted the subfolders train and test")
    # one numbering for both parts: a class that is absent from one must not shift the others
    folders = sorted({name for root in parts.values() or [path] for name in class_folders(root)})
    root = parts.get(split, path)
    said = None if mapping is None else class_mapping.mapped(mapping, folders, str(spec.mapping))
    labels = {name: label for label, name in enumerate(folders)} if said is None else said.labels
    files = [(file, name) for name in labels for file in _pictures(root / name)]
    if not files:
        raise InputError(f"{root} holds no pictures; wanted a folder a class with files {', '.join(IMAGE_SUFFIXES)}")
    if said is None:
        names = class_names(path) or class_mapping.names_of(folders) or tuple(folders)
        if len(names) != len(folders):
            listing = path / "class_names.txt"
            raise InputError(f"{listing} names {len(names)} classes, but there are {len(folders)} folders")
    else:
        names = tuple(name for _, name in class_mapping.imagenet())

    def fetch(chosen: Indices, progress: Progress | None) -> Images:
        return _decode([files[i][0] for i in chosen], _open, spec, path.name, progress)

    pool = Pool(np.array([labels[name] for _, name in files], dtype=np.int64), names, fetch, facts=picture_facts(spec))
    if said is None:
        return pool
    classes = {folder: f"{label} {names[label]}" for folder, label in labels.items()}
    groups = {group: [folder for folder in labels if said.groups.get(folder) == group] for group in said.group_names}
    told = {"mapping": spec.mapping, "classes": classes, "groups": groups, "left_out": said.left_out}
    of_each = np.array([said.groups.get(name, "") for _, name in files])
    return replace(pool, groups=of_each, group_names=said.group_names, facts={**pool.facts, **told})


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


def _decode(
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


# --- torchvision ----------------------------------------------------------------------------------------------------


def from_torchvision(name: str, spec: DataSpec, split: Split, folder: Path, download: bool) -> Pool:
    """A pool of a data set of the table above, kept in ``folder`` and downloaded there when it is absent.

    Raises ``OSError`` with the reason when it is absent and can't be had, ``InputError`` for data that can't be used.
    """
    class_name, parts = TORCHVISION[name]
    refuse(spec, name, ("mapping",), "has classes of its own")
    data = _torchvision(class_name, parts[0 if split == "train" else 1] if parts else {}, folder, download)
    return from_torchvision_data(data, parts is None, spec, split, name)


def from_torchvision_data(data: Any, split_here: bool, spec: DataSpec, split: Split, name: str) -> Pool:
    """A pool of a torchvision data set object; ``split_here`` where it comes without official parts."""
    held = getattr(data, "classes", None) or getattr(data, "categories", None) or ()
    # ImageNet's classes have several names each
    names = tuple(str(c[0] if isinstance(c, tuple) else c) for c in held) or None
    images = getattr(data, "data", None)
    if images is not None and not isinstance(images, (list, tuple)):
        refuse(spec, name)
        # ``labels`` is what SVHN and STL10 call them; STL10 marks what has no label by -1
        y = np.asarray(data.targets if hasattr(data, "targets") else data.labels)
        pool = from_arrays(np.asarray(images), y, split, names, name)
    else:
        labels = _labels(data)
        names = names or tuple(map(str, range(int(labels.max()) + 1)))

        def fetch(chosen: Indices, progress: Progress | None) -> Images:
            return _decode(list(map(int, chosen)), lambda i: data[i][0], spec, name, progress)

        pool = Pool(labels, names, fetch, facts=picture_facts(spec))
    if not split_here:
        return pool
    part = fixed_part(pool.labels, split)
    return replace(pool, labels=pool.labels[part], fetch=lambda chosen, progress: pool.fetch(part[chosen], progress))


def _labels(data: Any) -> Labels:
    for attribute in ("targets", "_labels", "labels", "y"):
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data):
            return np.asarray(found, dtype=np.int64)
    # no list of labels: the last resort decodes every picture once
    return np.array([int(data[i][1]) for i in range(len(data))], dtype=np.int64)


def _torchvision(class_name: str, arguments: dict[str, Any], folder: Path, download: bool) -> Any:
    from sparring.adapters.frameworks.coexistence import guard

    guard()
    import torchvision.datasets

    make = getattr(torchvision.datasets, class_name)
    can_download = "download" in _parameters(make)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # one process downloads, the others wait for its files
        with FileLock(folder / ".lock"), short_timeout():
            try:
                return make(root=str(folder), **arguments, **({"download": False} if can_download else {}))
            except (RuntimeError, OSError, ValueError):
                if not (download and can_download):
                    raise
                return make(root=str(folder), download=True, **arguments)
    except ImportError as exc:
        raise InputError(f"torchvision's data set {class_name} needs a package that is not installed: {exc}") from exc
    except (RuntimeError, OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise OSError(str(exc) or type(exc).__name__) from exc


def _parameters(make: Any) -> set[str]:
    """The parameters of a data set's constructor and, where it passes **kwargs on, of its base's."""
    names: set[str] = set()
    for cls in inspect.getmro(make):
        parameters = inspect.signature(cls).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return names
    return names


@contextmanager
def short_timeout() -> Iterator[None]:
    """Without a network, torchvision's urllib waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
