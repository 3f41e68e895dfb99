"""Data sets by name or by path: the images that are attacked, and those that models are trained on.

A name is looked for under ``$SPARRING_DATA``, then in the cache, then downloaded by torchvision. No framework is
imported unless torchvision has to be asked.
"""

from __future__ import annotations

import importlib.metadata
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.protocol import Images, Labels
from sparring.models.data import class_mapping, picture_transforms, pictures, reshaping, sampling
from sparring.models.data.array_files import channel_axis, from_arrays, from_npz
from sparring.models.data.pool import Indices, NoPart, Pool, Progress, Split, class_names, fixed_part, refuse
from sparring.models.data.torchvision_sets import TORCHVISION, from_torchvision
from sparring.models.recipes import array_digest
from sparring.models.spec import DataSpec
from sparring.models.storage import cache_folder, data_folder

Loader: TypeAlias = Callable[[Split], tuple[npt.NDArray[Any], npt.NDArray[Any], Sequence[str] | None]]
"""An entry point of the group ``sparring.datasets``: split -> (x, y, class names or None), as in an .npz."""


@dataclass(frozen=True)
class Dataset:
    """Images with their labels. ``digest`` is the sha256 of dtype, shape and bytes of ``x`` and ``y``."""

    name: str
    x: Images
    """float32 (N, C, H, W), values in [0, 1]"""
    y: Labels
    """int64 (N,), indices into ``class_names``"""
    class_names: tuple[str, ...]
    digest: str
    fit_x: Images | None = None
    """further images, none of which is in ``x``, for attacks that are trained first (``DataSpec.fit``)"""
    fit_y: Labels | None = None
    fit_digest: str = ""
    """as ``digest``, of ``fit_x`` and ``fit_y``"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """how the images are made of what lies on the disk, as plain JSON values: resize, crop, what was left out"""


@dataclass(frozen=True)
class DatasetInfo:
    """One line of ``sparring list datasets``."""

    name: str
    where: str
    """a path, ``embedded``, ``package NAME``, ``download`` or ``missing``"""
    shape: tuple[int, ...] | None = None
    """of one image, (C, H, W); None where only the images themselves would tell"""
    classes: int | None = None


def load(
    spec: DataSpec, *, base: Path, split: Split | None = None, progress: Progress | None = None, download: bool = True
) -> Dataset:
    """The sampled images of the spec's split (or of ``split``); a relative ``path`` starts at ``base``.

    Raises ``InputError`` for data that can't be found, read or used, and for more samples than there are.
    """
    pool = _pool(spec, base, split or spec.split, download)
    chosen, fit = sampling.drawn(pool, spec)
    return _dataset(spec, pool, chosen, progress, fit)


def load_train(
    spec: DataSpec,
    *,
    base: Path,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    download: bool = True,
) -> Dataset:
    """The training part of the same data, or ``samples`` images of it drawn by ``seed``; raises as ``load`` does."""
    pool = _pool(spec, base, "train", download)
    return _dataset(spec, pool, sampling.some(pool.labels, samples, seed, f"train.samples of {spec.label}"), progress)


def peek(spec: DataSpec, *, base: Path, count: int = 4, download: bool = True) -> Dataset:
    """The first images of the sample, at most ``count``: enough to see what the data are. Raises as ``load`` does."""
    pool = _pool(spec, base, spec.split, download)
    return _dataset(spec, pool, sampling.drawn(pool, spec)[0][:count], None)


def size(spec: DataSpec, *, base: Path, download: bool = True) -> int:
    """How many images the spec's split has, whatever sample of it the spec takes. Raises as ``load`` does."""
    return len(_pool(spec, base, spec.split, download).labels)


def of_pictures(spec: DataSpec, base: Path) -> bool:
    """Whether the images are made of a folder of pictures (or of ImageNet), which come in many sizes."""
    if spec.path is not None:
        return (base / Path(spec.path).expanduser()).is_dir()
    if _registered(_key(spec.label)):
        return False
    for root in filter(None, (data_folder(), cache_folder() / "data")):
        folder = next((p for p in sorted(root.glob("*/")) if _key(p.name) == _key(spec.label)), root / spec.label)
        if (folder / f"{folder.name}.npz").is_file():
            return False
        if pictures.is_picture_folder(folder):
            return True
    return _key(spec.label) == "imagenet"


def catalogue() -> list[DatasetInfo]:
    """Every data set that can be named, with what can be told without reading images or importing a framework."""
    infos = {_key(name): DatasetInfo(name, "embedded", (1, 8, 8), 10) for name in EMBEDDED}
    for point in importlib.metadata.entry_points(group="sparring.datasets"):
        infos.setdefault(_key(point.name), DatasetInfo(point.name, f"package {point.value.split('.')[0]}"))
    for root in (data_folder(), cache_folder() / "data"):
        for folder in sorted(root.glob("*/")) if root else []:
            if found := _describe(folder):
                infos.setdefault(_key(folder.name), found)
    for name in TORCHVISION:
        infos.setdefault(_key(name), DatasetInfo(name, "download"))
    infos.setdefault(_key(IMAGENET_SAMPLES), DatasetInfo(IMAGENET_SAMPLES, "missing"))
    return sorted(infos.values(), key=lambda info: info.name)


def _dataset(
    spec: DataSpec, pool: Pool, chosen: Indices, progress: Progress | None, fit: Indices | None = None
) -> Dataset:
    x, y = pool.fetch(chosen, progress), pool.labels[chosen]
    made = Dataset(spec.label, x, y, pool.class_names, array_digest(x, y), facts=pool.facts)
    if fit is None or not len(fit):
        return made
    fit_x, fit_y = pool.fetch(fit, progress), pool.labels[fit]
    return replace(made, fit_x=fit_x, fit_y=fit_y, fit_digest=array_digest(fit_x, fit_y))


# --- where a data set is --------------------------------------------------------------------------------------------


def _digits(split: Split) -> tuple[npt.NDArray[Any], npt.NDArray[Any], None]:
    """The handwritten digits that come with scikit-learn: 1797 images of 8 x 8, grey values 0 to 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = fixed_part(digits.target, split)
    return (digits.images[part] / 16).astype(np.float32), digits.target[part], None


EMBEDDED: dict[str, Loader] = {"digits": _digits}
IMAGENET_SAMPLES = "imagenet-samples"


def _key(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _pool(spec: DataSpec, base: Path, split: Split, download: bool) -> Pool:
    """One part, split anew and reshaped as the spec says."""
    spec = picture_transforms.resolved(spec)
    if spec.test_share is None:
        return reshaping.reshaped(_found(spec, base, split, download), spec)
    parts = [reshaping.reshaped(_found(spec, base, "test", download), spec)]
    with suppress(NoPart):
        parts.insert(0, reshaping.reshaped(_found(spec, base, "train", download), spec))
    return reshaping.split_anew(parts, spec.test_share, split)


def _found(spec: DataSpec, base: Path, split: Split, download: bool) -> Pool:
    if spec.path is None:
        return _named(spec, base, str(spec.name), split, download)
    path = (base / Path(spec.path).expanduser()).absolute()
    if path.is_dir():
        return _pictures(path, spec, base, split)
    if not path.is_file():
        raise InputError(f"data.path: there is no file or folder {path}")
    if path.suffix != ".npz":
        raise InputError(f"data.path: {path} is neither an .npz file nor a folder of pictures")
    return from_npz(path, spec, split)


def _pictures(folder: Path, spec: DataSpec, base: Path, split: Split) -> Pool:
    mapping = class_mapping.read(spec.mapping, base) if spec.mapping else None
    return pictures.from_folder(folder, spec, split, mapping)


def _named(spec: DataSpec, base: Path, name: str, split: Split, download: bool) -> Pool:
    if loader := _registered(_key(name)):
        refuse(spec, name)
        x, y, names = loader(split)
        return from_arrays(x, y, split, tuple(map(str, names)) if names else None, name)
    looked: list[str] = []
    for root in (data_folder(), cache_folder() / "data"):
        if root is None:
            looked.append("$SPARRING_DATA (not set)")
            continue
        folder = next((p for p in sorted(root.glob("*/")) if _key(p.name) == _key(name)), root / name)
        if (npz := folder / f"{folder.name}.npz").is_file():
            return from_npz(npz, spec, split)
        # torchvision keeps its unpacked downloads in folders of the same kind, so what it knows is left to it
        if pictures.is_picture_folder(folder) and not (_downloadable(name) and root != data_folder()):
            return _pictures(folder, spec, base, split)
        looked.append(f"{npz} and a folder of pictures there")
    official = _downloadable(name)
    if official is None and _key(name) != _key(IMAGENET_SAMPLES):
        message = unknown("data set", name, (info.name for info in catalogue()))
        raise InputError(f"data.name: {message}. Looked for: {', '.join(looked)}")
    reason = "it can't be downloaded"
    if official:
        try:
            return from_torchvision(official, spec, split, cache_folder() / "data" / official, download)
        except OSError as exc:
            reason = f"torchvision says: {exc}"
    raise InputError(f"data.name: the data set {name!r} is not here. Looked for: {', '.join(looked)}; {reason}")


def _downloadable(name: str) -> str | None:
    return next((official for official in TORCHVISION if _key(official) == _key(name)), None)


def _registered(key: str) -> Loader | None:
    if key in EMBEDDED:
        return EMBEDDED[key]
    points = importlib.metadata.entry_points(group="sparring.datasets")
    point = next((point for point in points if _key(point.name) == key), None)
    return point.load() if point else None


def _describe(folder: Path) -> DatasetInfo | None:
    npz = folder / f"{folder.name}.npz"
    if npz.is_file():
        names = class_names(folder)
        return DatasetInfo(folder.name, str(npz), _image_shape(npz), len(names) if names else _classes(npz))
    if pictures.is_picture_folder(folder):
        root = pictures.part_folder(folder, "test") or folder
        return DatasetInfo(folder.name, str(folder), None, len(pictures.class_folders(root)))
    return None


def _classes(npz: Path) -> int | None:
    try:
        with np.load(npz, allow_pickle=False) as archive:
            labels = [archive[key] for key in archive.files if key in ("y", "y_train", "y_test")]
        return 1 + max(int(array.max()) for array in labels)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        return None


def _image_shape(npz: Path) -> tuple[int, ...] | None:
    """(C, H, W) from the header of the array alone."""
    try:
        with zipfile.ZipFile(npz) as archive:
            names = archive.namelist()
            with archive.open(next(m for m in ("x_test.npy", "x.npy", "x_train.npy") if m in names)) as stream:
                version = np.lib.format.read_magic(stream)
                headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape = headers[version](stream)[0]
        if len(shape) == 3:
            return 1, shape[1], shape[2]
        axis = channel_axis(shape, str(npz))
        return shape[axis], *(side for i, side in enumerate(shape) if i not in (0, axis))
    except (OSError, ValueError, LookupError, StopIteration, zipfile.BadZipFile):
        return None
