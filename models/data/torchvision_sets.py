"""torchvision's data sets."""

from __future__ import annotations

import inspect
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from filelock import FileLock

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images, Labels
from sparring.models.data.array_files import from_arrays
from sparring.models.data.pictures import decode, picture_facts
from sparring.models.data.pool import Indices, Pool, Progress, Split, fixed_part, refuse
from sparring.models.spec import DataSpec
from sparring.models.storage import short_timeout

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
    class_list = getattr(data, "classes", None) or getattr(data, "categories", None) or ()
    # ImageNet's classes have several names each
    names = tuple(str(c[0] if isinstance(c, tuple) else c) for c in class_list) or None
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
            return decode(list(map(int, chosen)), lambda i: data[i][0], spec, name, progress)

        pool = Pool(labels, names, fetch, facts=picture_facts(spec))
    if not split_here:
        return pool
    part = fixed_part(pool.labels, split)
    return replace(pool, labels=pool.labels[part], fetch=lambda chosen, progress: pool.fetch(part[chosen], progress))


def _labels(data: Any) -> Labels:
    for attribute in ("targets", "_labels", "labels", "y"):
        labels = getattr(data, attribute, None)
        if labels is not None and len(labels) == len(data):
            return np.asarray(labels, dtype=np.int64)
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
