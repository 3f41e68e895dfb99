"""Two paths through one attack side by side: where they part, and where each image stands at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier, Images
from sparring.suites.explain.habits.gradient import cross_entropy, margin
from sparring.suites.explain.habits.trace import Path, Trace

Array = npt.NDArray[Any]
TOLERANCE = 1e-5
"""Images are called the same when no pixel differs by more."""


@dataclass(frozen=True)
class Apart:
    """How far two sets of images are apart: the largest difference of a pixel, and how many exceed ``TOLERANCE``."""

    largest: float
    pixels: int


def apart(a: Array, b: Array) -> Apart:
    """Compare two arrays of images of one shape; a NaN counts as infinitely far apart."""
    off = np.abs(a.astype(np.float64) - b.astype(np.float64))
    off = np.where(np.isnan(off), np.inf, off)
    return Apart(float(off.max(initial=0)), int((off > TOLERANCE).sum()))


@dataclass(frozen=True)
class Step:
    """Where one image stands at one step of each library; None for a library that has ended before.

    ``margin``: the label's logit minus the highest other logit, below zero where the image is misclassified.
    ``distance``: the Euclidean distance from the image. ``apart``: the largest difference of a pixel between the two.
    """

    loss: tuple[float | None, float | None]
    margin: tuple[float | None, float | None]
    distance: tuple[float | None, float | None]
    apart: float


@dataclass(frozen=True)
class Parting:
    """The first step at which two paths part: which image, by how much, at which pixels (channel, row, column).

    ``by``: |Δ|, (C, H, W). ``at_the_end``: the paths part only in what one of them returns.
    """

    image: int
    step: int
    largest: float
    count: int
    pixels: tuple[tuple[int, int, int], ...]
    by: Array
    at_the_end: bool


def visited(path: Path, gradients: bool = False) -> list[Array]:
    """The points of a path and its end: those of its gradient queries, or of all queries without repeats in a row."""
    points = [query.x for query in path.gradients] if gradients else path.points
    return [*points, path.final]


def same_way(one: Path, two: Path) -> bool:
    """Whether two paths visit the same points, apart from last queries about the returned image or the original one."""
    ways = []
    for path in (one, two):
        points = visited(path)
        while len(points) > 1 and any(np.array_equal(points[-1], end) for end in (path.final, path.image)):
            points.pop()
        ways.append(points)
    shared = min(map(len, ways)) - 1  # the last query may differ, as the returned images do
    same = shared < 1 or apart(np.stack(ways[0][:shared]), np.stack(ways[1][:shared])).pixels == 0
    return bool(same and abs(len(ways[0]) - len(ways[1])) <= 3)


def nearest_points(paths: tuple[Path, ...], images: Images) -> Images:
    """The point of each path that is nearest to the image in ``images``: float32 (N, C, H, W)."""
    nearest = []
    for path, image in zip(paths, images, strict=True):
        points = [path.image, *visited(path)]
        nearest.append(points[int(np.argmin([np.abs(point - image).max() for point in points]))])
    return np.stack(nearest).astype(np.float32)


def batch_paths(trace: Trace) -> tuple[Path, ...]:
    """Each image's path through the attack on all images at once; only its end where the library split the batch."""
    n = len(trace.paths)
    gradients = [query for query in trace.batch_queries if query.kind == "vjp"]
    whole = all(query.batch == n for query in gradients)
    return tuple(
        Path(path.image, path.label, tuple(gradients[row::n]) if whole else (), final)
        for row, (path, final) in enumerate(zip(trace.paths, trace.batch_images, strict=True))
    )


def first_parting(a: tuple[Path, ...], b: tuple[Path, ...], gradients: bool) -> Parting | None:
    """The earliest step at which an image's two paths part by more than ``TOLERANCE``; of several the widest."""
    partings = [
        parting
        for image, (one, two) in enumerate(zip(a, b, strict=True))
        if (parting := _parting(image, visited(one, gradients), visited(two, gradients))) is not None
    ]
    return min(partings, key=lambda parting: (parting.step, -parting.largest)) if partings else None


def _parting(image: int, one: list[Array], two: list[Array]) -> Parting | None:
    for step in range(max(len(one), len(two))):
        by = np.abs(one[min(step, len(one) - 1)].astype(np.float64) - two[min(step, len(two) - 1)])
        if (by > TOLERANCE).any():
            order = [int(i) for i in np.argsort(-by, axis=None)[:5] if by.ravel()[i] > TOLERANCE]
            pixels = [np.unravel_index(i, by.shape) for i in order]
            where = tuple((int(c), int(h), int(w)) for c, h, w in pixels)
            at_the_end = step >= min(len(one), len(two)) - 1
            return Parting(image, step, float(by.max()), int((by > TOLERANCE).sum()), where, by, at_the_end)
    return None


def steps(paths: tuple[Path, Path], label: int, classifier: Classifier, gradients: bool) -> tuple[Step, ...]:
    """Loss, margin and distance of one image at every step of both libraries."""
    ways = [visited(path, gradients) for path in paths]
    sides = []
    for way, path in zip(ways, paths, strict=True):
        points = np.clip(np.stack(way), -10, 10).astype(np.float32)
        logits = np.concatenate([classifier.logits(points[i : i + 256]) for i in range(0, len(points), 256)])
        labels = np.full(len(points), label)
        far = np.sqrt(((points.astype(np.float64) - path.image) ** 2).sum(axis=(1, 2, 3)))
        sides.append(list(zip(cross_entropy(logits, labels), margin(logits, labels), far, strict=True)))
    rows = []
    for step in range(max(map(len, ways))):
        cells = [tuple(map(float, side[step])) if step < len(side) else (None, None, None) for side in sides]
        points = [way[min(step, len(way) - 1)] for way in ways]
        pairs = [(cells[0][i], cells[1][i]) for i in range(3)]
        rows.append(Step(pairs[0], pairs[1], pairs[2], apart(points[0], points[1]).largest))
    return tuple(rows)
