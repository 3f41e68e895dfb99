"""From the folders of a set of pictures to ImageNet's classes: which is which, which there is none of, and groups.

A mapping is a YAML file, ``classes: {folder: class or null}`` and ``groups: {fruit: [folders]}``, or one that ships. A
class is told by its index, by its wnid or by its name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from sparring.adapters.errors import InputError, first_line, unknown
from sparring.models.spec import Spec

CLASSES = 1000
NO_CLASS = "ImageNet has no such class"
NOT_NAMED = "the mapping does not name it"


class MappingFile(Spec):
    """A mapping as written."""

    classes: dict[str, int | str | None] = Field(min_length=1, description="folder: ImageNet class, or null for none")
    groups: dict[str, tuple[str, ...]] = Field({}, description="name of a group: its folders")
    also: dict[str, str] = Field({}, description="another spelling: the folder")


@dataclass(frozen=True)
class Mapped:
    """What a mapping says of the folders that are there."""

    labels: dict[str, int]
    """folder -> index of the class of ImageNet; only those that have one"""
    groups: dict[str, str]
    """folder -> its group, for those that are in one"""
    group_names: tuple[str, ...]
    left_out: dict[str, str]
    """folder -> why"""


@cache
def imagenet() -> tuple[tuple[str, str], ...]:
    """wnid and name of each of ImageNet's 1,000 classes, by index; the names are torchvision's, all distinct."""
    text = resources.files("sparring.models.data").joinpath("imagenet-classes.txt").read_text("utf-8")
    return tuple((wnid, name) for wnid, _, name in (line.partition(" ") for line in text.splitlines()))


def names_of(folders: Sequence[str]) -> tuple[str, ...] | None:
    """The names of ImageNet's classes, where the folders, sorted, are all of its 1,000 wnids; None elsewhere."""
    classes = imagenet()
    return tuple(name for _, name in classes) if list(folders) == sorted(wnid for wnid, _ in classes) else None


def shipped() -> list[str]:
    """The names of the mappings that ship."""
    folder = resources.files("sparring.models.data")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read(name: str, base: Path) -> MappingFile:
    """The mapping of that path (a relative one starts at ``base``) or name. ``InputError`` where it can't be used."""
    path = (base / Path(name).expanduser()).absolute()
    try:
        if path.is_file():
            text = path.read_text("utf-8")
        elif name in shipped():
            text = resources.files("sparring.models.data").joinpath(f"{name}.yaml").read_text("utf-8")
        else:
            raise InputError(f"data.mapping: there is no file {path}, and {unknown('mapping', name, shipped())}")
        mapping = MappingFile.model_validate(_with_names(yaml.safe_load(text)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise InputError(f"data.mapping: {path} can't be read: {first_line(exc)}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"][:2]))
        raise InputError(f"data.mapping: {name}: {place}: {first['msg'].removeprefix('Value error, ')}") from exc
    for key, folder_name in (
        *((f"groups.{group}", x) for group, members in mapping.groups.items() for x in members),
        *((f"also.{key}", x) for key, x in mapping.also.items()),
    ):
        if folder_name not in mapping.classes:
            raise InputError(f"data.mapping: {name}: {key}: {unknown('folder', folder_name, mapping.classes)}")
    for folder, written in mapping.classes.items():
        _index(written, f"data.mapping: {name}: classes.{folder}")
    return mapping


def mapped(mapping: MappingFile, folders: Sequence[str], name: str) -> Mapped:
    """What the mapping says of these folders, whose names are compared without case, accents and spaces.

    Raises ``InputError``, which calls the mapping by its ``name``, if none of them has a class.
    """
    spelled = {_key(other): folder for other, folder in mapping.also.items()}
    spelled |= {_key(folder): folder for folder in mapping.classes}
    of_folder = {folder: group for group, members in mapping.groups.items() for folder in members}
    labels, groups, left_out = {}, {}, {}
    for folder in folders:
        spelling = spelled.get(_key(folder))
        index = None if spelling is None else _index(mapping.classes[spelling], name)
        if index is None:
            left_out[folder] = NOT_NAMED if spelling is None else NO_CLASS
        else:
            labels[folder] = index
            if spelling in of_folder:
                groups[folder] = of_folder[spelling]
    if not labels:
        members = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        raise InputError(f"data.mapping: {name} has a class of ImageNet for none of the folders ({members})")
    return Mapped(labels, groups, tuple(mapping.groups), left_out)


def _index(written: int | str | None, place: str) -> int | None:
    if written is None:
        return None
    if isinstance(written, int) or written.isdigit():
        if 0 <= int(written) < CLASSES:
            return int(written)
        raise InputError(f"{place}: {written} is no index of a class of ImageNet: they go from 0 to {CLASSES - 1}")
    for index, (wnid, name) in enumerate(imagenet()):
        if written.casefold() in (wnid, name.casefold()):
            return index
    raise InputError(f"{place}: {unknown('class of ImageNet', written, (name for _, name in imagenet()))}")


def _with_names(content: Any) -> Any:
    """Folders are names, also those that YAML takes for numbers."""
    if not isinstance(content, dict) or not isinstance(content.get("classes"), dict):
        return content if isinstance(content, dict) else {"classes": content}
    named = {"classes": {str(folder): value for folder, value in content["classes"].items()}}
    if isinstance(groups := content.get("groups"), dict):
        lists = {str(key): value for key, value in groups.items()}
        named["groups"] = {key: list(map(str, x)) if isinstance(x, list) else x for key, x in lists.items()}
    return {**content, **named}


def _key(folder: str) -> str:
    letters = (letter for letter in unicodedata.normalize("NFKD", folder) if not unicodedata.combining(letter))
    return re.sub(r"[\W_]", "", "".join(letters)).casefold()
