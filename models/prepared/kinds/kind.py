"""What a kind of model is: what it checks, what a prepared model of it follows from, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring.models.data.datasets import Dataset
from sparring.models.data.pool import Progress
from sparring.models.model_spec import OPTIONS, ModelSpec, OwnInput
from sparring.models.networks.convert import Opened
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import DataSpec

Prepare = Callable[..., ModelRef | None]
"""Prepares another model: ``(spec, others=...)`` -> its ref, or None where it isn't there and must not be made."""


@dataclass(frozen=True)
class Task:
    """What a model is prepared from."""

    data: DataSpec
    base: Path
    """folder of the suite: relative paths begin there"""
    others: Mapping[str, ModelRef]
    """the models that it is made of, by name"""
    sample: Dataset
    """a few images of the data, to try the model on"""
    part: Callable[[], Dataset]
    """reads what a network is trained on"""
    file: Path | None
    """the file that the suite names"""
    prepare: Prepare
    device: str = "auto"
    progress: Progress | None = None
    folder: Path = Path()
    """the model's own in the cache"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.sample.x.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        """How many classes the data has."""
        return len(self.sample.class_names)


@dataclass(frozen=True)
class Made:
    """A model that was made: its file, and what it is."""

    file: Path
    content: str
    """digest of the weights, or of what they follow from"""
    architecture: str
    options: Mapping[str, Any]
    """keyword arguments of ``wrap``"""
    classes: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: Opened | None = None
    """the model that it must agree with"""


def _nothing(_: Any) -> None:
    return None


@dataclass(frozen=True)
class Kind:
    """One kind of model; every function takes the model's spec first."""

    work: Callable[[Any], str]
    """what preparing it does, in words"""
    check: Callable[[Any], None] = _nothing
    """raises ``InputError`` for what can be seen before anything is read"""
    file: Callable[[Any, Path], Path | None] = lambda _spec, _base: None
    """the file that it names, found from the suite's folder. Raises ``InputError``"""
    composed: Callable[[Any, Path, Mapping[str, ModelRef], Prepare], ModelRef | None] = lambda *_: None
    """the ref, where the models that it is made of say all of it"""
    recipe: Callable[[Any, Task], dict[str, Any]] | None = None
    """what a prepared model follows from, beside its architecture, its options and the data's shape"""
    make: Callable[[Any, Task], Made] | None = None
    """make it, in the folder of the task. Raises ``InputError``"""
    ref: Callable[[Any, Task], ModelRef] | None = None
    """prepare it outside the cache, where it has no recipe"""


def options_of(spec: ModelSpec, file: Path | None = None) -> dict[str, Any]:
    """The keyword arguments of ``wrap``, as plain JSON values; those of a model made of others say nothing."""
    from sparring.models.architectures import mobilenet

    fields = OwnInput.model_fields
    options = {key: getattr(spec, key) if isinstance(spec, OwnInput) else fields[key].default for key in OPTIONS}
    architecture = getattr(spec, "architecture", None)
    if architecture:
        options["layout"] = "channels-first" if spec.runtime == "torch" else "channels-last"
    folded = architecture in mobilenet.NAMES and file is not None and file.suffix == ".npz"
    if folded and "input_range" not in spec.model_fields_set:
        options["input_range"] = mobilenet.INPUT_RANGE
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
