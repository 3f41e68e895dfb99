"""Two runs of one suite from different environments: which rows changed, how surely, and which packages with them.

Ids of cells hold the releases of packages, so the rows of two runs are matched by what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.attacks.distances import NORMS
from sparring.adapters.errors import InputError
from sparring.suites.plan.cell import Result
from sparring.suites.results import manifest, store
from sparring.suites.results.labels import places, row_labels
from sparring.suites.results.metrics import mcnemar
from sparring.suites.results.rows import read_results

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("rich", "md", "json")
EQUAL = 1e-5
"""Images nearer than this in every pixel are the same but for rounding."""
ASKED = (
    "dataset", "model", "framework", "defense", "attacker", "library", "route", "attack", "norm", "params", "targeted",
    "seed",
)  # fmt: skip
"""The columns of the results that say what was asked, whatever was installed."""

Key = tuple[Any, ...]
Kind = Literal["same", "equal", "notes", "images", "success", "status", "missing"]


@dataclass(frozen=True)
class Package:
    """A package of which two environments have different releases; None where it is not installed."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'absent'} → {self.after or 'absent'}"


@dataclass(frozen=True)
class Comparison:
    """One row in two runs. All but ``kind`` and ``says`` is empty where the row was not done in both.

    ``kind``: ``same``; ``equal`` (the images agree to 1e-5 in every pixel); ``notes`` (only what the row says differs);
    ``images`` (other images, the same successes); ``success`` (images that one run hits and the other doesn't);
    ``status``; ``missing`` in one run. ``only_before`` and ``only_after``: images hit in one run alone; ``p_value``:
    the exact McNemar test of them. ``max_delta``: largest difference of a pixel; ``moved``: images in which it is above
    1e-5; ``same_labels``: share of images that get the same label; ``other_clean``: images that the model itself,
    before any attack, reads otherwise. ``distances``: mean distance in the attack's norm (L2 where that is none of
    ours) of the images hit in both runs, before and after, and the p-value of Wilcoxon's signed-rank test.
    """

    kind: Kind
    says: str
    status: tuple[str, str] = ("missing", "missing")
    n: int | None = None
    robust_accuracy: tuple[float, float] | None = None
    only_before: int | None = None
    only_after: int | None = None
    p_value: float | None = None
    max_delta: float | None = None
    moved: int | None = None
    same_labels: float | None = None
    other_clean: int | None = None
    distances: tuple[float, float, float] | None = None

    @property
    def changed(self) -> bool:
        """Whether more than rounding differs."""
        return self.kind not in ("same", "equal")


@dataclass(frozen=True)
class Row:
    """A row of both runs, what became of it, and the packages whose new release can be the cause."""

    model: str
    library: str
    attack: str
    comparison: Comparison
    packages: tuple[Package, ...] = ()
    """of those that the cell names as its own; where none of them changed, of all"""


@dataclass(frozen=True)
class Difference:
    """What differs between two runs of one suite."""

    suite: str
    before: str
    after: str
    rows: tuple[Row, ...]
    packages: tuple[Package, ...]
    """every package with another release, those that the cells name as their own first"""
    models: tuple[str, ...] = ()
    """models of the suite that are not the same function in the two runs"""
    keys: tuple[str, ...] = field(default=())
    """keys of the suite that differ"""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which more than rounding differs."""
        return tuple(row for row in self.rows if row.comparison.changed)


class Loaded:
    """A run folder: its manifest and its rows by what was asked. Raises ``InputError`` where there is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        self.frame = read_results(self.folder)
        told = self.frame.get("attacker")  # absent in runs before there were defenses
        self.frame["attacker"] = "" if told is None else told.astype(object).where(told.notna(), "")
        self.suite = str(self.manifest["suite"].get("name"))

    @cached_property
    def rows(self) -> dict[Key, pd.Series[Any]]:
        """The rows of the results by what was asked, in the suite's order."""
        return {tuple(str(row[name]) for name in ASKED): row for _, row in self.frame.iterrows()}

    @cached_property
    def labels(self) -> dict[Key, str]:
        """The attack of each row with its parameters, and on what it was, where that varies."""
        told = zip(row_labels(self.frame), places(self.frame), strict=True)
        return dict(zip(self.rows, (f"{attack} ({place})" if place else attack for attack, place in told), strict=True))

    @cached_property
    def packages(self) -> dict[str, str]:
        """Name -> release of everything that was installed."""
        return {_plain(name): str(release) for name, release in self.manifest["packages"].items()}

    @cached_property
    def data(self) -> dict[str, Mapping[str, Any]]:
        """Name -> what the manifest says of a data set: its digest, its number of images."""
        held = self.manifest["data"]
        return {str(each["name"]): each for each in (held if isinstance(held, list) else [held])}

    def result(self, key: Key) -> Result | None:
        """What is stored of a row, with images."""
        return store.read(self.folder, str(self.rows[key]["cell_id"]), images=True) if key in self.rows else None

    def own(self, key: Key) -> dict[str, str]:
        """The releases that the row's cell names as its own: of its library and of the frameworks beneath."""
        if key not in self.rows:
            return {}
        path = store.cell_folder(self.folder, str(self.rows[key]["cell_id"])) / "result.json"
        if not path.is_file():  # a row that can't be run has no cell
            return {}
        stored = json.loads(path.read_text("utf-8"))
        return {_plain(name): release for name, release in stored["cell"]["versions"].items()}


def diff(before: str | Path, after: str | Path) -> Difference:
    """Compare two run folders of one suite.

    Raises ``InputError`` where one is no run, where they are runs of two suites, and where they attacked other images.
    """
    a, b = Loaded(before), Loaded(after)
    check_comparable(a, b)
    keys = list(dict.fromkeys([*a.rows, *b.rows]))
    own = {name for run in (a, b) for key in keys for name in run.own(key)}
    packages = sorted(changed_packages(a.packages, b.packages), key=lambda each: (each.name not in own, each.name))
    told = {run: run.manifest["suite"] for run in (a, b)}
    return Difference(
        suite=a.suite,
        before=str(a.folder),
        after=str(b.folder),
        rows=tuple(_row(a, b, key) for key in keys),
        packages=tuple(packages),
        models=other_models(a, b),
        keys=tuple(key for key in {**told[a], **told[b]} if told[a].get(key) != told[b].get(key)),
    )


def check_comparable(a: Loaded, b: Loaded) -> None:
    """Raise ``InputError`` unless the runs are of one suite and the same images."""
    if a.suite != b.suite:
        raise InputError(f"{a.folder} is a run of the suite {a.suite}, {b.folder} of {b.suite}: compare runs of one")
    for name, mine in a.data.items():
        theirs = b.data.get(name)
        if theirs is not None and mine["digest"] != theirs["digest"]:
            raise InputError(
                f"{a.folder} and {b.folder} attacked different images: {mine['images']} and {theirs['images']} of "
                f"{name}, digests {mine['digest'][:12]} and {theirs['digest'][:12]}"
            )
    if not a.data.keys() & b.data.keys():
        raise InputError(
            f"{a.folder} and {b.folder} attacked different images: {', '.join(a.data)} and {', '.join(b.data)}"
        )


def other_models(a: Loaded, b: Loaded) -> tuple[str, ...]:
    """The models of both runs whose weights, options or code differ."""
    one, two = a.manifest["models"], b.manifest["models"]
    return tuple(name for name in one if name in two and one[name]["digest"] != two[name]["digest"])


def changed_packages(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Package, ...]:
    """Those with another release, by name."""
    names = sorted({*before, *after})
    found = (Package(name, before.get(name), after.get(name)) for name in names)
    return tuple(each for each in found if each.before != each.after)


def suspects(a: Loaded, b: Loaded, key: Key) -> tuple[Package, ...]:
    """The packages that can have changed a row: of its cell's own, or, where all of these are the same, of all."""
    own = {*a.own(key), *b.own(key)}
    every = changed_packages(a.packages, b.packages)
    return tuple(each for each in every if each.name in own) or every


def compare_rows(a: Loaded, b: Loaded, key: Key) -> Comparison:
    """What became of one row."""
    if key not in a.rows or key not in b.rows:
        where = a if key in a.rows else b
        return Comparison("missing", f"only in {where.folder}")
    one, two = a.rows[key], b.rows[key]
    status = (str(one["status"]), str(two["status"]))
    if status != ("done", "done"):
        return _undone(status, _text(one["reason"]), _text(two["reason"]))
    before, after = a.result(key), b.result(key)
    if before is None or after is None:
        gone = a if before is None else b
        raise InputError(f"{gone.folder}: the table says that {one['attack']} is done, but its cell is gone")
    return compare(before, after, norm=str(one["norm"]))


def compare(before: Result, after: Result, *, norm: str) -> Comparison:
    """Compare two finished results on the same images; ``norm`` is the attack's."""
    a, b = before.arrays, after.arrays
    hit = a["success"], b["success"]
    delta = np.concatenate([
        np.abs(one.astype(np.float64) - other).reshape(len(one), -1).max(axis=1, initial=0)
        for one, other in arrays.pieces(a["x_adv"], b["x_adv"])
    ])  # fmt: skip
    largest, moved = float(delta.max(initial=0)), int((delta > EQUAL).sum())
    same_labels = a["pred_adv"] == b["pred_adv"]
    lost, won = int((hit[0] & ~hit[1]).sum()), int((~hit[0] & hit[1]).sum())
    found = Comparison(
        kind="same",
        says="",
        status=("done", "done"),
        n=len(a["y"]),
        robust_accuracy=(float((a["pred_adv"] == a["y"]).mean()), float((b["pred_adv"] == b["y"]).mean())),
        only_before=lost,
        only_after=won,
        p_value=mcnemar(*hit),
        max_delta=largest,
        moved=moved,
        same_labels=float(same_labels.mean()),
        other_clean=int((a["pred_clean"] != b["pred_clean"]).sum()),
        distances=_distances(a, b, norm if norm in NORMS else "l2", hit[0] & hit[1]),
    )
    kind: Kind = "same"
    if lost or won:
        kind = "success"
    elif moved or not same_labels.all():
        kind = "images"
    elif set(before.notes) != set(after.notes):
        kind = "notes"
    elif largest:
        kind = "equal"
    return Comparison(**{**found.__dict__, "kind": kind, "says": _in_words(kind, found, before.notes, after.notes)})


def _distances(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], norm: str, both: np.ndarray
) -> tuple[float, float, float] | None:
    from scipy.stats import wilcoxon

    one, two = a[norm][both], b[norm][both]
    if not len(one):
        return None
    gap = np.where(np.abs(one - two) > EQUAL, one - two, 0.0)  # rounding has signs, but means nothing
    p_value = float(wilcoxon(gap, zero_method="zsplit").pvalue) if gap.any() else 1.0
    return float(one.mean()), float(two.mean()), p_value


def _in_words(kind: Kind, found: Comparison, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    said = []
    if kind in ("success", "images"):
        assert found.robust_accuracy is not None
        one, two = found.robust_accuracy
        if kind == "success":
            said.append(f"robust accuracy {one:.3f} → {two:.3f}")
            said.append(f"of {found.n} images {found.only_after} newly hit, {found.only_before} no longer")
            said[-1] += f" (p = {found.p_value:.2g})"
        said.append(f"{found.moved} images moved by up to {found.max_delta:.2g}")
        if found.distances and abs(found.distances[0] - found.distances[1]) > EQUAL:
            said.append("mean distance {:.4g} → {:.4g} (p = {:.2g})".format(*found.distances))
        if found.other_clean:
            said.append(f"the model itself reads {found.other_clean} clean images otherwise")
    if set(before) != set(after):
        said += [f"no longer says: {note}" for note in before if note not in after]
        said += [f"now says: {note}" for note in after if note not in before]
    return "; ".join(said)


def _undone(status: tuple[str, str], before: str, after: str) -> Comparison:
    if status[0] != status[1]:
        told = [
            f"{state}: {reason}" if reason else state for state, reason in zip(status, (before, after), strict=True)
        ]
        return Comparison("status", " → ".join(told), status)
    if before != after:
        return Comparison("notes", f"{status[0]}: {before} → {after}", status)
    return Comparison("same", f"{status[0]}: {before}", status)


def _row(a: Loaded, b: Loaded, key: Key) -> Row:
    home = a if key in a.rows else b
    row, comparison = home.rows[key], compare_rows(a, b, key)
    causes = suspects(a, b, key) if comparison.changed and comparison.kind != "missing" else ()
    return Row(str(row["model"]), str(row["library"]), home.labels[key], comparison, causes)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _plain(name: str) -> str:
    return str(name).lower().replace("_", "-")


# --- shown ----------------------------------------------------------------------------------------------------------


def headline(found: Difference) -> list[str]:
    """What stands above the rows."""
    own = {package.name for row in found.changed for package in row.packages}
    lines = [f"{found.suite}: {found.before} → {found.after}"]
    if not found.packages:
        lines.append("the same packages in both environments")
    shown = [package for package in found.packages if package.name in own] or list(found.packages)
    lines += [str(package) for package in shown[:8]]
    if len(found.packages) > len(shown[:8]):
        lines.append(f"and {len(found.packages) - len(shown[:8])} other packages (--format json lists them)")
    lines += [f"the model {name} is another in the second run: its rows don't compare" for name in found.models]
    if found.keys:
        lines.append(f"the suite itself was changed: {', '.join(found.keys)}")
    return lines


def footline(found: Difference) -> str:
    """How many rows are what."""
    kinds = [row.comparison.kind for row in found.rows]
    equal = f", {kinds.count('equal')} equal to within rounding" if "equal" in kinds else ""
    return f"{len(found.changed)} of {len(kinds)} rows changed{equal}"


HEADERS = ("model", "library", "attack", "what", "how", "changed with")


def _cells(found: Difference) -> list[tuple[str, ...]]:
    return [
        (row.model, row.library, row.attack, str(row.comparison.kind), row.comparison.says, named(row.packages))
        for row in found.changed
    ]


def named(packages: tuple[Package, ...]) -> str:
    """The causes in words: the package and its releases, or, of many, the first few."""
    more = f" and {len(packages) - 3} more" if len(packages) > 3 else ""
    return ", ".join(map(str, packages[:3])) + more


def render(found: Difference, form: str) -> str:
    """The difference as Markdown or JSON."""
    if form == "json":
        return json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n"
    import pandas as pd

    rows = pd.DataFrame(_cells(found), columns=list(HEADERS)).map(lambda text: text.replace("|", r"\|"))
    table = [rows.to_markdown(index=False), ""] if len(rows) else []
    return "\n".join([*(f"{line}  " for line in headline(found)), "", *table, footline(found)]) + "\n"


def print_rich(found: Difference, console: Any) -> None:
    """The difference on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    for line in headline(found):
        console.print(escape(line), highlight=False)
    if found.changed:
        shown = Table()
        for header in HEADERS:
            shown.add_column(header, overflow="fold")
        for row in _cells(found):
            shown.add_row(*map(escape, row))
        console.print(shown)
    console.print(footline(found), highlight=False)
