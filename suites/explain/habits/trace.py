"""Record a library's queries to a classifier, in order: the path of each image alone, and the queries of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import AttackMapping, Call, Context, Library
from sparring.adapters.attacks.request import Request
from sparring.adapters.attacks.run import run_call
from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.errors import LibraryError, NotSupported
from sparring.adapters.protocol import Classifier, Counter, Differentiable, Images, Labels, Logits

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Query:
    """One query of a library, for the logits or for a gradient of one image, and the answer.

    ``x``: (C, H, W), float32. ``cotangent``: (classes,), None in a query for logits. ``result``: logits (classes,) or
    gradient (C, H, W), float32. ``batch``: the number of images in the call.
    """

    kind: Literal["logits", "vjp"]
    x: Array
    cotangent: Array | None
    result: Array
    batch: int


@dataclass(frozen=True)
class Path:
    """One image's path through an attack on this image alone: every query in order, and the returned image.

    ``image``, ``final``: (C, H, W), float32. ``final`` is what the library returned, before any clipping.
    """

    image: Array
    label: int
    queries: tuple[Query, ...]
    final: Array

    @property
    def gradients(self) -> tuple[Query, ...]:
        """The queries for gradients."""
        return tuple(query for query in self.queries if query.kind == "vjp")

    @property
    def points(self) -> list[Array]:
        """The points of the queries, (C, H, W) each, without repeats in a row."""
        points: list[Array] = []
        for query in self.queries:
            if not points or not np.array_equal(points[-1], query.x):
                points.append(query.x)
        return points


@dataclass(frozen=True)
class Trace:
    """One library's attack on some images: on each image alone, and on all at once.

    ``batch_images`` (N, C, H, W) and ``batch_queries``, row by row, belong to the attack on all images at once;
    ``paths`` and ``images`` to the single attacks.
    """

    library: str
    paths: tuple[Path, ...]
    batch_images: Images
    batch_queries: tuple[Query, ...]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> Images:
        """The images that the single attacks returned, (N, C, H, W)."""
        return np.stack([path.final for path in self.paths])


class Recorder:
    """A classifier that records every query, as copies: a library may write to its own arrays."""

    def __init__(self, inner: Classifier) -> None:
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes
        self.framework = getattr(inner, "framework", "torch")
        self.queries: list[Query] = []

    def logits(self, x: Images) -> Logits:
        answer = self.inner.logits(x)
        self.queries += [Query("logits", p.copy(), None, r.copy(), len(x)) for p, r in zip(x, answer, strict=True)]
        return answer

    def take(self) -> tuple[Query, ...]:
        """Hand over the queries since the last call."""
        queries, self.queries = tuple(self.queries), []
        return queries


class GradientRecorder(Recorder):
    """A ``Recorder`` for a classifier with gradients."""

    inner: Differentiable

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        answer = self.inner.vjp(x, cotangent)
        rows = zip(x, cotangent, answer, strict=True)
        self.queries += [Query("vjp", p.copy(), c.copy(), r.copy(), len(x)) for p, c, r in rows]
        return answer


def recorder(classifier: Classifier) -> Recorder:
    """A recorder that has gradients if the classifier has."""
    return GradientRecorder(classifier) if isinstance(classifier, Differentiable) else Recorder(classifier)


def trace(
    library: Library,
    classifier: Classifier,
    x: Images,
    y: Labels,
    request: Request,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Attack each image alone, then all at once, by the bridged route, and record every query.

    ``x`` (N, C, H, W); ``y`` (N,): the true labels, or the classes to reach where the attack aims at one. Every attack
    starts from the same ``seed``. Raises ``NotSupported`` where the library lacks the attack, ``LibraryError`` where it
    fails.
    """
    recording = recorder(classifier)
    paths: list[Path] = []
    with attacking(library, recording, request, seed) as attack:
        for image, label in zip(x, y, strict=True):
            final = attack(image[None], np.array([label]))[0]
            paths.append(Path(image, int(label), recording.take(), final))
            if progress is not None:
                progress(len(paths), len(x) + 1)
        together = attack(x, y)
        if progress is not None:
            progress(len(x) + 1, len(x) + 1)
    notes = _notes(library, request, classifier, len(x), seed)
    return Trace(library.name, tuple(paths), together, recording.take(), notes)


@contextmanager
def attacking(
    library: Library, classifier: Classifier, request: Request, seed: int
) -> Iterator[Callable[[Images, Labels], Images]]:
    """A context whose value attacks images (N, C, H, W) with labels (N,), by the bridged route."""
    mapping = _mapping(library, request)
    with library.session(classifier, "bridged", Counter()) as run:

        def attack(x: Images, y: Labels) -> Images:
            context = _context(request, classifier, len(x), seed)
            kwargs, _ = mapping.translate(context)
            call = Call(mapping.target, kwargs, x.copy(), y.copy(), request.aims, request.canonical, context)
            with seeded(seed):
                result = run_call(library, run, call).images
            if result.shape != x.shape:
                raise LibraryError(f"{library.name} returned {result.shape}, not images of shape {x.shape}")
            return np.array(result, np.float32)

        yield attack


def _mapping(library: Library, request: Request) -> AttackMapping:
    assert request.canonical is not None
    mapping = library.find(request.canonical)
    if not isinstance(mapping, AttackMapping):
        raise NotSupported(f"{library.name}: {mapping.reason}")
    if request.targeted and mapping.targeted is not None:
        raise NotSupported(f"{library.name}: {mapping.targeted.reason}")
    return mapping


def _context(request: Request, classifier: Classifier, n: int, seed: int) -> Context:
    return Context(request.params, classifier.input_shape, classifier.classes, n, seed, request.targeted)


def _notes(library: Library, request: Request, classifier: Classifier, n: int, seed: int) -> tuple[str, ...]:
    return tuple(_mapping(library, request).translate(_context(request, classifier, n, seed))[1])
