"""What every search for an explanation shares: two libraries on one classifier, their recorded paths, and the trials.

A trial changes one suspect, runs one library again, and compares its images with the other library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sparring.adapters.attacks import request as requests
from sparring.adapters.attacks.inputs import labels_of_call
from sparring.adapters.attacks.library import Library
from sparring.adapters.attacks.request import Request
from sparring.adapters.protocol import Images, Labels
from sparring.suites.explain.habits.compare import recordable
from sparring.suites.explain.habits.gradient import Recipe, recipe
from sparring.suites.explain.habits.trace import Trace, attacking, trace
from sparring.suites.explain.paths import apart

Report = Callable[[str, int, int], None]
"""the current activity, the number of units done, the number of all units"""


@dataclass(frozen=True)
class Trial:
    """One suspect was changed: in which library or stand-in, and what still differs from the other library.

    ``residual``: the largest difference of a pixel; ``pixels``: how many pixels differ.
    """

    suspect: str
    text: str
    ran: str
    residual: float
    pixels: int
    meets: bool


@dataclass(frozen=True)
class Finding:
    """The verdict, the suspect and its change, the difference that is left, and the changes that do as well.

    ``rounding``: how many pixels differ only because a gradient there is zero within rounding.
    """

    verdict: Literal["same", "different"]
    suspect: str | None = None
    change: str = ""
    residual: float = 0.0
    as_well: tuple[str, ...] = ()
    rounding: int = 0


@dataclass(frozen=True)
class Bench:
    """Two libraries, their traces on one classifier, and the log of the search: trials and notes are added to it.

    ``x`` (N, C, H, W), float32 in [0, 1]; ``labels`` (N,) are the labels that the libraries get.
    """

    request: Request
    libraries: tuple[Library, Library]
    names: tuple[str, str]
    classifier: Any
    x: Images
    labels: Labels
    seed: int
    report: Report
    traces: tuple[Trace, Trace]
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_tape(self) -> bool:
        """Whether each gradient query is one step, so that a tape can be read."""
        return recordable(self.request.name, self.request.norm, self.request.params)

    @property
    def recipe(self) -> Recipe:
        """The attack, as the rules of the habits need it."""
        request = self.request
        return recipe(request.name, str(request.norm), request.params, request.targeted)

    def request_with(self, **params: Any) -> Request:
        """The request with other values of some parameters. Raises ``InputError`` for a value out of range."""
        request = self.request
        values: Mapping[str, Any] = {**request.params, **params}
        return requests.request(request.name, norm=request.norm, targeted=request.targeted, params=values)


def record(
    request: Request,
    libraries: tuple[Library, Library],
    names: tuple[str, str],
    classifier: Any,
    x: Images,
    y: Labels,
    seed: int,
    report: Report,
) -> Bench:
    """Run both libraries and record their paths. ``x`` (N, C, H, W), ``y`` (N,) the true labels."""
    labels = labels_of_call(request, y, None, classifier.classes, seed)

    def traced(library: Library, name: str) -> Trace:
        def progress(done: int, total: int) -> None:
            report(f"attacks of {name}", done, total)

        return replace(trace(library, classifier, x, labels, request, seed, progress), library=name)

    traces = traced(libraries[0], names[0]), traced(libraries[1], names[1])
    return Bench(request, libraries, names, classifier, x, labels, seed, report, traces)


def rerun(
    bench: Bench,
    which: int,
    request: Request | None = None,
    labels: Labels | None = None,
    classifier: Any = None,
    at_once: int | None = 1,
) -> Images:
    """Run one library again with something else given to it, ``at_once`` images in a call; None: all of them."""
    labels, size = bench.labels if labels is None else labels, at_once or len(bench.x)
    classifier, request = classifier or bench.classifier, request or bench.request
    with attacking(bench.libraries[which], classifier, request, bench.seed) as attack:
        parts = [slice(first, first + size) for first in range(0, len(bench.x), size)]
        return np.concatenate([attack(bench.x[part], labels[part]) for part in parts])


def judge(
    bench: Bench,
    suspect: str,
    text: str,
    ran: str,
    images: Images,
    other: int,
    *,
    most: int = 0,
    settled: bool = False,
    in_a_batch: bool = False,
) -> Trial:
    """Compare a trial's images with the other library's, and log the trial; up to ``most`` pixels may differ."""
    targets = bench.traces[other]
    left = apart(images, targets.batch_images if in_a_batch else targets.images)
    trial = Trial(suspect, text, ran, left.largest, left.pixels, settled or left.pixels <= most)
    bench.trials.append(trial)
    return trial


def first_meeting(bench: Bench) -> Finding | None:
    """The first trial that met, and the trials of other suspects that met as well; None where none met."""
    meeting = [trial for trial in bench.trials if trial.meets]
    if not meeting:
        return None
    first = meeting[0]
    others = {trial.suspect: trial for trial in meeting if trial.suspect != first.suspect}
    as_well = tuple(f"{trial.suspect}: {trial.text}" for trial in others.values())
    return Finding("different", first.suspect, first.text, first.residual, as_well)
