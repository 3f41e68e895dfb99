"""Compare two runs of one suite from different environments: which rows changed, how surely, and with which packages.

Cell ids depend on the releases of packages, so rows of two runs are matched by their requests (``REQUEST``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
"""Images that differ by no more than this in any pixel differ by rounding only."""
REQUEST = (
    "dataset",
    "model",
    "framework",
    "defense",
    "attacker",
    "library",
    "route",
    "attack",
    "norm",
    "params",
    "targeted",
    "seed",
)
"""The columns of the results that a row's request consists of, whatever is installed."""

Key = tuple[Any, ...]
Kind = Literal["same", "equal", "notes", "images", "success", "status", "missing"]


@dataclass(frozen=True)
class Package:
    """A package with different releases in two environments; None where it is not installed."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'absent'} → {self.after or 'absent'}"


@dataclass(frozen=True)
class Comparison:
    """One row in two runs. All but ``kind`` and ``says`` is empty where the row was not done in both.

    ``kind`` is one of
    ``same``;
    ``equal``: the images agree to 1e-5 in every pixel;
    ``notes``: only the row's notes differ;
    ``images``: the images differ, the successes are the same;
    ``success``: an attack succeeds on some images in one run only;
    ``status``: the statuses differ;
    ``missing``: the row is in one run only.

    ``only_before`` and ``only_after`` count the images on which the attack succeeds in one run alone, ``p_value`` is
    that of McNemar's exact test. ``max_delta`` is the largest difference of a pixel, ``moved`` counts the images in
    which it is above 1e-5. ``same_labels`` is the share of images that get the same label. ``other_clean`` counts the
    clean images that the model classifies differently. ``distances``: the mean distance, before and after, of the
    images on which both succeed (in the attack's norm; L2 for a norm that sparring lacks), and the p-value of
    Wilcoxon's signed-rank test.
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
    """A row of both runs, its comparison, and the packages whose new release can be the cause."""

    model: str
    library: str
    attack: str
    comparison: Comparison
    packages: tuple[Package, ...] = ()
    """the changed packages that the cell names as its own; where none of these changed, all changed packages"""


@dataclass(frozen=True)
class Difference:
    """The differences between two runs of one suite."""

    suite: str
    before: str
    after: str
    rows: tuple[Row, ...]
    packages: tuple[Package, ...]
    """every package with another release; first those that the cells name as their own"""
    models: tuple[str, ...] = ()
    """models of the suite that are not one function in the two runs"""
    keys: tuple[str, ...] = field(default=())
    """keys of the suite that differ"""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which more than rounding differs."""
        return tuple(row for row in self.rows if row.comparison.changed)


class Loaded:
    """A run folder: its manifest and its rows by request. Raises ``InputError`` where there is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        self.frame = read_results(self.folder)
        attackers = self.frame.get("attacker")  # absent in runs before there were defenses
        self.frame["attacker"] = "" if attackers is None else attackers.astype(object).where(attackers.notna(), "")
        self.suite = str(self.manifest["suite"].get("name"))

    @cached_property
    def rows(self) -> dict[Key, pd.Series[Any]]:
        """The rows of the results by request, in the suite's order."""
        return {tuple(str(row[name]) for name in REQUEST): row for _, row in self.frame.iterrows()}

    @cached_property
    def labels(self) -> dict[Key, str]:
        """The attack of each row with its parameters, and the place where the suite has several."""
        placed = zip(row_labels(self.frame), places(self.frame), strict=True)
        labels = (f"{attack} ({place})" if place else attack for attack, place in placed)
        return dict(zip(self.rows, labels, strict=True))

    @cached_property
    def packages(self) -> dict[str, str]:
        """Name -> release of every installed package."""
        return {_plain(name): str(release) for name, release in self.manifest["packages"].items()}

    @cached_property
    def data(self) -> dict[str, Mapping[str, Any]]:
        """Name of a data set -> its entry in the manifest: its digest, its number of images."""
        entries = self.manifest["data"]
        return {str(entry["name"]): entry for entry in (entries if isinstance(entries, list) else [entries])}

    def result(self, key: Key) -> Result | None:
        """The stored result of a row, with images."""
        return store.read(self.folder, str(self.rows[key]["cell_id"]), images=True) if key in self.rows else None

    def own(self, key: Key) -> dict[str, str]:
        """The releases that the row's cell names as its own: those of its library and of the frameworks below it."""
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
    suites = a.manifest["suite"], b.manifest["suite"]
    return Difference(
        suite=a.suite,
        before=str(a.folder),
        after=str(b.folder),
        rows=tuple(_row(a, b, key) for key in keys),
        packages=tuple(packages),
        models=other_models(a, b),
        keys=tuple(key for key in {**suites[0], **suites[1]} if suites[0].get(key) != suites[1].get(key)),
    )


def check_comparable(a: Loaded, b: Loaded) -> None:
    """Raise ``InputError`` unless the runs are of one suite and the same images."""
    if a.suite != b.suite:
        raise InputError(f"{a.folder} is a run of the suite {a.suite}, {b.folder} of {b.suite}: compare runs of one")
    for name, one in a.data.items():
        other = b.data.get(name)
        if other is not None and one["digest"] != other["digest"]:
            raise InputError(
                f"{a.folder} and {b.folder} attacked different images: {one['images']} and {other['images']} of "
                f"{name}, digests {one['digest'][:12]} and {other['digest'][:12]}"
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
    """The packages with another release, in the order of their names."""
    packages = (Package(name, before.get(name), after.get(name)) for name in sorted({*before, *after}))
    return tuple(package for package in packages if package.before != package.after)


def suspects(a: Loaded, b: Loaded, key: Key) -> tuple[Package, ...]:
    """The changed packages that can be a row's cause: those of its cell's own, or all where none of these changed."""
    own = {*a.own(key), *b.own(key)}
    changed = changed_packages(a.packages, b.packages)
    return tuple(package for package in changed if package.name in own) or changed


def compare_rows(a: Loaded, b: Loaded, key: Key) -> Comparison:
    """Compare one row in two runs. Raises ``InputError`` where a result is gone that the table lists as done."""
    if key not in a.rows or key not in b.rows:
        run = a if key in a.rows else b
        return Comparison("missing", f"only in {run.folder}")
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
    success_a, success_b = a["success"], b["success"]
    pieces = arrays.pieces(a["x_adv"], b["x_adv"])
    delta = np.concatenate([_largest_difference(one, other) for one, other in pieces])
    largest, moved = float(delta.max(initial=0)), int((delta > EQUAL).sum())
    same_labels = a["pred_adv"] == b["pred_adv"]
    only_before, only_after = int((success_a & ~success_b).sum()), int((~success_a & success_b).sum())
    comparison = Comparison(
        kind="same",
        says="",
        status=("done", "done"),
        n=len(a["y"]),
        robust_accuracy=(float((a["pred_adv"] == a["y"]).mean()), float((b["pred_adv"] == b["y"]).mean())),
        only_before=only_before,
        only_after=only_after,
        p_value=mcnemar(success_a, success_b),
        max_delta=largest,
        moved=moved,
        same_labels=float(same_labels.mean()),
        other_clean=int((a["pred_clean"] != b["pred_clean"]).sum()),
        distances=_distances(a, b, norm if norm in NORMS else "l2", success_a & success_b),
    )
    kind: Kind = "same"
    if only_before or only_after:
        kind = "success"
    elif moved or not same_labels.all():
        kind = "images"
    elif set(before.notes) != set(after.notes):
        kind = "notes"
    elif largest:
        kind = "equal"
    return replace(comparison, kind=kind, says=_in_words(kind, comparison, before.notes, after.notes))


def _largest_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest difference of a pixel in each image."""
    return np.asarray(np.abs(a.astype(np.float64) - b).reshape(len(a), -1).max(axis=1, initial=0))


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


def _in_words(kind: Kind, comparison: Comparison, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """The comparison in words; ``before`` and ``after`` are the notes of the row in the two runs."""
    texts = []
    if kind in ("success", "images"):
        assert comparison.robust_accuracy is not None
        one, two = comparison.robust_accuracy
        if kind == "success":
            texts.append(f"robust accuracy {one:.3f} → {two:.3f}")
            texts.append(
                f"of {comparison.n} images {comparison.only_after} newly hit, {comparison.only_before} no longer "
                f"(p = {comparison.p_value:.2g})"
            )
        texts.append(f"{comparison.moved} images moved by up to {comparison.max_delta:.2g}")
        if comparison.distances and abs(comparison.distances[0] - comparison.distances[1]) > EQUAL:
            texts.append("mean distance {:.4g} → {:.4g} (p = {:.2g})".format(*comparison.distances))
        if comparison.other_clean:
            texts.append(f"the model itself reads {comparison.other_clean} clean images otherwise")
    if set(before) != set(after):
        texts += [f"no longer says: {note}" for note in before if note not in after]
        texts += [f"now says: {note}" for note in after if note not in before]
    return "; ".join(texts)


def _undone(status: tuple[str, str], before: str, after: str) -> Comparison:
    if status[0] != status[1]:
        states = zip(status, (before, after), strict=True)
        texts = [f"{state}: {reason}" if reason else state for state, reason in states]
        return Comparison("status", " → ".join(texts), status)
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


# --- the texts


def headline(difference: Difference) -> list[str]:
    """The lines above the rows."""
    own = {package.name for row in difference.changed for package in row.packages}
    lines = [f"{difference.suite}: {difference.before} → {difference.after}"]
    if not difference.packages:
        lines.append("the same packages in both environments")
    listed = [package for package in difference.packages if package.name in own] or list(difference.packages)
    lines += [str(package) for package in listed[:8]]
    if len(difference.packages) > len(listed[:8]):
        lines.append(f"and {len(difference.packages) - len(listed[:8])} other packages (--format json lists them)")
    lines += [f"the model {name} is another in the second run: its rows don't compare" for name in difference.models]
    if difference.keys:
        lines.append(f"the suite itself was changed: {', '.join(difference.keys)}")
    return lines


def footline(difference: Difference) -> str:
    """The line below the rows: how many changed."""
    kinds = [row.comparison.kind for row in difference.rows]
    equal = f", {kinds.count('equal')} equal to within rounding" if "equal" in kinds else ""
    return f"{len(difference.changed)} of {len(kinds)} rows changed{equal}"


HEADERS = ("model", "library", "attack", "what", "how", "changed with")


def _cells(difference: Difference) -> list[tuple[str, ...]]:
    return [
        (row.model, row.library, row.attack, str(row.comparison.kind), row.comparison.says, named(row.packages))
        for row in difference.changed
    ]


def named(packages: tuple[Package, ...]) -> str:
    """The packages and their releases in words; of many the first three."""
    more = f" and {len(packages) - 3} more" if len(packages) > 3 else ""
    return ", ".join(map(str, packages[:3])) + more


def render(difference: Difference, form: str) -> str:
    """The difference as Markdown or JSON."""
    if form == "json":
        return json.dumps(asdict(difference), indent=2, ensure_ascii=False) + "\n"
    import pandas as pd

    rows = pd.DataFrame(_cells(difference), columns=list(HEADERS)).map(lambda text: text.replace("|", r"\|"))
    table = [rows.to_markdown(index=False), ""] if len(rows) else []
    return "\n".join([*(f"{line}  " for line in headline(difference)), "", *table, footline(difference)]) + "\n"


def print_rich(difference: Difference, console: Any) -> None:
    """Print the difference on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    for line in headline(difference):
        console.print(escape(line), highlight=False)
    if difference.changed:
        table = Table()
        for header in HEADERS:
            table.add_column(header, overflow="fold")
        for row in _cells(difference):
            table.add_row(*map(escape, row))
        console.print(table)
    console.print(footline(difference), highlight=False)
