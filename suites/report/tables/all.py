"""All tables of a study: one for each question that its rows answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparring.adapters.errors import InputError, unknown
from sparring.suites.report import masking
from sparring.suites.report import published as publication
from sparring.suites.report.normalized_first import normalized_first_tables
from sparring.suites.report.rows import KEYS, SUBJECT, UNDEFENDED, varied
from sparring.suites.report.study import Study
from sparring.suites.report.table import FORMATS, StudyTable, print_rich, render
from sparring.suites.report.tables.attacks import ranks, statistics, times
from sparring.suites.report.tables.duels import aware, libraries, worst
from sparring.suites.report.tables.errors import errors
from sparring.suites.report.tables.patches import patches
from sparring.suites.report.tables.patches import transfer as patch_transfer
from sparring.suites.report.tables.scores import attacked, clean, defenses, drops, summary
from sparring.suites.report.tables.small_samples import draws, ratios
from sparring.suites.report.tables.training import search, training

__all__ = ["FORMATS", "StudyTable", "find", "print_rich", "render", "tables"]


def tables(study: Study) -> list[StudyTable]:
    """Every table that has rows, the general ones first.

    Numbers are means over seeds. Where a column has one value alone, the caption says it and the column is left out.
    """
    return list(_each(study))


def find(study: Study, name: str) -> StudyTable:
    """The table of this name. Raises ``InputError`` that lists the names there are."""
    seen = []
    for table in _each(study):
        if table.name == name:
            return table
        seen.append(table.name)
    raise InputError(unknown("table", name, seen))


def _each(study: Study) -> Iterator[StudyTable]:
    makers = (
        clean,
        summary,
        normalized_first_tables,
        attacked,
        drops,
        errors,
        defenses,
        aware,
        worst,
        libraries,
        ranks,
        statistics,
        draws,
        ratios,
        times,
        patches,
        patch_transfer,
        search,
        training,
        published,
        orders,
        masked,
        failures,
    )
    for make in makers:
        yield from (_tidy(table) for table in make(study) if len(table.frame))


def published(study: Study) -> Iterator[StudyTable]:
    frame = publication.compare(study)
    source = (study.manifest["suite"].get("published") or {}).get("source", "")
    yield StudyTable(
        "published",
        "Published and measured",
        f"Published: {source}. Agrees: the published value lies within the measured one's 95 % "
        f"interval. {publication.verdict(frame)}",
        frame.rename(columns={"line": "remark"}),
    )


def orders(study: Study) -> Iterator[StudyTable]:
    yield StudyTable(
        "published-orders",
        "The same order as published?",
        "Kendall's tau-b between the published and the measured values: 1 is the same order, −1 the reverse; with few "
        "items it says little.",
        publication.orders(study).drop(columns="line"),
    )


def masked(study: Study) -> Iterator[StudyTable]:
    import pandas as pd

    lines = [
        {
            "dataset": item.dataset,
            "model": item.model,
            "defense": item.defense,
            "sign": item.sign,
            "weaker": item.weak,
            "leaves_right": item.weak_accuracy,
            "stronger": item.strong,
            "leaves_only": item.strong_accuracy,
            "difference": item.difference,
            "difference_low": item.low,
            "difference_high": item.high,
            "images": item.n,
        }
        for item in masking.examine(study).findings
    ]
    yield StudyTable(
        "masked-gradients",
        "Signs of masked gradients",
        "Share of images right under the weaker and the stronger attack, judged within the same ball; difference with "
        "its paired 95 % interval. Of vanishing gradients: share of the images given back as they were.",
        pd.DataFrame(lines),
        ("leaves_right", "leaves_only", "difference"),
    )


def failures(study: Study) -> Iterator[StudyTable]:
    import pandas as pd

    lines = []
    order = ("failed", "timeout", "missing", "unsupported")
    rows = study.rows[study.rows["status"] != "done"]
    rows = rows.assign(reason=rows["reason"].fillna(""))
    for key, group in rows.groupby(["status", "library", "attack", "reason"], sort=False, dropna=False):
        subjects = group[list(SUBJECT)].drop_duplicates()
        named = [
            " ".join(part for part in row if part != UNDEFENDED) for row in subjects.itertuples(index=False, name=None)
        ]
        on = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        lines.append(
            dict(zip(("status", "library", "attack", "reason"), key, strict=True)) | {"cells": len(group), "on": on}
        )
    lines.sort(key=lambda line: order.index(line["status"]) if line["status"] in order else 0)
    yield StudyTable(
        "failures",
        "What failed, and what can't be",
        "failed and timeout: the attack broke or ran out of time; missing: not run yet; unsupported: the library or "
        "the model can't do it.",
        pd.DataFrame(lines),
    )


def _tidy(table: StudyTable) -> StudyTable:
    """The table without keys of a single value (the caption says them), and without routes that distinguish nothing."""
    frame = table.frame
    keys = [key for key in KEYS if key in frame]
    others = [key for key in keys if key != "route"]
    if "route" in keys and frame.groupby(others, dropna=False)["route"].nunique().max() <= 1:
        frame, keys = frame.drop(columns="route"), others
    kept = varied(frame, keys) if len(frame) > 1 else keys
    if set(SUBJECT) <= set(keys) and not set(SUBJECT) & set(kept):
        kept = ["model", *kept]
    same = {key: str(frame[key].iloc[0]) for key in keys if key not in kept}
    constants = ", ".join(f"{key} {value}" for key, value in same.items() if value not in ("", UNDEFENDED))
    caption = f"{table.caption} All rows: {constants}." if constants else table.caption
    return replace(table, frame=frame.drop(columns=list(same)), caption=caption)
