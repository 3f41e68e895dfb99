"""The debugger: whether two libraries' attack is the same on some images, and if not, which one change makes it so.

Both libraries run on the same classifier, which keeps every query. What their paths tell apart names the suspects; then
one library runs again, itself or as a stand-in (the referee under its habits), with one suspect changed at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters import variants_minimal as minimal
from sparring.adapters.errors import InputError, SparringError
from sparring.adapters.ledger import habits as ledger_habits
from sparring.adapters.library import Library, load_library
from sparring.adapters.protocol import Classifier, Differentiable, Images, Labels, Logits
from sparring.adapters.support import Request, request
from sparring.adapters.tracing import Path, Query, Trace, attacking, goals, trace
from sparring.adapters.variants import Recipe, cross_entropy, margin, recipe, rounded, simulate
from sparring.adapters.variants_replay import GRIDS, read_loss
from sparring.adapters.variants_search import Change, Pair, compare, nearest, recordable, scale

Array = npt.NDArray[Any]
Report = Callable[[str, int, int], None]
"""what is being done, done, total"""
TOLERANCE = 1e-5
"""Largest difference of a pixel between images that are called the same."""
LONGEST = 60.0
"""Seconds for the search among the parameters of an attack that no stand-in has."""


@dataclass(frozen=True)
class Trial:
    """One suspect changed: in which library or stand-in, and what then still differs from the other library.

    ``residual``: largest difference of a pixel; ``pixels``: how many differ by more than ``TOLERANCE``.
    """

    suspect: str
    text: str
    ran: str
    residual: float
    pixels: int
    meets: bool


@dataclass(frozen=True)
class Step:
    """Where one image stands at one step of each library; None for a library that has ended before."""

    loss: tuple[float | None, float | None]
    margin: tuple[float | None, float | None]
    """the label's logit minus the best other: below zero where the image is misclassified"""
    distance: tuple[float | None, float | None]
    """Euclidean, from the image"""
    apart: float
    """largest difference of a pixel between the two"""


@dataclass(frozen=True)
class Parting:
    """The first step at which two paths part: of which image, by how much and at which pixels (channel, row, column).

    ``by``: |Δ|, (C, H, W). ``at_the_end``: every query is shared, only the returned images differ.
    """

    image: int
    step: int
    largest: float
    count: int
    pixels: tuple[tuple[int, int, int], ...]
    by: Array
    at_the_end: bool


@dataclass(frozen=True)
class Explanation:
    """What the debugger found.

    ``verdict``: ``same`` or ``different``; ``suspect`` is the change's name where one was found that makes the two meet,
    ``change`` says it in words, and ``residual`` is what then still differs. ``named``: the same, or explained.
    """

    attack: str
    norm: str
    params: Mapping[str, Any]
    libraries: tuple[str, str]
    images: tuple[int, ...]
    verdict: Literal["same", "different"]
    suspect: str | None
    change: str
    residual: float
    largest: float
    """the largest difference of a pixel of the returned images"""
    pixels: int
    """how many differ by more than ``TOLERANCE``"""
    rounding: int
    """how many of those differ only because a gradient there is zero within rounding"""
    first_parting: Parting | None
    steps: tuple[tuple[Step, ...], ...]
    """of each image"""
    trials: tuple[Trial, ...]
    as_well: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ledger: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Nothing is left to explain."""
        return self.verdict == "same" or self.suspect is not None


def explain(
    attack: str,
    library_a: str | Library,
    library_b: str | Library,
    classifier: Classifier,
    x: Images,
    y: Labels,
    params: Mapping[str, Any] | None = None,
    *,
    norm: str | None = None,
    targeted: bool = False,
    seed: int = 0,
    images: tuple[int, ...] | None = None,
    report: Report | None = None,
) -> Explanation:
    """Compare two libraries' attack on images (N, C, H, W) with true labels (N,), and name what tells them apart.

    ``images`` are the images' numbers, for the text. Raises ``InputError`` for bad input, ``NotSupported`` where a
    library lacks the attack, ``LibraryError`` where one fails.
    """
    asked = request(attack, norm=norm, targeted=targeted, params=params)
    if asked.canonical is None:
        raise InputError(f"{attack}: explain compares canonical attacks, which every library calls by one name")
    if not len(x):
        raise InputError("explain needs at least one image")
    if asked.canonical.needs == "gradients" and not isinstance(classifier, Differentiable):
        raise InputError(f"{attack} needs gradients, and a {type(classifier).__name__} gives logits only")
    libraries = tuple(load_library(each) if isinstance(each, str) else each for each in (library_a, library_b))
    names = _names(library_a, library_b, libraries)
    bench = _Bench(asked, (libraries[0], libraries[1]), names, classifier, x, y, seed, report or _silent)
    return bench.explanation(images or tuple(range(len(x))))


def _silent(what: str, done: int, total: int) -> None:
    return None


def _names(a: str | Library, b: str | Library, libraries: tuple[Library, ...]) -> tuple[str, str]:
    """What the text calls them: two copies under one name are told apart by where they come from, or by a number."""
    told = [each if isinstance(each, str) else each.name for each in (a, b)]
    short = [each.name for each in libraries]
    if short[0] != short[1]:
        return short[0], short[1]
    return (told[0], told[1]) if told[0] != told[1] else (f"{told[0]} (1)", f"{told[1]} (2)")


@dataclass
class _Bench:
    """Two libraries on one classifier, and the runs made of them so far."""

    asked: Request
    libraries: tuple[Library, Library]
    names: tuple[str, str]
    classifier: Any
    x: Images
    y: Labels
    seed: int
    report: Report
    traces: list[Trace] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def explanation(self, images: tuple[int, ...]) -> Explanation:
        """Everything, from the runs to the finding."""
        self.whose = goals(self.asked, self.y, self.classifier.classes, self.seed)
        for name, library in zip(self.names, self.libraries, strict=True):
            ran = trace(
                library, self.classifier, self.x, self.whose, self.asked, self.seed,
                lambda done, total, name=name: self.report(f"attacks of {name}", done, total),  # type: ignore[misc]
            )  # fmt: skip
            self.traces.append(replace(ran, library=name))
        apart = _apart(self.a.images, self.b.images)
        together = _apart(self.a.batch_images, self.b.batch_images)
        pair = self._pair()
        found = self._find(apart, together, pair)
        rounding = found.rounding if found.verdict == "same" else 0
        return Explanation(
            self.asked.name, self.asked.norm or "", self.asked.params, self.names, images,
            found.verdict, found.suspect, found.change, found.residual,
            max(apart.largest, together.largest), max(apart.pixels, together.pixels), rounding,
            first_parting(self.a, self.b, recordable(self.asked.name, self.asked.norm, self.asked.params)),
            self._steps(), tuple(self.trials), found.as_well, tuple(dict.fromkeys(self.notes)), self._ledger(),
        )  # fmt: skip

    @property
    def a(self) -> Trace:
        return self.traces[0]

    @property
    def b(self) -> Trace:
        return self.traces[1]

    # --- the finding

    def _pair(self) -> Pair | None:
        if not recordable(self.asked.name, self.asked.norm, self.asked.params):
            return None
        self.report("reading the paths", 0, 1)
        return compare(self.a, self.b, self.classifier, self._recipe)

    @property
    def _recipe(self) -> Recipe:
        return recipe(self.asked.name, str(self.asked.norm), self.asked.params, self.asked.targeted)

    def _find(self, apart: _Apart, together: _Apart, pair: Pair | None) -> _Found:
        if not apart.pixels and not together.pixels:
            self._mention(pair)
            return _Found("same", rounding=0)
        if apart.pixels:
            found = self._by_the_tape(pair, apart) if pair is not None else self._by_trial(apart)
            if found.verdict == "different":
                return found
        else:
            found = _Found("same")
        batch = self._by_the_batch(together, found)
        if batch is None:
            self._mention(pair)
            return replace(found, rounding=max(apart.pixels, together.pixels))
        return batch

    def _mention(self, pair: Pair | None) -> None:
        """What differs in the paths and shows in no image."""
        for change in pair.changes if pair is not None else ():
            if change.suspect != "start":
                self.notes.append(f"{change.suspect}: {change.text}; on these images that makes no difference")
        if pair is not None:
            scales = [self._batch_scale(each) for each in self.traces]
            if abs(scales[0] / scales[1] - 1) > 0.01:
                self.notes.append(
                    f"loss reduction: in a batch of {len(self.x)} the loss of {self.names[1]} is "
                    f"{scales[1] / scales[0]:.4g} times that of {self.names[0]}; on these images that makes no difference"
                )

    def _by_the_tape(self, pair: Pair, apart: _Apart) -> _Found:
        """Gradient attacks: the changed habits as the recorded steps show them, then tried."""
        if not pair.changes and not pair.left and not pair.left_of_a:
            if (found := self._by_the_scale(pair, apart)) is not None:
                return found
            exact = [bool(each.loss.exact[each.alive].all()) for each in pair.tapes]
            if exact[0] != exact[1]:
                return self._by_exact_loss(exact, apart)
            return _Found("same", rounding=apart.pixels)
        for change in pair.changes:
            self._try_change(change, pair, alone=len(pair.changes) == 1 and not pair.left)
        for change, left in nearest(pair, self.names, self._recipe):
            if change.suspect not in {one.suspect for one in pair.changes}:
                self._try_change(change, pair, alone=not left and len(pair.changes) == 1)
        meeting = [trial for trial in self.trials if trial.meets]
        named = [change for change in pair.changes]
        if len(named) == 1 and not pair.left:
            trial = next(one for one in self.trials if one.suspect == named[0].suspect)
            as_well = tuple(f"{change.suspect}: {change.text}" for change in pair.as_well)
            return _Found("different", named[0].suspect, named[0].text, trial.residual, as_well)
        if named and not pair.left:
            return _Found(
                "different", named[0].suspect, "; and ".join(one.text for one in named),
                min(trial.residual for trial in self.trials),
                (f"it takes {len(named)} changes: {', '.join(one.suspect for one in named)}",),
            )  # fmt: skip
        if meeting:
            return _Found("different", meeting[0].suspect, meeting[0].text, meeting[0].residual)
        if pair.left or pair.left_of_a:
            return self._by_trial(apart)
        return _Found("different")

    def _by_the_scale(self, pair: Pair, apart: _Apart) -> _Found | None:
        """A loss that is multiplied by something small loses its small gradients."""
        scales = [scale(each) for each in pair.tapes]
        if abs(scales[0] / scales[1] - 1) < 0.01:
            return None
        which = int(abs(np.log(scales[1])) >= abs(np.log(scales[0])))
        images = self._rerun(which, classifier=_Rescaled(self.classifier, scales[1 - which] / scales[which]))
        text = f"{self.names[1]}'s loss is {scales[1] / scales[0]:.4g} times {self.names[0]}'s"
        trial = self._judge("loss reduction", text, f"{self.names[which]} itself, rescaled", images, 1 - which, False)
        return _Found("different", trial.suspect, text, trial.residual) if trial.meets else None

    def _by_exact_loss(self, exact: list[bool], apart: _Apart) -> _Found:
        """One loss's gradient is float64's, the other's float32's: does the second with an exact one give the first?"""
        which = 0 if exact[1] else 1
        images = self._rerun(which, classifier=_ExactLoss(self.classifier, self.whose, self.asked.targeted))
        text = f"{self.names[which]}'s loss is computed in float32, which near certainty rounds its gradient"
        trial = self._judge("dtype", text, f"{self.names[which]} itself, with an exact loss", images, 1 - which, False)
        if trial.pixels <= max(0.02 * self.x.size, 0) and trial.pixels < 0.5 * apart.pixels:
            self.trials[-1] = replace(trial, meets=True)
            return _Found("different", "dtype", text, trial.residual)
        return _Found("same", rounding=apart.pixels)

    def _try_change(self, change: Change, pair: Pair, alone: bool) -> None:
        """Run the first library again with one change: itself where its parameters can say it, else its stand-in."""
        self.report(f"trying: {change.suspect}", len(self.trials), 12)
        outer = self._outside(change)
        try:
            if change.suspect == "best against last iterate" and alone:
                self._try_last(change, pair)
                return
            if outer is not None:
                images, ran = self._rerun(0, **outer), f"{self.names[0]} itself"
            elif change.habits is not None:
                images, ran = self._stand_in(change, pair), f"a stand-in of {self.names[0]}"
            else:
                return
        except SparringError as error:
            self.notes.append(f"{change.suspect} could not be tried: {error}")
            return
        self._judge(change.suspect, change.text, ran, images, 1, alone)

    def _try_last(self, change: Change, pair: Pair) -> None:
        """The last iterate of the library that returns another, as its own recorded steps give it."""
        which = int(pair.fits[1].habits.returns == "best")
        images = pair.fits[which].left.ends.astype(np.float32)
        self._judge(change.suspect, change.text, f"the last iterate of {self.names[which]}", images, 1 - which, True)

    def _outside(self, change: Change) -> dict[str, Any] | None:
        """The run of the library itself in which one habit is changed, where that can be said from outside."""
        habits, params = change.habits, dict(self.asked.params)
        if habits is None:
            return None
        if change.suspect == "step" and isinstance(habits.step, float) and habits.floor == "none":
            key = "eps_step" if "eps_step" in params else "eps"
            params[key] *= habits.step
        elif change.suspect == "number of steps" and "steps" in params:
            params["steps"] += habits.steps
        elif change.suspect == "budget" and self.asked.name != "fgsm":
            params["eps"] *= habits.budget
        elif change.suspect == "label source" and habits.labels in ("predicted", "next"):
            clean = self.classifier.logits(self.x)
            labels = clean.argmax(axis=1) if habits.labels == "predicted" else (self.whose + 1) % clean.shape[1]
            return {"y": labels.astype(np.int64)}
        else:
            return None
        try:
            return {"asked": self._asked(params)}
        except InputError:
            return None

    def _asked(self, params: Mapping[str, Any]) -> Request:
        return request(self.asked.name, norm=self.asked.norm, targeted=self.asked.targeted, params=params)

    def _stand_in(self, change: Change, pair: Pair) -> Images:
        assert change.habits is not None
        tape = pair.tapes[0]
        own = tape.points[0] if len(tape.points) else tape.image
        starts = change.starts if change.starts is not None else own.astype(np.float32)
        exact = bool(tape.loss.exact[tape.alive].all())
        habits = replace(change.habits, start="given", exact=exact)
        return simulate(self.classifier, self.x, self.whose, self._recipe, habits, starts=starts)

    def _judge(self, suspect: str, text: str, ran: str, images: Images, other: int, by_tape: bool) -> Trial:
        left = _apart(images, self.traces[other].images)
        # a few pixels may part for good where a gradient is zero within rounding: the tape knows better
        meets = left.pixels == 0 or (by_tape and left.pixels <= 0.02 * self.x.size)
        trial = Trial(suspect, text, ran, left.largest, left.pixels, meets or by_tape)
        self.trials.append(trial)
        return trial

    def _rerun(
        self,
        which: int,
        asked: Request | None = None,
        y: Labels | None = None,
        classifier: Any = None,
        at_once: int | None = 1,
    ) -> Images:
        """A library once more with something else given to it, ``at_once`` images in a call; None: all."""
        labels = self.whose if y is None else y
        size = at_once or len(self.x)
        with attacking(
            self.libraries[which], classifier or self.classifier, asked or self.asked, self.seed
        ) as attack:  # fmt: skip
            parts = [slice(first, first + size) for first in range(0, len(self.x), size)]
            return np.concatenate([attack(self.x[part], labels[part]) for part in parts])

    # --- attacks that no tape tells: every parameter, every stand-in

    def _by_trial(self, apart: _Apart) -> _Found:
        for suspect, text, images in self._from_paths():
            self._judge(suspect, text, "the path itself", images, 1, False)
        if meeting := self._meeting():
            return meeting
        if self.asked.name in minimal.KNOWN and (found := self._by_stand_ins()) is not None:
            return found
        seconds = time.perf_counter()
        for tried, (which, (suspect, text, outer)) in enumerate(self._outer()):
            if tried > 8 and time.perf_counter() - seconds > LONGEST:
                self.notes.append(f"after {tried} reruns the search for a parameter was given up")
                break
            self.report(f"trying: {suspect}", tried, tried + 1)
            try:
                images = self._rerun(which, **outer)
            except SparringError:
                continue
            trial = self._judge(suspect, text, f"{self.names[which]} itself", images, 1 - which, False)
            if trial.meets:
                break
        return self._meeting() or _Found("different")

    def _meeting(self) -> _Found | None:
        meeting = [trial for trial in self.trials if trial.meets]
        if not meeting:
            return None
        others = {trial.suspect: trial for trial in meeting[1:] if trial.suspect != meeting[0].suspect}
        as_well = tuple(f"{trial.suspect}: {trial.text}" for trial in others.values())
        return _Found("different", meeting[0].suspect, meeting[0].text, meeting[0].residual, as_well)

    def _from_paths(self) -> Iterator[tuple[str, str, Images]]:
        """The first library's recorded images, taken elsewhere on its path or rounded."""
        a, b = self.a.paths, self.b.paths
        own, other = self.a.images, self.names[1]
        for grid in GRIDS:
            coarse = np.asarray(rounded(own.astype(np.float64), grid), np.float32)
            if _apart(coarse, own).pixels:
                yield "dtype", f"{other} rounds its images to {grid}", coarse
        ways = [(visited(one), visited(two)) for one, two in zip(self.a.paths, self.b.paths, strict=True)]
        together = all(
            len(one) == len(two) and _apart(np.stack(one[:-1] or one), np.stack(two[:-1] or two)).pixels == 0
            for one, two in ways
        )
        if together:  # only what is returned differs
            ends = [_nearest_point(path, end.final) for path, end in zip(self.a.paths, self.b.paths, strict=True)]
            text = f"{other} returns another of the points that both visit than {self.names[0]} does"
            yield "best against last iterate", text, np.stack(ends).astype(np.float32)

    def _by_stand_ins(self) -> _Found | None:
        """DeepFool and CW: the habits that give the first library's images, then what must change for the second's."""
        name, params = self.asked.name, self.asked.params

        def progress(what: str) -> None:
            self.report(what, 0, 1)

        first = minimal.fit(
            name, self.classifier, self.a.paths, params, minimal.KNOWN[name], TOLERANCE, self.asked.targeted, 2, progress
        )  # fmt: skip
        if first.residual > TOLERANCE:
            self.notes.append(
                f"no stand-in gives the images of {self.names[0]}: the nearest is {first.residual:.2g} away"
            )
            return None
        second = minimal.fit(
            name, self.classifier, self.b.paths, params, (first.habits, *minimal.KNOWN[name]), TOLERANCE,
            self.asked.targeted, 3, progress,
        )  # fmt: skip
        changes = minimal.changed(first.habits, second.habits)
        suspects = [*dict.fromkeys(minimal.SUSPECT[key] for key in changes)]
        if not suspects:
            return None
        text = f"{self.names[1]}: {_told(changes, 1)}; {self.names[0]}: {_told(changes, 0)}"
        left = minimal.attack(name, self.classifier, self.x, self.whose, params, second.habits, self.asked.targeted)
        trial = self._judge(suspects[0], text, f"a stand-in of {self.names[0]}", left, 1, False)
        if not trial.meets:
            return None
        as_well = []
        for habits in second.as_well if len(suspects) == 1 else ():
            for key in minimal.changed(first.habits, habits):
                if minimal.SUSPECT[key] not in suspects:
                    told = minimal.changed(first.habits, habits)
                    as_well.append(f"{minimal.SUSPECT[key]}: {self.names[1]}: {_told(told, 1)}")
        if len(suspects) > 1:
            as_well.append(f"it takes {len(suspects)} changes: {', '.join(suspects)}")
        return _Found("different", suspects[0], text, trial.residual, tuple(dict.fromkeys(as_well)))

    def _outer(self) -> Iterator[tuple[int, tuple[str, str, dict[str, Any]]]]:
        """Which library runs again, and with what: other labels, other values of each parameter."""
        clean = self.classifier.logits(self.x).argmax(axis=1).astype(np.int64)
        for which in (0, 1):
            other = self.names[1 - which]
            if (clean != self.whose).any():
                yield which, ("label source", f"{other} takes the model's own predictions", {"y": clean})
            for key, parameter in (self.asked.canonical.parameters if self.asked.canonical else {}).items():
                value = self.asked.params[key]
                for option in _values(key, parameter.type, value, self.a, self.b, which):
                    try:
                        asked = self._asked({**self.asked.params, key: option})
                    except InputError:
                        continue
                    text = f"{other}'s {key} is {_number(option)}, where {_number(value)} is asked for"
                    yield which, (PARAMETERS.get(key, key), text, {"asked": asked})

    # --- what only a batch shows

    def _by_the_batch(self, together: _Apart, single: _Found) -> _Found | None:
        """Where single images agree and a batch doesn't: a loss divided by the batch, or images that share more."""
        alike = [_apart(each.images, each.batch_images) for each in self.traces]
        noise = single.rounding
        if together.pixels <= max(2 * noise, 0):
            return None
        n = len(self.x)
        scales = [self._batch_scale(each) for each in self.traces]
        which = int(abs(np.log(scales[1])) >= abs(np.log(scales[0])))
        if abs(scales[0] / scales[1] - 1) > 0.01:
            factor = scales[1 - which] / scales[which]
            images = self._rerun(which, classifier=_Rescaled(self.classifier, factor), at_once=None)
            text = (
                f"in a batch of {n} the loss of {self.names[1]} is {scales[1] / scales[0]:.4g} times that of "
                f"{self.names[0]}: one is a mean over the batch, the other a sum"
            )
            left = _apart(images, self.traces[1 - which].batch_images)
            self.trials.append(
                Trial(
                    "loss reduction",
                    text,
                    f"{self.names[which]} itself, rescaled",
                    left.largest,
                    left.pixels,
                    left.pixels <= max(noise, together.pixels // 20),
                )  # fmt: skip
            )
            if self.trials[-1].meets:
                return _Found("different", "loss reduction", text, left.largest)
        which = int(alike[1].pixels >= alike[0].pixels)
        images = self._rerun(which, at_once=1)
        left = _apart(images, self.traces[1 - which].batch_images)
        sizes = [max((query.batch for query in each.batch_queries), default=0) for each in self.traces]
        text = (
            f"{self.names[which]}'s image depends on the other images of its batch (it asks about up to {sizes[which]} at "
            f"once, {self.names[1 - which]} about {sizes[1 - which]}); one image at a time they agree"
        )
        meets = left.pixels <= max(noise, together.pixels // 20)
        trial = Trial(
            "batch size", text, f"{self.names[which]} itself, one image a batch", left.largest, left.pixels, meets
        )
        self.trials.append(trial)
        if meets:
            return _Found("different", "batch size", text, left.largest)
        return _Found("different")

    def _batch_scale(self, ran: Trace) -> float:
        """By what the loss is multiplied in the batch: 1 for a sum."""
        queries = [query for query in ran.batch_queries if query.kind == "vjp"]
        if not queries or self.asked.name in minimal.KNOWN:
            return 1.0
        # the largest cotangents tell best; a row's label isn't known, so that its own is looked for
        queries = sorted(queries, key=lambda query: -float(np.abs(query.cotangent).max()))[:32]
        cotangents = np.stack([np.asarray(query.cotangent, np.float64) for query in queries])[None]
        logits = self.classifier.logits(np.stack([query.x for query in queries]))[None]
        loss = read_loss(cotangents, logits, np.argmin(cotangents, axis=-1), self.asked.targeted)
        found = np.abs(loss.scale[(loss.label >= 0) & (loss.error < 1e-3) & (loss.size > 1e-2)])
        return float(np.median(found)) if len(found) and np.ptp(found) < 1e-3 * found.max() else 1.0

    # --- what is shown

    def _steps(self) -> tuple[tuple[Step, ...], ...]:
        gradients = recordable(self.asked.name, self.asked.norm, self.asked.params)
        return tuple(
            _table((one, two), int(label), self.classifier, gradients)
            for one, two, label in zip(self.a.paths, self.b.paths, self.whose, strict=True)
        )

    def _ledger(self) -> tuple[str, ...]:
        """The known differences that one of the two has and the other has not."""
        framework = getattr(self.classifier, "framework", None)
        each = []
        for library in self.libraries:
            try:
                version = library.version()
            except InputError:
                return ()
            found = ledger_habits(
                self.asked.name, self.asked.norm, self.asked.params, library.name, version, framework, "bridged"
            )
            each.append({entry.id: entry for entry in found})
        return tuple(f"{key}: {(each[0] | each[1])[key].cause}" for key in sorted(each[0].keys() ^ each[1].keys()))


@dataclass(frozen=True)
class _Found:
    verdict: Literal["same", "different"]
    suspect: str | None = None
    change: str = ""
    residual: float = 0.0
    as_well: tuple[str, ...] = ()
    rounding: int = 0


@dataclass(frozen=True)
class _Apart:
    largest: float
    pixels: int


def _apart(a: Images, b: Images) -> _Apart:
    off = np.abs(a.astype(np.float64) - b.astype(np.float64))
    off = np.where(np.isnan(off), np.inf, off)
    return _Apart(float(off.max(initial=0)), int((off > TOLERANCE).sum()))


PARAMETERS = {
    "eps": "budget", "eps_step": "step", "learning_rate": "step", "theta": "step", "steps": "number of steps",
    "queries": "number of steps", "iterations": "number of steps", "random_start": "start", "overshoot": "overshoot",
    "abort_early": "early stop", "initial_const": "constant c", "search_steps": "constant c", "decay": "momentum",
}  # fmt: skip
"""Canonical parameter -> the suspect that it is."""


def _values(key: str, kind: type, value: Any, a: Trace, b: Trace, which: int) -> list[Any]:
    """Other values of a parameter: those that the numbers of queries suggest, and the usual slips."""
    if kind is bool:
        return [not value]
    if kind is int:
        counts = [sum(len(path.gradients) or len(path.queries) for path in each.paths) for each in (a, b)]
        ratio = counts[1 - which] / max(counts[which], 1)
        return [*dict.fromkeys([round(value * ratio), value - 1, value + 1, 2 * value, value // 2])]
    if kind is float:
        factors = (1.1, 0.9, 2.0, 0.5, 1.05, 0.95, 1.2, 0.8, 1.5, 10.0, 0.1, 2.5, 0.4, 1.25, 0.75)
        return [value * factor for factor in factors] if value else [0.01, 0.1, 1.0]
    return []


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _told(changes: dict[str, tuple[Any, Any]], side: int) -> str:
    words = {
        "step": "times the step asked for", "steps": "steps more than asked for", "constant": "times the constant asked for",
        "searches": "search steps more than asked for", "confidence": "more confidence than asked for",
    }  # fmt: skip
    told = []
    for key, pair in changes.items():
        value = _number(pair[side]) if pair[side] is not None else "as asked"
        told.append(f"{value} {words[key]}" if key in words else f"{key.replace('_', ' ')} {value}")
    return ", ".join(told)


class _Wrapped:
    """A classifier whose cotangents are changed on their way."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes
        self.framework = getattr(inner, "framework", "torch")

    def logits(self, x: Images) -> Logits:
        answer: Logits = self.inner.logits(x)
        return answer


class _Rescaled(_Wrapped):
    def __init__(self, inner: Any, factor: float) -> None:
        super().__init__(inner)
        self.factor = factor

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        answer: Images = self.inner.vjp(x, np.asarray(cotangent * self.factor, np.float32))
        return answer


class _ExactLoss(_Wrapped):
    """Gives each cross-entropy's cotangent the own logit's share that float32 rounded off."""

    def __init__(self, inner: Any, labels: Labels, targeted: bool) -> None:
        super().__init__(inner)
        self.labels, self.targeted = labels, targeted

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        logits = self.inner.logits(x).astype(np.float64)
        own = np.abs(cotangent).argmax(axis=1)
        nearly = np.abs(cotangent).max(axis=1) < 1e-2
        own = np.where(nearly, logits.argmax(axis=1), own)
        rest = cotangent.astype(np.float64)
        rest[np.arange(len(x)), own] = 0
        rest[np.arange(len(x)), own] = -rest.sum(axis=1)
        answer: Images = self.inner.vjp(x, rest.astype(np.float32))
        return answer


def visited(path: Path, gradients: bool = False) -> list[Array]:
    """The points of a path, each once in a row: where gradients were asked for, or anything at all; and its end."""
    queries: tuple[Query, ...] = path.gradients if gradients else path.queries
    points: list[Array] = []
    for query in queries:
        if gradients or not points or not np.array_equal(points[-1], query.x):
            points.append(query.x)
    return [*points, path.final]


def _nearest_point(path: Path, target: Array) -> Array:
    points = [path.image, *visited(path)]
    return points[int(np.argmin([np.abs(point - target).max() for point in points]))]


def first_parting(a: Trace, b: Trace, gradients: bool) -> Parting | None:
    """The earliest step at which an image's two paths part by more than ``TOLERANCE``; of several the widest."""
    found: list[Parting] = []
    for image, (one, two) in enumerate(zip(a.paths, b.paths, strict=True)):
        ways = visited(one, gradients), visited(two, gradients)
        for step in range(max(map(len, ways))):
            points = [way[min(step, len(way) - 1)] for way in ways]
            by = np.abs(points[0].astype(np.float64) - points[1])
            if (by > TOLERANCE).any():
                order = np.argsort(-by, axis=None)[:5]
                pixels = [np.unravel_index(int(i), by.shape) for i in order if by.ravel()[i] > TOLERANCE]
                where = tuple((int(c), int(h), int(w)) for c, h, w in pixels)
                ends = step >= min(map(len, ways)) - 1
                found.append(Parting(image, step, float(by.max()), int((by > TOLERANCE).sum()), where, by, ends))
                break
    return min(found, key=lambda one: (one.step, -one.largest)) if found else None


def _table(paths: tuple[Path, Path], label: int, classifier: Classifier, gradients: bool) -> tuple[Step, ...]:
    ways = [visited(path, gradients) for path in paths]
    told = []
    for way, path in zip(ways, paths, strict=True):
        points = np.clip(np.stack(way), -10, 10).astype(np.float32)
        logits = np.concatenate([classifier.logits(points[i : i + 256]) for i in range(0, len(points), 256)])
        labels = np.full(len(points), label)
        far = np.sqrt(((points.astype(np.float64) - path.image) ** 2).sum(axis=(1, 2, 3)))
        told.append(list(zip(cross_entropy(logits, labels), margin(logits, labels), far, strict=True)))
    rows = []
    for step in range(max(map(len, ways))):
        cells = [tuple(map(float, side[step])) if step < len(side) else (None, None, None) for side in told]
        points = [way[min(step, len(way) - 1)] for way in ways]
        apart = float(np.abs(points[0].astype(np.float64) - points[1]).max())
        pairs = [(cells[0][i], cells[1][i]) for i in range(3)]
        rows.append(Step(pairs[0], pairs[1], pairs[2], apart))
    return tuple(rows)
