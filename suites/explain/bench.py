"""The search for the one change that makes two libraries meet: what the paths suggest, tried one suspect at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sparring.adapters.attacks.inputs import labels_of_call
from sparring.adapters.attacks.library import Library
from sparring.adapters.attacks.request import Request, request
from sparring.adapters.errors import InputError, SparringError
from sparring.adapters.protocol import Images, Labels, Logits
from sparring.suites.explain.habits import minimal
from sparring.suites.explain.habits.compare import Change, Pair, compare, nearest, recordable, scale
from sparring.suites.explain.habits.gradient import Recipe, recipe, rounded, simulate
from sparring.suites.explain.habits.replay import GRIDS, read_loss
from sparring.suites.explain.habits.trace import Path, Trace, attacking, trace
from sparring.suites.explain.paths import Apart, apart, batch_paths, nearest_points, same_way

Report = Callable[[str, int, int], None]
"""what is being done, done, total"""
LONGEST = 60.0
"""Seconds for the search among the parameters of an attack that no stand-in has."""

PARAMETERS = {
    "eps": "budget", "eps_step": "step", "learning_rate": "step", "theta": "step", "steps": "number of steps",
    "queries": "number of steps", "iterations": "number of steps", "random_start": "start", "overshoot": "overshoot",
    "abort_early": "early stop", "initial_const": "constant c", "search_steps": "constant c", "decay": "momentum",
}  # fmt: skip
"""Canonical parameter -> the suspect that it is."""


@dataclass(frozen=True)
class Trial:
    """One suspect changed: in which library or stand-in, and what then still differs from the other library.

    ``residual``: the largest difference of a pixel; ``pixels``: how many differ.
    """

    suspect: str
    text: str
    ran: str
    residual: float
    pixels: int
    meets: bool


@dataclass(frozen=True)
class Found:
    """The verdict, the suspect and its change, what then still differs, and what would do as well."""

    verdict: Literal["same", "different"]
    suspect: str | None = None
    change: str = ""
    residual: float = 0.0
    as_well: tuple[str, ...] = ()
    rounding: int = 0
    """pixels that differ only because a gradient there is zero within rounding"""


@dataclass
class Bench:
    """Two libraries on one classifier, and the runs made of them so far. x (N, C, H, W), y (N,) the true labels."""

    asked: Request
    libraries: tuple[Library, Library]
    names: tuple[str, str]
    classifier: Any
    x: Images
    y: Labels
    seed: int
    report: Report
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    # --- what ran

    @cached_property
    def whose(self) -> Labels:
        """The labels that the libraries get."""
        return labels_of_call(self.asked, self.y, None, self.classifier.classes, self.seed)

    @cached_property
    def traces(self) -> tuple[Trace, Trace]:
        """Both libraries' paths."""
        return self._trace(0), self._trace(1)

    def _trace(self, which: int) -> Trace:
        def progress(done: int, total: int) -> None:
            self.report(f"attacks of {self.names[which]}", done, total)

        found = trace(
            self.libraries[which], self.classifier, self.x, self.whose, self.asked, self.seed, progress
        )  # fmt: skip
        return replace(found, library=self.names[which])

    @property
    def read(self) -> bool:
        """Whether the gradient queries are the steps, so that a tape can be read."""
        return recordable(self.asked.name, self.asked.norm, self.asked.params)

    @cached_property
    def pair(self) -> Pair | None:
        """What the tapes of both tell, for the attacks that have a tape."""
        if not self.read:
            return None
        self.report("reading the paths", 0, 1)
        return compare(*self.traces, self.classifier, self.recipe)

    @property
    def recipe(self) -> Recipe:
        """The attack for the rules of ``variants``."""
        return recipe(self.asked.name, str(self.asked.norm), self.asked.params, self.asked.targeted)

    # --- the verdict

    def find(self) -> Found:
        """Compare image by image, then the batch; and where something differs, look for the change."""
        a, b = self.traces
        singly, together = apart(a.images, b.images), apart(a.batch_images, b.batch_images)
        found = Found("same", rounding=max(singly.pixels, together.pixels))
        if singly.pixels:
            found = self._by_the_tape(self.pair, singly) if self.pair is not None else self._by_trial()
        if found.verdict == "same" and together.pixels > 2 * (found.rounding if singly.pixels else 0):
            found = self._by_the_batch(together, found.rounding if singly.pixels else 0)
        if found.verdict == "same":
            self._mention(self.pair)
        return found

    def _mention(self, pair: Pair | None) -> None:
        """What differs in the paths and shows in no image."""
        if pair is None:
            return
        said = [f"{change.suspect}: {change.text}" for change in pair.changes]
        ratio = self._batch_scale(1) / self._batch_scale(0)
        if abs(ratio - 1) > 0.01:
            of = f"in a batch of {len(self.x)} the loss of {self.names[1]} is {ratio:.4g} times {self.names[0]}'s"
            said.append(f"loss reduction: {of}")
        self.notes += [f"{one}; on these images that makes no difference" for one in said]

    # --- gradient attacks: the changed habits as the recorded steps show them, then tried

    def _by_the_tape(self, pair: Pair, singly: Apart) -> Found:
        if not pair.changes and not pair.left and not pair.left_of_a:
            by_loss = self._by_the_scale(pair) or self._by_exact_loss(pair, singly)
            return by_loss or (self._by_trial() if self._decided_otherwise() else Found("same", rounding=singly.pixels))
        alone = len(pair.changes) == 1
        for change in pair.changes:
            self._try(change, pair, settled=alone and not pair.left)
        suspected = {change.suspect for change in pair.changes}
        for change, left in nearest(pair, self.names, self.recipe):
            if change.suspect not in suspected:
                self._try(change, pair, settled=alone and not left)
        if pair.changes and not pair.left:
            return self._named(pair)
        return self._met() or self._by_trial()

    def _decided_otherwise(self) -> bool:
        """Whether the classifier sees one library's images as others than the other's, which it does not where pixels
        differ that have no gradient: a logit is off by a tenth of the largest."""
        a, b = (self.classifier.logits(each.images) for each in self.traces)
        return bool((np.abs(a - b).max(axis=1) > 0.1 * np.abs(a).max(axis=1)).any())

    def _named(self, pair: Pair) -> Found:
        """The recorded steps are recomputed to the last pixel with these changes."""
        first = pair.changes[0]
        residuals = [trial.residual for trial in self.trials if trial.suspect == first.suspect]
        as_well = [f"{change.suspect}: {change.text}" for change in pair.as_well]
        if len(pair.changes) > 1:
            as_well = [f"it takes {len(pair.changes)} changes: {', '.join(one.suspect for one in pair.changes)}"]
        text = "; and ".join(change.text for change in pair.changes)
        return Found("different", first.suspect, text, min(residuals, default=0.0), tuple(as_well))

    def _by_the_scale(self, pair: Pair) -> Found | None:
        """A loss that is multiplied by something small loses its small gradients."""
        scales = [scale(each) for each in pair.tapes]
        if abs(scales[0] / scales[1] - 1) < 0.01:
            return None
        which = int(abs(np.log(scales[1])) >= abs(np.log(scales[0])))
        images = self.rerun(which, classifier=Rescaled(self.classifier, scales[1 - which] / scales[which]))
        text = f"{self.names[1]}'s loss is {scales[1] / scales[0]:.4g} times {self.names[0]}'s"
        trial = self._judge("loss reduction", text, f"{self.names[which]} itself, rescaled", images, 1 - which)
        return self._met() if trial.meets else None

    def _by_exact_loss(self, pair: Pair, singly: Apart) -> Found | None:
        """One loss's gradient is float64's, the other's float32's: does the second with an exact one give the first?"""
        exact = [bool(each.loss.exact[each.alive].all()) for each in pair.tapes]
        if exact[0] == exact[1]:
            return None
        which = 0 if exact[1] else 1
        images = self.rerun(which, classifier=ExactLoss(self.classifier))
        text = f"{self.names[which]}'s loss is computed in float32, which near certainty rounds its gradient"
        ran = f"{self.names[which]} itself, with an exact loss"
        trial = self._judge("dtype", text, ran, images, 1 - which, most=min(self.x.size // 50, singly.pixels // 2))
        return self._met() if trial.meets else None

    def _try(self, change: Change, pair: Pair, settled: bool) -> None:
        """Run the first library again with one change: itself where its parameters can say it, else its stand-in.

        ``settled``: the tape is recomputed to the last pixel, so that of the images a few may differ where a gradient
        is zero within rounding.
        """
        self.report(f"trying: {change.suspect}", len(self.trials), len(self.trials) + 1)
        which, outer = 1, self._outside(change)
        try:
            if change.suspect == "best against last iterate" and settled:
                which = 1 - int(pair.fits[1].habits.returns == "best")
                images = pair.fits[1 - which].left.ends.astype(np.float32)
                ran = f"the last iterate of {self.names[1 - which]}"
            elif outer is not None:
                images, ran = self.rerun(0, **outer), f"{self.names[0]} itself"
            elif change.habits is not None:
                images, ran = self._stand_in(change, pair), f"a stand-in of {self.names[0]}"
            else:
                return
        except SparringError as error:
            self.notes.append(f"{change.suspect} could not be tried: {error}")
            return
        self._judge(change.suspect, change.text, ran, images, which, settled=settled)

    def _outside(self, change: Change) -> dict[str, Any] | None:
        """The run of the library itself in which one habit is changed, where that can be said from outside."""
        habits, params = change.habits, dict(self.asked.params)
        if habits is None:
            return None
        if (
            change.suspect == "step"
            and isinstance(habits.step, float)
            and habits.floor == "none"
            and habits.way == "usual"
        ):
            params["eps_step" if "eps_step" in params else "eps"] *= habits.step
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
            return {"asked": self._ask(params)}
        except InputError:
            return None

    def _ask(self, params: Mapping[str, Any]) -> Request:
        return request(self.asked.name, norm=self.asked.norm, targeted=self.asked.targeted, params=params)

    def _stand_in(self, change: Change, pair: Pair) -> Images:
        assert change.habits is not None
        tape = pair.tapes[0]
        own = tape.points[0] if len(tape.points) else tape.image
        starts = change.starts if change.starts is not None else own.astype(np.float32)
        exact = bool(tape.loss.exact[tape.alive].all())
        habits = replace(change.habits, start="given", exact=exact)
        return simulate(self.classifier, self.x, self.whose, self.recipe, habits, starts=starts)

    def _judge(
        self, suspect: str, text: str, ran: str, images: Images, other: int,
        most: int = 0, settled: bool = False, in_a_batch: bool = False,
    ) -> Trial:  # fmt: skip
        """Compare what a trial gave with the other library's images; up to ``most`` pixels may differ."""
        theirs = self.traces[other]
        left = apart(images, theirs.batch_images if in_a_batch else theirs.images)
        trial = Trial(suspect, text, ran, left.largest, left.pixels, settled or left.pixels <= most)
        self.trials.append(trial)
        return trial

    def _met(self) -> Found | None:
        """The first trial that met, and others of another suspect that met as well."""
        meeting = [trial for trial in self.trials if trial.meets]
        if not meeting:
            return None
        others = {trial.suspect: trial for trial in meeting if trial.suspect != meeting[0].suspect}
        as_well = tuple(f"{trial.suspect}: {trial.text}" for trial in others.values())
        return Found("different", meeting[0].suspect, meeting[0].text, meeting[0].residual, as_well)

    def rerun(
        self,
        which: int,
        asked: Request | None = None,
        y: Labels | None = None,
        classifier: Any = None,
        at_once: int | None = 1,
    ) -> Images:
        """A library once more with something else given to it, ``at_once`` images in a call; None: all."""
        labels, size = self.whose if y is None else y, at_once or len(self.x)
        seen = classifier or self.classifier
        with attacking(self.libraries[which], seen, asked or self.asked, self.seed) as attack:
            parts = [slice(first, first + size) for first in range(0, len(self.x), size)]
            return np.concatenate([attack(self.x[part], labels[part]) for part in parts])

    # --- attacks that no tape tells: the paths, stand-ins, every parameter

    def _by_trial(self) -> Found:
        if self.asked.name in minimal.KNOWN:
            self._by_evidence()
        for suspect, text, images in self._from_paths():
            self._judge(suspect, text, f"{self.names[0]}'s own path", images, 1)
        if found := self._met():
            return found
        if self.asked.name in minimal.KNOWN and (found := self._by_stand_ins()) is not None:
            return found
        return self._by_parameters()

    def _by_evidence(self) -> None:
        """DeepFool and CW: what the numbers of queries and the ends tell, tried before what would do as well."""
        paths = self.traces[0].paths, self.traces[1].paths
        if self._goes_on(*paths):
            return
        key, values = minimal.specific(*paths, self.asked.name, self.asked.params)
        if not values or not all(same_way(one, two) for one, two in zip(*paths, strict=True)):
            return
        for which in (0, 1):
            for option in values:
                # what the first does with fewer steps, the second does with as many more
                value = 2 * self.asked.params[key] - option if which and key == "steps" else option
                try:
                    images = self.rerun(which, self._ask({**self.asked.params, key: value}))
                except SparringError:
                    continue
                text = self._does(which, key, value)
                if self._judge(PARAMETERS[key], text, f"{self.names[which]} itself", images, 1 - which).meets:
                    return

    def _does(self, which: int, key: str, option: Any) -> str:
        """What the other library does, in terms of a parameter of this one."""
        value = self.asked.params[key]
        return f"{self.names[1 - which]} does what {key} = {_number(option)} does, where {_number(value)} is asked for"

    def _goes_on(self, a: tuple[Path, ...], b: tuple[Path, ...], in_a_batch: bool = False) -> bool:
        """DeepFool: one ends at the first misclassified point, the other visits the same ones and goes on."""
        if self.asked.name != "deepfool" or self.asked.targeted:
            return False
        for which, (one, two) in enumerate(((a, b), (b, a))):
            left = minimal.goes_on(one, two, self.classifier)
            if left is not None:
                stopping, going = self.names[which], self.names[1 - which]
                text = f"{stopping} leaves an image alone once it is misclassified, {going} goes on with it"
                text += " for as long as another of the batch is not" if in_a_batch else ""
                ran = f"{going}'s own path, cut off there"
                self.trials.append(Trial("early stop", text, ran, left, 0, True))
                return True
        return False

    def _by_batch_paths(self) -> None:
        """DeepFool and CW: what the ways through the batch tell, where every query asks about all of it."""
        if self.asked.name not in minimal.KNOWN:
            return
        a, b = batch_paths(self.traces[0]), batch_paths(self.traces[1])
        if not all(path.queries for path in (*a, *b)) or self._goes_on(a, b, in_a_batch=True):
            return
        ways = [[np.stack([query.x for query in path.queries]) for path in side] for side in (a, b)]
        if all(one.shape == two.shape and not apart(one, two).pixels for one, two in zip(*ways, strict=True)):
            text = f"of the same points in the batch, {self.names[1]} returns another than {self.names[0]} does"
            images = nearest_points(a, self.traces[1].batch_images)
            ran = f"{self.names[0]}'s own path in the batch"
            self._judge("best against last iterate", text, ran, images, 1, in_a_batch=True)

    def _from_paths(self) -> Iterator[tuple[str, str, Images]]:
        """The first library's images rounded; and, where both go the same way, what the second returns of it."""
        a, b = self.traces
        untouched = (b.images == self.x).all(axis=(1, 2, 3))  # some leave alone what is wrong to begin with
        for grid in GRIDS:
            coarse = np.asarray(rounded(a.images.astype(np.float64), grid), np.float32)
            coarse[untouched] = a.images[untouched]
            if apart(coarse, a.images).pixels:
                yield "dtype", f"{self.names[1]} rounds its images to {grid}", coarse
        if all(same_way(one, two) for one, two in zip(a.paths, b.paths, strict=True)):
            text = f"{self.names[1]} returns another of the points that both visit than {self.names[0]} does"
            yield "best against last iterate", text, nearest_points(a.paths, b.images)

    def _by_stand_ins(self) -> Found | None:
        """DeepFool and CW: the habits that give the first library's images, then what must change for the second's."""
        known = minimal.KNOWN[self.asked.name]
        first = self._fit(self.traces[0], known)
        if first.residual > minimal.CLOSE:
            self.notes.append(f"no stand-in gives {self.names[0]}'s images: the nearest is {first.residual:.2g} away")
            return None
        second = self._fit(self.traces[1], (first.habits,), known)
        changes = minimal.changed(first.habits, second.habits)
        suspects = [*dict.fromkeys(minimal.SUSPECT[key] for key in changes)]
        if not suspects or second.residual > minimal.CLOSE:
            return None
        text = minimal.told(changes, self.names)
        as_well = {
            f"{minimal.SUSPECT[key]}: {minimal.told(others, self.names)}"
            for habits in (second.as_well if len(suspects) == 1 else ())
            for others in [minimal.changed(first.habits, habits)]
            for key in others
            if minimal.SUSPECT[key] not in suspects
        }
        if len(suspects) > 1:
            as_well = {f"it takes {len(suspects)} changes: {', '.join(suspects)}"}
        ran = f"a stand-in of {self.names[0]}"
        self.trials.append(Trial(suspects[0], text, ran, second.residual, 0, True))
        return Found("different", suspects[0], text, second.residual, tuple(sorted(as_well)))

    def _fit(
        self,
        ran: Trace,
        bases: tuple[minimal.MinimalHabits, ...],
        known: tuple[minimal.MinimalHabits, ...] = (),
    ) -> minimal.MinimalFit:
        def tried(habits: minimal.MinimalHabits, residual: float) -> None:
            self.report(f"stand-ins of {ran.library}", 0, 1)

        asked = self.asked
        return minimal.fit(
            asked.name, self.classifier, ran.paths, asked.params, bases, known, asked.targeted, tried=tried
        )

    def _by_parameters(self, in_a_batch: bool = False) -> Found:
        """One library again with other labels or another value of a parameter, until it meets the other."""
        begin = time.perf_counter()
        for tried, (which, suspect, text, outer) in enumerate(self._outer()):
            if tried > 8 and time.perf_counter() - begin > LONGEST:
                self.notes.append(f"after {tried} reruns the search among the parameters was given up")
                break
            self.report(f"trying: {suspect}", tried, tried + 1)
            try:
                images = self.rerun(which, **outer, at_once=None if in_a_batch else 1)
            except SparringError:
                continue
            if not apart(images, self.x).pixels:
                continue  # to be without any effect is no explanation
            ran = f"{self.names[which]} itself" + (", in a batch" if in_a_batch else "")
            if self._judge(suspect, text, ran, images, 1 - which, in_a_batch=in_a_batch).meets:
                break
        return self._met() or Found("different")

    def _outer(self) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
        """Which library runs again, and with what: other labels, other values of each parameter."""
        assert self.asked.canonical is not None
        clean = self.classifier.logits(self.x).argmax(axis=1).astype(np.int64)
        for which in (0, 1):
            other = self.names[1 - which]
            if (clean != self.whose).any():
                yield which, "label source", f"{other} takes the model's own predictions", {"y": clean}
            for key, parameter in self.asked.canonical.parameters.items():
                value = self.asked.params[key]
                for option in _values(parameter.type, value, self.traces[which], self.traces[1 - which]):
                    try:
                        asked = self._ask({**self.asked.params, key: option})
                    except InputError:
                        continue
                    yield which, PARAMETERS.get(key, key), self._does(which, key, option), {"asked": asked}

    # --- what only a batch shows

    def _by_the_batch(self, together: Apart, noise: int) -> Found:
        """Where single images agree and a batch doesn't: a loss divided by the batch, or images that share more."""
        most = max(noise, together.pixels // 20)
        if (found := self._by_the_reduction(most)) is not None:
            return found
        self._by_batch_paths()
        return self._by_the_size(together, most) or self._met() or self._by_parameters(in_a_batch=True)

    def _by_the_size(self, together: Apart, most: int) -> Found | None:
        """One library again with one image a batch, or with as many at once as the other asks about."""
        shared = [apart(each.images, each.batch_images).pixels for each in self.traces]
        sizes = [max((query.batch for query in each.batch_queries), default=0) for each in self.traces]
        first = int(shared[1] >= shared[0])
        text = (
            f"{self.names[first]}'s image depends on the other images of its batch (it asks about up to "
            f"{sizes[first]} at once, {self.names[1 - first]} about {sizes[1 - first]}); one at a time they agree"
        )
        tried = [(first, 1), (1 - first, 1)]
        tried += [(which, sizes[1 - which]) for which in (0, 1) if 1 < sizes[1 - which] < len(self.x)]
        for which, size in tried:
            images = self.rerun(which, at_once=size)
            # the other may depend on its batch a little, too, as where a mean of the loss is small
            allowed = max(most, min(shared[1 - which], together.pixels // 2)) if which == first else most
            ran = f"{self.names[which]} itself, batches of {size}"
            if self._judge("batch size", text, ran, images, 1 - which, allowed, in_a_batch=True).meets:
                return self._met()
        return None

    def _by_the_reduction(self, most: int) -> Found | None:
        scales = [self._batch_scale(0), self._batch_scale(1)]
        ratio = scales[1] / scales[0]
        if abs(ratio - 1) < 0.01:
            return None
        text = (
            f"in a batch of {len(self.x)} the loss of {self.names[1]} is {ratio:.4g} times that of {self.names[0]}: "
            "one is a mean over the batch, the other a sum"
        )
        # what a mean lost in its own arithmetic no factor brings back: then the sum loses it by the same factor
        for which, factor in sorted(((0, ratio), (1, 1 / ratio)), key=lambda one: -one[1]):
            images = self.rerun(which, classifier=Rescaled(self.classifier, factor), at_once=None)
            ran = f"{self.names[which]} itself, rescaled"
            if self._judge("loss reduction", text, ran, images, 1 - which, most, in_a_batch=True).meets:
                return self._met()
        return None

    def _batch_scale(self, which: int) -> float:
        """By what a library's loss is multiplied in the batch: 1 for a sum, and where no one number tells."""
        found = [(query, query.cotangent) for query in self.traces[which].batch_queries if query.cotangent is not None]
        if not found or not self.read:
            return 1.0
        # the largest cotangents tell best; whose row one is isn't known, so that its own label is looked for
        found = sorted(found, key=lambda item: -float(np.abs(item[1]).max()))[:32]
        cotangents = np.stack([cotangent.astype(np.float64) for _, cotangent in found])[None]
        logits = self.classifier.logits(np.stack([query.x for query, _ in found]))[None]
        loss = read_loss(cotangents, logits, np.argmin(cotangents, axis=-1), self.asked.targeted)
        scales = np.abs(loss.scale[(loss.label >= 0) & (loss.error < 1e-3) & (loss.size > 1e-2)])
        steady = len(scales) and np.ptp(scales) < 1e-3 * scales.max()
        return float(np.median(scales)) if steady else 1.0


def _values(kind: type, value: Any, own: Trace, other: Trace) -> list[Any]:
    """Other values of a parameter: those that the numbers of queries suggest, and the usual slips."""
    if kind is bool:
        return [not value]
    if kind is int:
        counts = [sum(len(path.gradients) or len(path.queries) for path in each.paths) for each in (own, other)]
        near = round(value * counts[1] / max(counts[0], 1))
        return [*dict.fromkeys([near, *range(value - 1, value - 6, -1), value + 1, value + 2, 2 * value, value // 2])]
    if kind is float:
        factors = (1.1, 0.9, 2.0, 0.5, 1.05, 0.95, 1.2, 0.8, 1.5, 10.0, 0.1, 2.5, 0.4, 1.25, 0.75)
        return [value * factor for factor in factors] if value else [0.01, 0.1, 1.0]
    return []


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Rescaled:
    """A classifier whose cotangents are multiplied on their way in."""

    def __init__(self, inner: Any, factor: float = 1.0) -> None:
        self.inner, self.factor = inner, factor
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.framework = getattr(inner, "framework", "torch")

    def logits(self, x: Images) -> Logits:
        answer: Logits = self.inner.logits(x)
        return answer

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        answer: Images = self.inner.vjp(x, np.asarray(cotangent * self.factor, np.float32))
        return answer


class ExactLoss(Rescaled):
    """Gives a cross-entropy's cotangent the label's own share, minus the sum of the others, that float32 rounds off."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        whole, rows = cotangent.astype(np.float64), np.arange(len(x))
        # only near certainty is there something to mend, and then the own class is the most probable one
        sure = np.abs(whole).max(axis=1) < 1e-2
        own = np.where(sure, self.inner.logits(x).argmax(axis=1), np.abs(whole).argmax(axis=1))
        whole[rows, own] = 0
        whole[rows, own] = -whole.sum(axis=1)
        return super().vjp(x, whole.astype(np.float32))
