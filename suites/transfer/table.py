"""What `sparring transfer` prints: for each attack and library surrogates down, targets across, and what follows."""

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
    "success_on_correct": "of the images that surrogate and target have right",
    "success_on_target_correct": "of the images that the target has right",
    "success_all": "of all images",
    "success_8bit": "of all images, after saving with 8 bits",
    "success_8bit_on_correct": "of the images that both have right, after saving with 8 bits",
}


def sheet(found: Transfer, value: str = "success_on_correct") -> pd.DataFrame:
    """Texts: a row for each attack, library and surrogate, a column for each target, and the mean over the others.

    Several seeds are averaged; of one, the Wilson interval stands beside the rate. The diagonal is in [brackets], other
    runtimes of the surrogate in (parentheses). Raises ``InputError`` for an unknown value.
    """
    if value not in VALUES:
        raise InputError(f"--value: {unknown('value', value, VALUES)}")
    rows = labelled(found.rows)
    lines: list[dict[str, str]] = []
    for (label, library, surrogate), group in rows.groupby(["row", "library", "surrogate"], sort=False):
        line = {"attack": str(label), "library": str(library), "surrogate → target": str(surrogate)}
        for target, cells in group.groupby("target", sort=False):
            line[str(target)] = _text(cells, value, str(surrogate))
        done = group[(group["status"] == "done") & ~group["same_function"].astype(bool)]
        line["mean of others"] = _percent(done[value].mean()) if len(done) else "–"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """With a column ``row``, the attack with its parameters, and the route beside the library where one has several."""
    made = rows.assign(row=row_labels(rows))
    several = made.groupby(["row", "library", "surrogate"])["route"].transform("nunique") > 1
    return made.assign(library=made["library"].where(~several, made["library"] + " " + made["route"]))


def remarks(found: Transfer) -> list[str]:
    """What to say beneath: the targets' own errors, deviations between runtimes, failures."""
    done = found.rows[found.rows["status"] == "done"]
    errors = done.groupby("target", sort=False)["target_clean_error"].mean()
    said = (
        ["clean error: " + ", ".join(f"{name} {_percent(rate)}" for name, rate in errors.items())] if len(done) else []
    )
    deviations = found.deviations
    if len(found.runtimes):
        pairs = found.runtimes[["target_a", "target_b"]].drop_duplicates()
        if not len(deviations):
            number = "one pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
            said.append(f"runtimes of one model, {number}: they decide alike on every image")
    for (a, b), group in deviations.groupby(["target_a", "target_b"], sort=False):
        said.append(
            f"DEVIATION: {a} and {b} are one model, and differ on {int(group['differing'].sum())} images in "
            f"{len(group)} cells (largest margin {group['largest_margin'].max():.1e}): transfer/runtimes.csv"
        )
    bad = found.rows[found.rows["status"].isin(["failed", "timeout", "missing"])]
    for reason, group in bad.groupby(bad["reason"].fillna(""), sort=False):
        said.append(f"{len(group)} rows {group['status'].iloc[0]}: {reason}")
    return said


def render(found: Transfer, form: str, value: str = "success_on_correct") -> str:
    """The matrix as Markdown, LaTeX, CSV or JSON; the last two hold every column."""
    if form == "csv":
        return found.rows.to_csv(index=False, lineterminator="\n")
    if form == "json":
        parts = ("rows", "surrogates", "asymmetry", "runtimes")
        plain = {name: json.loads(getattr(found, name).to_json(orient="records")) for name in parts}
        return json.dumps(plain, indent=2) + "\n"
    made = sheet(found, value)
    if form == "latex":
        text: str = made.to_latex(index=False, escape=True)
        return text
    escaped = made.map(lambda text: str(text).replace("|", r"\|"))
    title = f"Success {VALUES[value]}"
    return f"{title}\n\n{escaped.to_markdown(index=False)}\n\n" + "".join(f"{line}  \n" for line in remarks(found))


def print_rich(found: Transfer, console: Console, value: str = "success_on_correct") -> None:
    """The matrix on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    made = sheet(found, value)
    for (attack, library), part in made.groupby(["attack", "library"], sort=False):
        shown = part.drop(columns=["attack", "library"])
        table = Table(title=escape(f"{attack}, {library}: success {VALUES[value]}"), title_justify="left")
        for name in shown.columns:
            table.add_column(escape(str(name)), overflow="fold")
        for _, line in shown.iterrows():
            table.add_row(*(escape(str(text)) for text in line))
        console.print(table)
    for remark in remarks(found):
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
