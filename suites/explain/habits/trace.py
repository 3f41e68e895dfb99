"""What a library asks of a classifier, and in which order: the path of each image, and the batch's images beside it."""

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
    """One image at which a library asked for logits or for a gradient, and the answer.

    ``x`` (C, H, W), float32; ``cotangent`` (classes,), None of logits; ``result``: (classes,) or (C, H, W), float32;
    ``batch``: how many images were asked about at once.
    """

    kind: Literal["logits", "vjp"]
    x: Array
    cotangent: Array | None
    result: Array
    batch: int


@dataclass(frozen=True)
class Path:
    """One image's way through an attack that got this image alone: every query, in order, and where it ended.

    ``image``, ``final``: (C, H, W), float32, the final one as the library returned it, before anybody clipped it.
    """

    image: Array
    label: int
    queries: tuple[Query, ...]
    final: Array

    @property
    def gradients(self) -> tuple[Query, ...]:
        """The queries for gradients."""
        return tuple(query for query in self.queries if query.kind == "vjp")


@dataclass(frozen=True)
class Trace:
    """One library's attack on some images: alone, one path each, and all at once.

    ``batch_images`` (N, C, H, W) are the images of the attack that got all at once, and ``batch_queries`` its queries,
    row by row. ``images`` are those of the single attacks.
    """

    library: str
    paths: tuple[Path, ...]
    batch_images: Images
    batch_queries: tuple[Query, ...]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> Images:
        """Where the single attacks ended, (N, C, H, W)."""
        return np.stack([path.final for path in self.paths])


class Recorder:
    """A classifier that keeps every query. What it records are copies: a library may write to its own arrays."""

    def __init__(self, inner: Classifier) -> None:
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes
        self.framework = getattr(inner, "framework", "torch")
        self.queries: list[Query] = []

    def logits(self, x: Images) -> Logits:
        answer = self.inner.logits(x)
        self.queries += [Query("logits", p.copy(), None, r.copy(), len(x)) for p, r in zip(x, answer, strict=True)]
        return answer

    def taken(self) -> tuple[Query, ...]:
        """The queries since the last time."""
        taken, self.queries = tuple(self.queries), []
        return taken


class GradientRecorder(Recorder):
    """A ``Recorder`` of a classifier with gradients."""

    inner: Differentiable

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        answer = self.inner.vjp(x, cotangent)
        rows = zip(x, cotangent, answer, strict=True)
        self.queries += [Query("vjp", p.copy(), c.copy(), r.copy(), len(x)) for p, c, r in rows]
        return answer


def recorder(classifier: Classifier) -> Recorder:
    """A recorder with the classifier's own capability."""
    return GradientRecorder(classifier) if isinstance(classifier, Differentiable) else Recorder(classifier)


def trace(
    library: Library,
    classifier: Classifier,
    x: Images,
    y: Labels,
    asked: Request,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Attack each image alone, then all at once, by the bridged route, so that every query is seen.

    ``y`` (N,) are the true labels, or the classes to reach where the attack aims at one. Every run starts from the same
    ``seed``. Raises ``NotSupported`` where the library lacks the attack, ``LibraryError`` where it fails.
    """
    seen = recorder(classifier)
    paths: list[Path] = []
    with attacking(library, seen, asked, seed) as attack:
        for image, label in zip(x, y, strict=True):
            final = attack(image[None], np.array([label]))[0]
            paths.append(Path(image, int(label), seen.taken(), final))
            if progress is not None:
                progress(len(paths), len(x) + 1)
        together = attack(x, y)
        if progress is not None:
            progress(len(x) + 1, len(x) + 1)
    return Trace(library.name, tuple(paths), together, seen.taken(), _notes(library, asked, classifier, len(x), seed))


@contextmanager
def attacking(
    library: Library, classifier: Classifier, asked: Request, seed: int
) -> Iterator[Callable[[Images, Labels], Images]]:
    """A context whose value attacks images (N, C, H, W) with labels (N,), by the bridged route."""
    mapping = _mapping(library, asked)
    with library.session(classifier, "bridged", Counter()) as run:

        def attack(x: Images, y: Labels) -> Images:
            context = _context(asked, classifier, len(x), seed)
            kwargs, _ = mapping.translate(context)
            call = Call(mapping.target, kwargs, x.copy(), y.copy(), asked.aims, asked.canonical, context)
            with seeded(seed):
                result = run_call(library, run, call).images
            if result.shape != x.shape:
                raise LibraryError(f"{library.name} returned {result.shape}, not images of shape {x.shape}")
            return np.array(result, np.float32)

        yield attack


def _mapping(library: Library, asked: Request) -> AttackMapping:
    assert asked.canonical is not None
    mapping = library.find(asked.canonical)
    if not isinstance(mapping, AttackMapping):
        raise NotSupported(f"{library.name}: {mapping.reason}")
    if asked.targeted and mapping.targeted is not None:
        raise NotSupported(f"{library.name}: {mapping.targeted.reason}")
    return mapping


def _context(asked: Request, classifier: Classifier, n: int, seed: int) -> Context:
    return Context(asked.params, classifier.input_shape, classifier.classes, n, seed, asked.targeted)


def _notes(library: Library, asked: Request, classifier: Classifier, n: int, seed: int) -> tuple[str, ...]:
    return tuple(_mapping(library, asked).translate(_context(asked, classifier, n, seed))[1])
