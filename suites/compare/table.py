"""What `sparring agree` prints: attacks down, pairs of libraries across; below, the causes and the open differences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparring.adapters.libraries.ledger import entries
from sparring.suites.compare.verdicts import RULES
from sparring.suites.results.labels import places, row_labels

if TYPE_CHECKING:
    from rich.console import Console

    from sparring.suites.compare.agreement import Agreement

FORMATS = ("rich", "md", "csv", "json")
SEVERITY = ("identical", "equal", "explained", "unexplained", "failed")
STYLES = {
    "identical": "green",
    "equal": "green",
    "explained": "yellow",
    "unexplained": "bold red",
    "failed": "bold red",
}
OWN = "own routes, frameworks"
"""The column of the pairs within one library."""


@dataclass(frozen=True)
class Sheet:
    """The table: texts and verdicts by attack and pair of libraries, and the lines below it."""

    texts: pd.DataFrame
    verdicts: pd.DataFrame
    causes: tuple[str, ...]
    open: tuple[str, ...]
    summary: str


def placed_labels(pairs: pd.DataFrame) -> list[str]:
    """A label for each pair: its attack with its parameters, and the place where the suite has several."""
    return [f"{label}, {at}" if at else label for label, at in zip(row_labels(pairs), places(pairs), strict=True)]


def make(agreement: Agreement) -> Sheet:
    """A row for each attack with its parameters (and for each model); of several pairs the worst is shown."""
    pairs = agreement.pairs.copy()
    several = pairs["model"].nunique() > 1
    labels = placed_labels(pairs)
    pairs["row"] = [f"{label}, {m}" if several else label for label, m in zip(labels, pairs["model"], strict=True)]
    pairs["column"] = [_column(a, b) for a, b in zip(pairs["library_a"], pairs["library_b"], strict=True)]
    rows = list(dict.fromkeys(pairs["row"]))
    columns = sorted(dict.fromkeys(pairs["column"]), key=lambda name: name == OWN)
    texts = pd.DataFrame("", index=rows, columns=columns)
    verdicts = pd.DataFrame("", index=rows, columns=columns)
    numbers: dict[str, int] = {}
    for (row, column), group in pairs.groupby(["row", "column"], sort=False):
        worst = max(group["verdict"], key=SEVERITY.index)
        of_worst = group[group["verdict"] == worst]
        verdicts.loc[row, column] = worst
        texts.loc[row, column] = _text(worst, of_worst, numbers)
    ledger = entries()
    causes = tuple(f"[{number}] {name}: {ledger[name].cause}" for name, number in numbers.items())
    counts = pairs["verdict"].value_counts()
    summary = ", ".join(f"{counts.get(name, 0)} {name}" for name in SEVERITY if name in counts or name == "unexplained")
    return Sheet(texts, verdicts, causes, (*_open(pairs), *_stale(agreement)), f"{len(pairs)} pairs: {summary}")


def render(agreement: Agreement, form: str) -> str:
    """The table as Markdown, or all pairs as CSV or JSON."""
    if form == "csv":
        return agreement.pairs.to_csv(index=False, lineterminator="\n")
    if form == "json":
        return json.dumps(plain(agreement), indent=2) + "\n"
    sheet = make(agreement)
    marked = sheet.texts.map(lambda text: str(text).replace("|", r"\|")).rename_axis("attack")
    lines = [*sheet.causes, *sheet.open, sheet.summary, *_rules()]
    return f"{marked.to_markdown()}\n\n" + "".join(f"{line}  \n" for line in lines)


def print_rich(agreement: Agreement, console: Console) -> None:
    """Print the table on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    sheet = make(agreement)
    table = Table(title="after the ledger's reconciliations" if agreement.reconciled else None, title_justify="left")
    table.add_column("attack", max_width=40, overflow="fold")
    for column in sheet.texts.columns:
        table.add_column(escape(str(column)), overflow="fold")
    for i, name in enumerate(sheet.texts.index):
        cells = []
        for j in range(len(sheet.texts.columns)):
            style = STYLES.get(str(sheet.verdicts.iat[i, j]), "")
            text = escape(str(sheet.texts.iat[i, j]))
            cells.append(f"[{style}]{text}[/]" if style else text)
        table.add_row(escape(str(name)), *cells)
    console.print(table)
    for line in (*sheet.causes, *_rules()):
        console.print(escape(line), style="dim", highlight=False)
    for line in sheet.open:
        console.print(escape(line), style="bold red", highlight=False)
    console.print(sheet.summary, style="bold", highlight=False)


def plain(agreement: Agreement) -> dict[str, Any]:
    """Everything as plain JSON values; null for what is not a number."""
    rows = json.loads(agreement.pairs.to_json(orient="records", double_precision=15))
    return {"reconciled": agreement.reconciled, "rules": RULES, "stale": list(agreement.stale), "pairs": rows}


def party(row: Any, side: str) -> str:
    """One side of a pair in words: library, framework and route."""
    return f"{row[f'library_{side}']} {row[f'framework_{side}']} {row[f'route_{side}']}"


def _column(a: str, b: str) -> str:
    return OWN if a == b else f"{a} – {b}"


def _text(verdict: str, rows: pd.DataFrame, numbers: dict[str, int]) -> str:
    if verdict == "failed":
        return "FAILED"
    if verdict == "identical":
        return "identical"
    marks = {
        numbers.setdefault(name, len(numbers) + 1) for ids in rows["ledger_id"] if ids for name in ids.split(" + ")
    }
    mark = f" [{','.join(map(str, sorted(marks)))}]" if marks else ""
    name = verdict.upper() if verdict == "unexplained" else verdict
    if not rows["n"].any():
        return f"{name}: fails{mark}"
    return f"{name} {rows['max_abs_diff'].max():.2g}{mark}"


def _open(pairs: pd.DataFrame) -> list[str]:
    """A line for each attack and pair of libraries that is open, with the worst of its routes and frameworks."""
    lines = []
    bad = pairs[pairs["verdict"].isin(["unexplained", "failed"])]
    for _, group in bad.groupby(["row", "column", "verdict"], sort=False):
        row = group.sort_values("max_abs_diff", ascending=False, na_position="first").iloc[0]
        others = f" (and {len(group) - 1} more of their routes and frameworks)" if len(group) > 1 else ""
        where = f"{row['verdict']}: {row['row']}: {party(row, 'a')} – {party(row, 'b')}{others}"
        if row["verdict"] == "failed":
            lines.append(f"{where}: {row['reason']}")
            continue
        lines.append(
            f"{where}: max |Δ| {row['max_abs_diff']:.2g} on {row['pixels_differing']:.1%} of the pixels, "
            f"labels agree on {row['label_agreement']:.1%}, success {row['success_a']:.1%} and {row['success_b']:.1%} "
            f"(p = {row['p_value']:.2g}), distance ratio up to {row['distance_ratio']:.3f}"
            + (f"; {row['reason']}" if row["reason"] else "")
        )
    return lines


def _stale(agreement: Agreement) -> list[str]:
    return [
        f"stale: the ledger's {name} ({', '.join(entries()[name].attacks)}) should show here and does not"
        for name in agreement.stale
    ]


def _rules() -> list[str]:
    return [f"{name}: {rule}" for name, rule in RULES.items()]
