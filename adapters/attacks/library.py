"""An attack library, as sparring sees it: a table that translates the canonical attacks, and a way to run them."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy.typing as npt

from sparring.adapters.attacks.catalogue import Attack, Needs
from sparring.adapters.errors import InputError, LibraryError, missing_package, unknown
from sparring.adapters.parameters import Params
from sparring.adapters.protocol import Classifier, Counter, Images, Labels

Route = Literal["native", "bridged"]
Frameworks = ("torch", "keras-tensorflow", "keras-torch", "keras-jax", "onnx", "ensemble", "defended")


@dataclass(frozen=True)
class Context:
    """What a translation may depend on besides the value itself."""

    params: Params
    """every canonical parameter"""
    input_shape: tuple[int, int, int]
    classes: int
    n: int
    """images in the batch"""
    seed: int
    targeted: bool


@dataclass(frozen=True)
class To:
    """The canonical value goes to another keyword after a conversion."""

    keyword: str
    convert: Callable[[Any, Context], Any]


@dataclass(frozen=True)
class Unsupported:
    """A library lacks an attack, or a parameter of one, and why.

    For a parameter ``unless`` says which values lose nothing: one restart, where a library has only one. For other
    values the attack runs, and the row carries the reason as a note.
    """

    reason: str
    unless: Callable[[Any, Context], bool] = lambda value, context: False


@dataclass(frozen=True)
class AttackMapping:
    """One canonical attack in a library's own words: a class and its keyword arguments."""

    target: str
    parameters: Mapping[str, str | To | Unsupported] = field(default_factory=dict)
    pinned: Mapping[str, Any] = field(default_factory=dict)
    """foreign keyword -> the value that it always gets; a function is called with the ``Context``"""
    targeted: Unsupported | None = None
    """set where the library has no targeted version"""
    note: str | None = None
    """where the library's algorithm departs from the attack's source, whatever the parameters: a note on every row"""

    def translate(self, context: Context) -> tuple[dict[str, Any], list[str]]:
        """The library's keyword arguments, and a note for every parameter that it can't take."""
        foreign = {key: value(context) if callable(value) else value for key, value in self.pinned.items()}
        notes = [self.note] if self.note else []
        for name, value in context.params.items():
            rule = self.parameters[name]
            if isinstance(rule, Unsupported):
                if not rule.unless(value, context):
                    notes.append(f"{name}: {rule.reason}")
            elif isinstance(rule, To):
                foreign[rule.keyword] = rule.convert(value, context)
            else:
                foreign[rule] = value
        return foreign, notes

    def keywords(self) -> set[str]:
        """Every foreign keyword that is translated or pinned."""
        rules = (rule.keyword if isinstance(rule, To) else rule for rule in self.parameters.values())
        return {rule for rule in rules if isinstance(rule, str)} | set(self.pinned)


def maps(
    target: str,
    *,
    pinned: Mapping[str, Any] | None = None,
    targeted: Unsupported | None = None,
    note: str | None = None,
    **parameters: str | To | Unsupported,
) -> AttackMapping:
    """``maps("PGD", eps="eps", eps_step="alpha", ...)``: an ``AttackMapping`` with the canonical names as keywords."""
    return AttackMapping(target, parameters, pinned or {}, targeted, note)


@dataclass(frozen=True)
class Fit:
    """Images on which an attack, such as a patch, is trained before it is used on others."""

    x: Images
    """float32 (M, C, H, W) in [0, 1]; none of them is among the images that are attacked"""
    labels: Labels
    """(M,): the true labels, or, where the call is targeted, the labels to reach"""


@dataclass(frozen=True)
class Crafted:
    """Adversarial images, and further arrays that an attack gives."""

    images: Images
    samples: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """arrays whose first axis is that of the images: where a patch was put, say"""
    whole: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """arrays of the whole cell, the same for every batch of it: the patch itself"""


@dataclass(frozen=True)
class Call:
    """One batch for a library: its own class and keyword arguments, the images and the labels."""

    target: str
    kwargs: Mapping[str, Any]
    x: Images
    labels: Labels
    """the true labels, or, where ``targeted``, the labels to reach"""
    targeted: bool
    canonical: Attack | None
    """None for an attack through the raw door"""
    context: Context | None = None
    """the canonical parameters, the seed of this batch, ...; None for an attack through the raw door"""
    fit: Fit | None = None
    """what an attack that ``fits`` is trained on: the same object for every batch of a cell"""
    singly: bool = False
    """each image goes to the library alone, because the attack would share draws between the images of a batch"""


Run: TypeAlias = Callable[[Call], Images | Crafted]
Reconcile: TypeAlias = Callable[[Call], AbstractContextManager[Call]]
"""Takes one difference of the ledger away. It is a context whose value is the call to make instead. Where the call
alone can't say it, the library's own code is patched within the context."""


EXTRAS = ("cma", "kornia", "multiprocess", "numba")
"""Packages that single attacks need; a library imports them only then."""


@contextmanager
def blaming(library: str, target: str) -> Iterator[None]:
    """Within the context a library's mistake that looks like the user's becomes a ``LibraryError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = error.name or "a package"
        install = "pip install 'sparring[extras]'" if package in EXTRAS else f"pip install {package}"
        raise LibraryError(str(missing_package(package, install, f"{library}'s {target}"))) from error
    except InputError as error:
        raise LibraryError(f"{library}'s {target} gave the classifier what it can't take: {error}") from error


@dataclass(frozen=True)
class RawAttack:
    """A class of a library, reachable as ``library:ClassName`` with the library's own keyword arguments."""

    name: str
    needs: Needs
    signature: inspect.Signature
    runs_on: tuple[str, ...] = Frameworks
    """frameworks on which it can run"""
    unsupported: str | None = None
    """why it can't attack an image classifier (an object detector's attack, say), if it can't"""
    targeted: bool = True
    call_keywords: tuple[str, ...] = ()
    """keywords that go into the call, not into the constructor (Foolbox's ``eps``)"""
    alias: str | None = None
    """the main name, where this is another name of the same class"""


@dataclass(frozen=True)
class Library:
    """One attack library: its table, and how to run it.

    - ``session(classifier, route, counter)`` is a context whose value runs one ``Call`` after another on one
      classifier, so that estimators are built once.
    - ``native``: the frameworks for which the library has an estimator of its own.
    - ``raw()`` lists every attack class by name. It imports the library.
    """

    name: str
    package: str
    requires: str
    attacks: Mapping[tuple[str, str], AttackMapping | Unsupported]
    session: Callable[[Classifier, Route, Counter], AbstractContextManager[Run]]
    raw: Callable[[], Mapping[str, RawAttack]]
    native: frozenset[str]
    reconciliations: Mapping[str, Reconcile] = field(default_factory=dict)
    """id of an entry of the ledger -> what takes that difference away in this library"""

    def version(self) -> str:
        """The installed version. Raises ``InputError`` with the install line when the library is missing."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise missing_package(self.package, f"pip install '{self.requires}'", f"the library {self.name}") from None

    def routes(self, framework: str) -> tuple[Route, ...]:
        """The routes to a framework, the default one first."""
        return ("native", "bridged") if framework in self.native else ("bridged",)

    def find(self, attack: Attack) -> AttackMapping | Unsupported:
        """The translation of a canonical attack, or why there is none."""
        return self.attacks.get(
            (attack.name, attack.norm), Unsupported(f"{self.name} has no {attack.name} ({attack.norm})")
        )


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group="sparring.libraries")}


def library_names() -> list[str]:
    """The names of the installed libraries, those of other packages included."""
    return sorted(_entry_points())


def load_library(name: str) -> Library:
    """The library of that name (entry-point group ``sparring.libraries``), or ``package.module:LIBRARY``."""
    points = _entry_points()
    try:
        if name in points:
            loaded = points[name].load()
        elif ":" in name:
            module, _, attribute = name.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
        else:
            raise InputError(unknown("library", name, points) + ", or package.module:LIBRARY")
    except (ImportError, AttributeError) as error:
        raise InputError(f"the library {name!r} can't be loaded: {error}") from error
    if not isinstance(loaded, Library):
        raise InputError(f"{name!r} is a {type(loaded).__name__}, not a sparring.adapters.attacks.library.Library")
    return loaded
