"""The debugger: whether two libraries' attack is the same on some images, and if not, which one change makes it so.

Both libraries run on the same classifier, which keeps every query. What their paths tell apart names the suspects; then
one library runs again, itself or as a stand-in (the referee under its habits), with one suspect changed at a time.
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
from sparring.suites.explain.bench import Bench, Report, Trial
from sparring.suites.explain.paths import Parting, Step, apart, batch_paths, first_parting, steps


@dataclass(frozen=True)
class Explanation:
    """What the debugger found.

    ``verdict``: ``same`` or ``different``; ``suspect`` is the name of the change that makes the two meet, where one was
    found, ``change`` says it in words, and ``residual`` is the largest difference of a pixel that is left with it.
    ``largest`` and ``pixels``: how far the returned images are apart, and in how many pixels by more than 1e-5;
    ``rounding``: how many of these only because a gradient there is zero within rounding. ``steps``: of each image.
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

    ``images`` are the images' numbers, for the text; ``report(what, done, total)`` is called as it goes on. Raises
    ``InputError`` for bad input, ``NotSupported`` where a library lacks the attack, ``LibraryError`` where one fails.
    """
    asked = request(attack, norm=norm, targeted=targeted, params=params)
    if asked.canonical is None:
        raise InputError(f"{attack}: explain compares canonical attacks, which every library calls by one name")
    if not len(x):
        raise InputError("explain needs at least one image")
    if lacking := lacks(classifier).get(asked.canonical.needs):
        raise InputError(f"{attack} {lacking}")
    libraries = _load(library_a), _load(library_b)
    names = _names((library_a, library_b), libraries)
    bench = Bench(asked, libraries, names, classifier, x, y, seed, report or (lambda what, done, total: None))
    found = bench.find()
    a, b = bench.traces
    singly, together = apart(a.images, b.images), apart(a.batch_images, b.batch_images)
    only_a_batch_shows_it = together.pixels and not singly.pixels
    ways = (batch_paths(a), batch_paths(b)) if only_a_batch_shows_it else (a.paths, b.paths)
    return Explanation(
        attack, str(asked.norm), asked.params, names, images or tuple(range(len(x))),
        found.verdict, found.suspect, found.change, found.residual,
        max(singly.largest, together.largest), max(singly.pixels, together.pixels),
        found.rounding if found.verdict == "same" else 0,
        first_parting(*ways, bench.read),
        tuple(
            steps((one, two), int(label), classifier, bench.read)
            for one, two, label in zip(*ways, bench.whose, strict=True)
        ),
        tuple(bench.trials), found.as_well, tuple(dict.fromkeys(bench.notes)), _ledger(bench),
    )  # fmt: skip


def _load(library: str | Library) -> Library:
    return load_library(library) if isinstance(library, str) else library


def _names(given: tuple[str | Library, str | Library], libraries: tuple[Library, Library]) -> tuple[str, str]:
    """What the text calls them: two of one name are told apart by where they come from, or by a number."""
    if libraries[0].name != libraries[1].name:
        return libraries[0].name, libraries[1].name
    told = [each if isinstance(each, str) else each.name for each in given]
    return (told[0], told[1]) if told[0] != told[1] else (f"{told[0]} (1)", f"{told[1]} (2)")


def _ledger(bench: Bench) -> tuple[str, ...]:
    """The known differences that one of the two has and the other has not."""
    framework = getattr(bench.classifier, "framework", None)
    asked, own = bench.asked, []
    if not {library.name for library in bench.libraries} <= set(library_names()):
        return ()  # a copy under another name has the original's habits, but the ledger doesn't know it
    for library in bench.libraries:
        try:
            version = library.version()
        except InputError:  # a library from outside needs no package
            return ()
        found = ledger_habits(asked.name, asked.norm, asked.params, library.name, version, framework, "bridged")
        own.append({entry.id: entry.cause for entry in found})
    return tuple(f"{key}: {(own[0] | own[1])[key]}" for key in sorted(own[0].keys() ^ own[1].keys()))
