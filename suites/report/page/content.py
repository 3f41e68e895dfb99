"""The content of a run's page: every value that its template shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparring.adapters.errors import InputError
from sparring.suites.report import masking, normalized_first, published, strips
from sparring.suites.report import rows as study_rows
from sparring.suites.report.figures import all as figures
from sparring.suites.report.figures.drawing import INK
from sparring.suites.report.page.svg import inline
from sparring.suites.report.page.tables import PageTable, page_table
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable
from sparring.suites.report.tables import all as study_tables
from sparring.suites.results import store

if TYPE_CHECKING:
    import pandas as pd

FIRST_PACKAGES = (
    *("sparring", "adversarial-robustness-toolbox", "foolbox", "torchattacks"),
    *("torch", "torchvision", "keras", "tensorflow", "jax", "onnxruntime", "onnxruntime-gpu"),
    *("numpy", "scikit-learn"),
)
"""The packages that the numbers depend on most; the page folds the others away."""


MANY_FOLDERS = 40
"""More folders than this are counted, not named."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page. ``svg`` is its drawing, an ``<svg>`` element."""

    id: str
    title: str
    caption: str
    svg: str


def content(study: Study) -> dict[str, Any]:
    """The values of the template, by name. Raises ``InputError`` where stored cells are gone."""
    from markupsafe import Markup

    manifest, rows = study.manifest, study.rows
    _check_cells(study)
    suite = manifest["suite"]
    data = _several(manifest.get("data"))
    masked = masking.examine(study)
    compared = published.compare(study)
    drawn = [
        PageFigure(
            figure.name,
            figure.title,
            figure.caption,
            Markup(inline(figures.svg(figure), f"f{number}-", INK)),
        )
        for number, figure in enumerate(figures.figures(study))
    ]
    tables = {table.name: page_table(table) for table in study_tables.tables(study)}
    apart = {
        name: tables.pop(name, None)
        for name in (
            "normalised-first",
            "normalised-first-pictures",
            "published",
            "published-orders",
            "failures",
            "search",
            "training",
            "masked-gradients",
        )
    }
    shown = strips.strips(study, {str(item.get("name")): item.get("classes") or () for item in data})
    seen = dict.fromkeys(strip.dataset for strip in shown.strips)
    made_of = (_page(_data(data)), _page(_models(manifest)), apart["training"], apart["search"])
    return {
        "name": str(suite.get("name", study.folder.name)),
        "question": suite.get("description") or "",
        "protocol": suite.get("protocol") or "",
        "source": (suite.get("published") or {}).get("source") or "",
        "remarks": (suite.get("published") or {}).get("remarks") or "",
        "profile": manifest.get("profile") or "",
        "reduced": [
            {key: _words(item.get(key)) for key in ("key", "here", "paper")} for item in manifest.get("reduced") or ()
        ],
        "command": manifest.get("command") or f"sparring run {suite.get('name', 'SUITE')}",
        "counts": _counts(rows),
        "masked": masking.sentences(masked.findings),
        "masked_compared": masked.compared,
        "masked_table": apart["masked-gradients"],
        "normalized_first": normalized_first.section(study),
        "normalized_tables": [
            table for table in (apart["normalised-first-pictures"], apart["normalised-first"]) if table
        ],
        "verdict": published.verdict(compared) if len(compared) else "",
        "disagreements": _disagreements(compared),
        "orders": [str(line) for line in published.orders(study)["line"]] if len(compared) else [],
        "published": [table for table in (apart["published"], apart["published-orders"]) if table],
        "tables": list(tables.values()),
        "figures": drawn,
        "pictures": {name: [strip for strip in shown.strips if strip.dataset == name] for name in seen},
        "left_out": shown.left_out,
        "failures": apart["failures"],
        "deviations": _page(_deviations(rows)),
        "made_of": [table for table in made_of if table],
        "seeds": ", ".join(str(seed) for seed in manifest.get("seeds") or ()),
        "device": _device(manifest, rows),
        "machine": _machine(manifest),
        "packages": _packages(manifest),
    }


def _check_cells(study: Study) -> None:
    cells = [str(cell) for cell in study.done["cell_id"]]
    gone = [cell for cell in cells if not store.has(study.folder, cell)]
    if gone:
        raise InputError(
            f"{study.folder}: {len(gone)} of {len(cells)} finished cells of results.parquet are not in cells/, "
            f"{gone[0]} among them: copy them there, or start the run again, which computes what is missing"
        )


def _page(table: StudyTable) -> PageTable | None:
    return page_table(table) if len(table.frame) else None


def _several(data: Any) -> list[Mapping[str, Any]]:
    """The data sets of a manifest as a list; a manifest holds a single one without a list."""
    return list(data) if isinstance(data, list) else [data] if isinstance(data, dict) else []


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(inner)}" for key, inner in value.items())
    return "–" if value is None else str(value)


def _counts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """How much was run: what is counted, and the number."""
    numbers = [
        (name, int(rows[column].nunique()))
        for name, column in (
            ("data set", "dataset"),
            ("model", "model"),
            ("defense", "defense"),
            ("attack", "attack"),
            ("library", "library"),
        )
    ]
    numbers = [
        (name, count) for name, count in numbers if name != "defense" or set(rows["defense"]) != {study_rows.UNDEFENDED}
    ]
    counts = [(name if count == 1 else _plural(name), f"{count:,}") for name, count in numbers]
    if len(rows):
        least, most = int(rows["n"].min()), int(rows["n"].max())
        counts.append(("images each", f"{most:,}" if least == most else f"{least:,}–{most:,}"))
    states = rows["status"].value_counts()
    order = ("done", "failed", "timeout", "missing", "unsupported")
    return counts + [(f"rows {state}", f"{int(states[state]):,}") for state in order if state in states]


def _plural(name: str) -> str:
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _disagreements(compared: pd.DataFrame) -> list[str]:
    """A line for each published value that lies outside the interval of the measured one."""
    beyond = compared[compared["agrees"].fillna(True) == False]  # noqa: E712  (a column of booleans and blanks)
    lines = []
    for item in beyond.to_dict("records"):
        where = [
            item["dataset"],
            item["model"],
            *([item["defense"]] if item["defense"] != study_rows.UNDEFENDED else []),
            *([item["variant"]] if item["variant"] else []),
        ]
        attack = "clean" if item["attack"] == published.CLEAN else item["attack"]
        lines.append(f"{', '.join(map(str, where))}, {attack}, {item['metric']}: {item['line']}")
    return lines


def _deviations(rows: pd.DataFrame) -> StudyTable:
    """The deviations of the libraries, with the number of rows of each."""
    import pandas as pd

    counts: dict[tuple[str, str, str], int] = {}
    for item in study_rows.done(rows).to_dict("records"):
        for note in str(item["notes"]).split("; ") if isinstance(item.get("notes"), str) and item["notes"] else ():
            key = (str(item["library"]), str(item["name"]), note)
            counts[key] = counts.get(key, 0) + 1
    lines = [
        dict(zip(("library", "attack", "what", "rows"), (*key, count), strict=True)) for key, count in counts.items()
    ]
    return StudyTable(
        "deviations",
        "Where a library could not do exactly what was asked",
        "Differences that a library has no switch for; docs/agreement.md tells each with its size.",
        pd.DataFrame(lines),
    )


def _data(data: Sequence[Mapping[str, Any]]) -> StudyTable:
    import pandas as pd

    lines = [
        {
            "name": str(item.get("name")),
            "images": item.get("images"),
            "classes": len(item.get("classes") or ()) or None,
            "pictures": _pictures(item.get("facts") or {}) or None,
            "digest": str(item.get("digest", ""))[:16],
        }
        for item in data
    ]
    frame = pd.DataFrame(lines).dropna(axis="columns", how="all")
    return StudyTable("data", "Data", "The images that were attacked; sha256 of their values.", frame)


def _models(manifest: Mapping[str, Any]) -> StudyTable:
    import pandas as pd

    lines = [
        {
            "name": name,
            "framework": entry.get("framework"),
            "architecture": entry.get("architecture"),
            "defense": entry.get("defense"),
            "members": len(entry.get("members") or ()) or None,
            "weights": _weights(entry.get("facts") or {}) or None,
            "digest": str(entry.get("digest", ""))[:16],
        }
        for name, entry in (manifest.get("models") or {}).items()
    ]
    frame = pd.DataFrame(lines)
    return StudyTable(
        "models",
        "Models",
        "sha256 of what each model's numbers depend on.",
        frame.dropna(axis="columns", how="all"),
    )


def _pictures(facts: Mapping[str, Any]) -> str:
    """How pictures were resized, and which folders were left out, in words."""
    parts = [f"{key} {facts[key]}" for key in ("transforms", "resize", "crop", "size", "mapping") if facts.get(key)]
    parts += [str(facts["interpolation"])] if parts and facts.get("interpolation") else []
    folders_by_reason: dict[str, list[str]] = {}
    for folder, reason in (facts.get("left_out") or {}).items():
        folders_by_reason.setdefault(str(reason), []).append(str(folder))
    for reason, folders in folders_by_reason.items():
        names = ", ".join(folders) if len(folders) <= MANY_FOLDERS else f"{len(folders)} folders"
        parts.append(f"left out: {names} ({reason})")
    return "; ".join(parts)


def _weights(facts: Mapping[str, Any]) -> str:
    """Published weights: their enum, the file's digest, and where the pictures differ from what they expect."""
    weights = facts.get("weights") or {}
    parts = [f"{weights['enum']}, sha256 {str(weights['sha256'])[:16]}"] if weights.get("enum") else []
    for key, both in (facts.get("transforms_differ") or {}).items():
        parts.append(f"{key} {both['here']} where the weights want {both['weights']}")
    return "; ".join(parts)


def _machine(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {key: _words(value) for key, value in (manifest.get("machine") or {}).items() if value not in ("", [])}


def _device(manifest: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """The devices on which the classifiers ran; where the rows don't say, the device of the request."""
    devices = dict.fromkeys(str(item) for item in rows["device"].dropna()) if "device" in rows else {}
    return ", ".join(devices) or str(manifest.get("device", ""))


def _packages(manifest: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Names and releases: of the packages that matter most, then of the others."""
    releases = {str(name): str(version) for name, version in (manifest.get("packages") or {}).items()}
    if manifest.get("sparring"):
        releases["sparring"] = str(manifest["sparring"])
    first = [(name, releases[name]) for name in FIRST_PACKAGES if name in releases]
    return first, sorted((name, releases[name]) for name in releases if name not in FIRST_PACKAGES)
