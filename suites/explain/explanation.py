"""The debugger: whether two libraries' attack is the same on some images, and if not, which one change makes it so.

Both libraries run on the same classifier, which records every query. The differences of their paths name the suspects.
Then one library runs again with one suspect changed at a time: itself, or as a stand-in (the referee under its habits).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sparring.adapters.attacks.library import Library, library_names, load_library
from sparring.adapters.attacks.request import request
from sparring.adapters.errors import InputError
from sparring.adapters.libraries.ledger import habits as ledger_habits
from sparring.adapters.protocol import Classifier, Images, Labels, lacks
from sparring.suites.explain.bench import Bench, Finding, Report, Trial, record
from sparring.suites.explain.by_batch import batch_scale, find_by_batch
from sparring.suites.explain.by_tape import find_by_tape, read_tapes
from sparring.suites.explain.by_trial import find_by_trial
from sparring.suites.explain.habits.compare import Pair
from sparring.suites.explain.paths import Apart, Parting, Step, apart, batch_paths, first_parting, steps


@dataclass(frozen=True)
class Explanation:
    """The verdict on two libraries' attack, the change that makes them meet, and the evidence.

    ``verdict``: ``same`` or ``different``. ``suspect``: the name of the change that makes the two meet, None where no
    change does. ``change``: the change in words. ``residual``: the largest difference of a pixel that is left with it.
    ``largest``: the largest difference of a pixel between the returned images. ``pixels``: how many pixels differ by
    more than 1e-5. ``rounding``: how many of these differ only because a gradient there is zero within rounding.
    ``steps``: the steps of each image.
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
    pixels: int
    rounding: int
    first_parting: Parting | None
    steps: tuple[tuple[Step, ...], ...]
    trials: tuple[Trial, ...]
    as_well: tuple[str, ...]
    notes: tuple[str, ...]
    ledger: tuple[str, ...]

    @property
    def named(self) -> bool:
        """Whether nothing is left to explain."""
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
    """Compare two libraries' attack on images (N, C, H, W) with true labels (N,), and name the change between them.

    ``images`` are the numbers of the images, for the text. ``report(activity, done, total)`` is called for progress.
    Raises ``InputError`` for bad input, ``NotSupported`` where a library lacks the attack, ``LibraryError`` where a
    library fails.
    """
    requested = request(attack, norm=norm, targeted=targeted, params=params)
    if requested.canonical is None:
        raise InputError(f"{attack}: explain compares canonical attacks, which every library calls by one name")
    if not len(x):
        raise InputError("explain needs at least one image")
    if lacking := lacks(classifier).get(requested.canonical.needs):
        raise InputError(f"{attack} {lacking}")
    libraries = _load(library_a), _load(library_b)
    names = _names((library_a, library_b), libraries)
    bench = record(requested, libraries, names, classifier, x, y, seed, report or (lambda what, done, total: None))
    a, b = bench.traces
    singly, together = apart(a.images, b.images), apart(a.batch_images, b.batch_images)
    finding = _find(bench, singly, together)
    only_a_batch_shows_it = together.pixels and not singly.pixels
    ways = (batch_paths(a), batch_paths(b)) if only_a_batch_shows_it else (a.paths, b.paths)
    pairs = zip(*ways, bench.labels, strict=True)
    return Explanation(
        attack=attack,
        norm=str(requested.norm),
        params=requested.params,
        libraries=names,
        images=images or tuple(range(len(x))),
        verdict=finding.verdict,
        suspect=finding.suspect,
        change=finding.change,
        residual=finding.residual,
        largest=max(singly.largest, together.largest),
        pixels=max(singly.pixels, together.pixels),
        rounding=finding.rounding if finding.verdict == "same" else 0,
        first_parting=first_parting(*ways, bench.has_tape),
        steps=tuple(steps((one, two), int(label), classifier, bench.has_tape) for one, two, label in pairs),
        trials=tuple(bench.trials),
        as_well=finding.as_well,
        notes=tuple(dict.fromkeys(bench.notes)),
        ledger=_ledger(bench),
    )


def _find(bench: Bench, singly: Apart, together: Apart) -> Finding:
    """Look for the change that makes the single attacks meet; where they agree, for one that makes the batches meet."""
    finding, noise, pair = Finding("same", rounding=max(singly.pixels, together.pixels)), 0, None
    if singly.pixels:
        pair = read_tapes(bench)
        finding = find_by_tape(bench, pair, singly) if pair is not None else find_by_trial(bench)
        noise = finding.rounding
    if finding.verdict == "same" and together.pixels > 2 * noise:
        finding = find_by_batch(bench, together, noise)
    if finding.verdict == "same":
        _note_hidden(bench, pair or read_tapes(bench))
    return finding


def _note_hidden(bench: Bench, pair: Pair | None) -> None:
    """Note what differs in the paths and shows in no image."""
    if pair is None:
        return
    differences = [f"{change.suspect}: {change.text}" for change in pair.changes]
    ratio = batch_scale(bench, 1) / batch_scale(bench, 0)
    if abs(ratio - 1) > 0.01:
        a, b = bench.names
        differences.append(f"loss reduction: in a batch of {len(bench.x)} the loss of {b} is {ratio:.4g} times {a}'s")
    bench.notes.extend(f"{difference}; on these images that makes no difference" for difference in differences)


def _load(library: str | Library) -> Library:
    return load_library(library) if isinstance(library, str) else library


def _names(sources: tuple[str | Library, str | Library], libraries: tuple[Library, Library]) -> tuple[str, str]:
    """The libraries' names in the text: two of one name get the names of their modules, or numbers."""
    if libraries[0].name != libraries[1].name:
        return libraries[0].name, libraries[1].name
    a, b = (source if isinstance(source, str) else source.name for source in sources)
    return (a, b) if a != b else (f"{a} (1)", f"{b} (2)")


def _ledger(bench: Bench) -> tuple[str, ...]:
    """The ledger's entries that exactly one of the two libraries has."""
    if not {library.name for library in bench.libraries} <= set(library_names()):
        return ()  # a copy under another name has the original's habits, but the ledger doesn't know it
    framework, requested = getattr(bench.classifier, "framework", None), bench.request
    causes: list[dict[str, str]] = []
    for library in bench.libraries:
        try:
            version = library.version()
        except InputError:  # a library from outside needs no package
            return ()
        entries = ledger_habits(
            requested.name, requested.norm, requested.params, library.name, version, framework, "bridged"
        )
        causes.append({entry.id: entry.cause for entry in entries})
    return tuple(f"{key}: {(causes[0] | causes[1])[key]}" for key in sorted(causes[0].keys() ^ causes[1].keys()))
