"""What `sparring transfer` prints: for each attack and library surrogates down, targets across; remarks below."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparring.adapters.errors import InputError, unknown
from sparring.suites.results.labels import row_labels

if TYPE_CHECKING:
    from rich.console import Console

    from sparring.suites.transfer.matrix import Transfer

FORMATS = ("rich", "md", "csv", "json", "latex")
VALUES = {
    "success_on_correct": "of the images that surrogate and target classify correctly",
    "success_on_target_correct": "of the images that the target classifies correctly",
    "success_all": "of all images",
    "success_8bit": "of all images, after saving with 8 bits",
    "success_8bit_on_correct": "of the images that both classify correctly, after saving with 8 bits",
}


def sheet(transfer: Transfer, value: str = "success_on_correct") -> pd.DataFrame:
    """The table as texts: a row for each attack, library and surrogate, a column for each target, one for the mean.

    The mean is over the targets that are not the surrogate in any runtime. Several seeds are averaged; a single one
    has its Wilson interval beside the rate. The diagonal is in [brackets], other runtimes of the surrogate are in
    (parentheses). Raises ``InputError`` for an unknown value.
    """
    if value not in VALUES:
        raise InputError(f"--value: {unknown('value', value, VALUES)}")
    rows = with_labels(transfer.rows)
    lines: list[dict[str, str]] = []
    for (label, library, surrogate), group in rows.groupby(["row", "library", "surrogate"], sort=False):
        line = {"attack": str(label), "library": str(library), "surrogate → target": str(surrogate)}
        for target, cells in group.groupby("target", sort=False):
            line[str(target)] = _text(cells, value, str(surrogate))
        done = group[(group["status"] == "done") & ~group["same_function"].astype(bool)]
        line["mean of others"] = _percent(done[value].mean()) if len(done) else "–"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def with_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column ``row``, the attack with its parameters; a library with several routes names its route."""
    table = rows.assign(row=row_labels(rows))
    several = table.groupby(["row", "library", "surrogate"])["route"].transform("nunique") > 1
    return table.assign(library=table["library"].where(~several, table["library"] + " " + table["route"]))


def remarks(transfer: Transfer) -> list[str]:
    """The lines below the table: the targets' own errors, deviations between runtimes, failures."""
    done = transfer.rows[transfer.rows["status"] == "done"]
    errors = done.groupby("target", sort=False)["target_clean_error"].mean()
    lines = []
    if len(done):
        lines.append("clean error: " + ", ".join(f"{name} {_percent(rate)}" for name, rate in errors.items()))
    deviations = transfer.deviations
    if len(transfer.runtimes):
        pairs = transfer.runtimes[["target_a", "target_b"]].drop_duplicates()
        if not len(deviations):
            number = "one pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
            lines.append(f"runtimes of one model, {number}: they decide alike on every image")
    for (a, b), group in deviations.groupby(["target_a", "target_b"], sort=False):
        lines.append(
            f"DEVIATION: {a} and {b} are one model, and differ on {int(group['differing'].sum())} images in "
            f"{len(group)} cells (largest margin {group['largest_margin'].max():.1e}): transfer/runtimes.csv"
        )
    bad = transfer.rows[transfer.rows["status"].isin(["failed", "timeout", "missing"])]
    for reason, group in bad.groupby(bad["reason"].fillna(""), sort=False):
        lines.append(f"{len(group)} rows {group['status'].iloc[0]}: {reason}")
    return lines


def render(transfer: Transfer, form: str, value: str = "success_on_correct") -> str:
    """The matrix as Markdown, LaTeX, CSV or JSON; the last two hold every column."""
    if form == "csv":
        return transfer.rows.to_csv(index=False, lineterminator="\n")
    if form == "json":
        parts = ("rows", "surrogates", "asymmetry", "runtimes")
        plain = {name: json.loads(getattr(transfer, name).to_json(orient="records")) for name in parts}
        return json.dumps(plain, indent=2) + "\n"
    table = sheet(transfer, value)
    if form == "latex":
        return str(table.to_latex(index=False, escape=True))
    escaped = table.map(lambda text: str(text).replace("|", r"\|"))
    title = f"Success {VALUES[value]}"
    return f"{title}\n\n{escaped.to_markdown(index=False)}\n\n" + "".join(f"{line}  \n" for line in remarks(transfer))


def print_rich(transfer: Transfer, console: Console, value: str = "success_on_correct") -> None:
    """Print the matrix on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    texts = sheet(transfer, value)
    for (attack, library), group in texts.groupby(["attack", "library"], sort=False):
        part = group.drop(columns=["attack", "library"])
        table = Table(title=escape(f"{attack}, {library}: success {VALUES[value]}"), title_justify="left")
        for name in part.columns:
            table.add_column(escape(str(name)), overflow="fold")
        for _, line in part.iterrows():
            table.add_row(*(escape(str(text)) for text in line))
        console.print(table)
    for remark in remarks(transfer):
        style = "bold red" if remark.startswith("DEVIATION") else None
        console.print(remark, highlight=False, markup=False, style=style)


def _text(cells: pd.DataFrame, value: str, surrogate: str) -> str:
    first: Any = cells.iloc[0]
    done = cells[cells["status"] == "done"]
    if not len(done):
        return "–" if first["status"] == "unsupported" else str(first["status"]).upper()
    text = _percent(done[value].mean())
    if len(done) == 1 and done[value].notna().all():
        text += f" {100 * first[f'{value}_low']:.0f}–{100 * first[f'{value}_high']:.0f}"
    if first["target"] == surrogate:
        return f"[{text}]"
    return f"({text})" if first["same_function"] else text


def _percent(rate: Any) -> str:
    return "–" if rate != rate else f"{100 * rate:.1f}"
