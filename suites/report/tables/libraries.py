"""The library-vs-library table of a run: attacks down, libraries and models across.

Where a run has several data sets, defenses or attackers, each has rows of its own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sparring.adapters.errors import InputError
from sparring.suites.results.labels import latex, places, row_labels

FORMATS = ("rich", "md", "csv", "latex", "parquet", "svg")
VALUES = {
    "robust_accuracy": "lower is a stronger attack",
    "precision": "lower is a stronger attack",
    "recall": "lower is a stronger attack",
    "f1": "lower is a stronger attack",
    "auroc": "lower is a stronger attack",
    "pr_auc": "lower is a stronger attack",
    "attack_success_rate": "higher is a stronger attack",
    "l2_median": "lower is a stronger attack",
    "linf_median": "lower is a stronger attack",
    "seconds": "lower is faster",
    "forwards": "lower is cheaper",
    "backwards": "lower is cheaper",
}
_HIGHER = {"attack_success_rate"}
_ROW_WIDTH = 34  # characters for the attack and its parameters, on a terminal


@dataclass(frozen=True)
class Table:
    """A table of texts, with the number behind each text, the marks of the best and the worst, and footnotes."""

    title: str
    texts: pd.DataFrame
    numbers: pd.DataFrame
    best: pd.DataFrame
    worst: pd.DataFrame
    footnotes: tuple[str, ...]


def make(results: pd.DataFrame, value: str = "robust_accuracy") -> Table:
    """Rows are attacks with their parameters; columns are library × framework, or × model where two share a framework.

    A row also names its data set, defense and attacker where these vary. Numbers are means over seeds. Among the
    libraries of one row and model the best and the worst are marked: the strongest and the weakest attack, or the
    lowest and the highest cost. A failed cell shows its status; an unsupported one shows a dash.
    """
    if value not in VALUES:
        raise InputError(f"unknown value {value!r}. Valid: {', '.join(VALUES)}")
    if value not in results:
        raise InputError(f"this run has no {value}: an earlier release of sparring made it")
    data = results.copy()
    data["row"] = [
        f"{where}: {label}" if where else label for where, label in zip(places(data), row_labels(data), strict=True)
    ]
    data["column"] = _column_labels(data)
    rows, columns = list(dict.fromkeys(data["row"])), list(dict.fromkeys(data["column"]))
    numbers = pd.DataFrame(float("nan"), index=rows, columns=columns)
    texts = pd.DataFrame("", index=rows, columns=columns)
    notes: dict[str, int] = {}
    for (row, column), group in data.groupby(["row", "column"], sort=False):
        done = group[group["status"] == "done"]
        marks = ""
        for _, item in group.iterrows():
            for note in _remarks(item):
                marks += f" [{notes.setdefault(note, len(notes) + 1)}]" if note else ""
        marks = " ".join(dict.fromkeys(marks.split()))
        if len(done):
            numbers.loc[row, column] = done[value].mean()
            text = _shown(float(done[value].mean()), value)
            if len(done) > 1 and pd.notna(done[value]).all():
                text += f" ±{_shown(float(done[value].std(ddof=1)), value)}"
        else:
            status = str(group["status"].iloc[0])
            text = {"unsupported": "–"}.get(status, status.upper())
        texts.loc[row, column] = f"{text} {marks}".strip()
    best, worst = numbers.notna() & False, numbers.notna() & False
    of_model = data.drop_duplicates("column").set_index("column")["model"]
    for _, same in of_model.groupby(of_model, sort=False).groups.items():  # libraries compare on one and the same model
        part = numbers[list(same)]
        strong, weak = (
            (part.max(axis=1), part.min(axis=1)) if value in _HIGHER else (part.min(axis=1), part.max(axis=1))
        )
        differ = (strong != weak).to_numpy()[:, None]
        best[list(same)] = part.eq(strong, axis=0) & differ
        worst[list(same)] = part.eq(weak, axis=0) & differ
    suite, dataset = data["suite"].iloc[0], " and ".join(dict.fromkeys(data["dataset"]))
    return Table(
        f"{suite}: {value.replace('_', ' ')} on {int(data['n'].max())} images of {dataset} ({VALUES[value]})",
        texts,
        numbers,
        best,
        worst,
        (*_clean_line(data), *(f"[{number}] {note}" for note, number in notes.items())),
    )


def render(table: Table, form: str) -> str | bytes:
    """The table as Markdown, CSV, LaTeX or Parquet. In Markdown and LaTeX the best is bold, the worst underlined.

    CSV and Parquet hold plain numbers, long names and no marks; cells without a number are empty.
    """
    if form == "md":
        marked = _marked(table, lambda t: f"**{t}**", lambda t: f"<u>{t}</u>")
        lines = "".join(f"\n{line.replace('<', '&lt;')}  " for line in table.footnotes)
        return f"{table.title}\n\n{_escaped(marked).to_markdown()}\n{lines}"
    if form == "csv":
        return table.numbers.rename_axis("attack").to_csv(lineterminator="\n")
    if form == "latex":
        texts = table.texts.map(latex)
        escaped = Table("", texts, table.numbers, table.best, table.worst, ())
        marked = _marked(escaped, lambda t: rf"\textbf{{{t}}}", lambda t: rf"\underline{{{t}}}")
        marked.index = pd.Index([latex(str(name)) for name in marked.index])
        marked.columns = pd.Index([latex(str(name)) for name in marked.columns])
        notes = "".join(f"% {' '.join(line.splitlines())}\n" for line in table.footnotes)
        return marked.to_latex(escape=False, caption=latex(table.title)) + notes
    if form == "parquet":
        buffer = io.BytesIO()
        table.numbers.rename_axis("attack").reset_index().to_parquet(buffer, index=False)
        return buffer.getvalue()
    if form == "svg":
        return _svg(table)
    raise InputError(f"unknown format {form!r}. Valid: {', '.join(FORMATS)}")


def print_rich(table: Table, console: Any) -> None:
    """The table on a terminal: the best in bold green, the worst in red; as several below each other if it is wide."""
    from rich.markup import escape

    console.print(escape(table.title), style="bold", highlight=False)
    for part in _parts(table, console.width):
        console.print(_rich_part(table, part))
    for line in table.footnotes:
        console.print(escape(line), style="dim", highlight=False)


def _parts(table: Table, width: int) -> list[list[int]]:
    """The columns, by number, in groups that fit on the terminal beside the names of the rows."""
    parts: list[list[int]] = [[]]
    left = room = max(1, width - _ROW_WIDTH - 4)
    for j, column in enumerate(table.texts.columns):
        needed = max(len(word) for word in [*str(column).split(" ", 1), *table.texts.iloc[:, j]]) + 3
        if parts[-1] and needed > left:
            parts.append([])
            left = room
        parts[-1].append(j)
        left -= needed
    return parts


def _rich_part(table: Table, columns: list[int]) -> Any:
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable()
    shown.add_column("attack", min_width=_ROW_WIDTH, max_width=_ROW_WIDTH, overflow="fold")
    for j in columns:
        shown.add_column(escape(str(table.texts.columns[j])).replace(" ", "\n", 1), justify="right", overflow="fold")
    for i, name in enumerate(table.texts.index):
        cells = []
        for j in columns:
            style = "bold green" if table.best.iat[i, j] else "red" if table.worst.iat[i, j] else ""
            text = escape(str(table.texts.iat[i, j]))
            cells.append(f"[{style}]{text}[/]" if style else text)
        shown.add_row(escape(str(name)), *cells)
    return shown


def _svg(table: Table) -> str:
    """The table on a terminal, as an SVG."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    recorder = Console(record=True, file=io.StringIO(), width=190)
    print_rich(table, recorder)
    return recorder.export_svg(title="sparring table", theme=DEFAULT_TERMINAL_THEME, unique_id="sparring")


def _column_labels(data: pd.DataFrame) -> list[str]:
    by_framework = data.groupby("framework")["model"].nunique()
    attacked = [
        name for name in ("dataset", "defense", "attacker", "variant") if name in data
    ]  # a defended model has its own route, and so has one that is shown in other units
    routes = data.groupby(["library", "framework", *attacked], dropna=False)["route"].nunique()
    several_routes = routes.groupby(level=["library", "framework"]).max()
    labels = []
    for _, item in data.iterrows():
        where = item["framework"] if by_framework[item["framework"]] == 1 else item["model"]
        route = f" {item['route']}" if several_routes[item["library"], item["framework"]] > 1 else ""
        labels.append(f"{item['library']} {where}{route}")
    return labels


def _remarks(item: pd.Series[Any]) -> list[str]:
    """The footnotes of one cell: the reason of a failure, the deviations of a library."""
    if item["status"] in ("failed", "timeout"):
        return [f"{item['library']}, {item['attack']}: {item['status']}: {item['reason']}"]
    if item["status"] == "done" and isinstance(item["notes"], str) and item["notes"]:
        return [f"{item['library']}, {item['attack']}: {note}" for note in item["notes"].split("; ")]
    return []


def _clean_line(data: pd.DataFrame) -> list[str]:
    subject = [name for name in ("dataset", "model", "defense") if name in data]
    done = data[data["status"] == "done"].drop_duplicates(subject)
    shown = [name for name in subject if name == "model" or data[name].nunique() > 1]
    accuracies = [
        (" ".join(str(item[name]) for name in shown if item[name] != "none"), item["clean_accuracy"])
        for _, item in done.iterrows()
    ]
    clean = ", ".join(f"{who} {accuracy:.3f}" for who, accuracy in accuracies)
    return [f"clean accuracy: {clean}; – : the library or the framework can't do it"] if clean else []


def _shown(value: float, column: str) -> str:
    if value != value:
        return "none hit"
    return f"{value:.3g}" if column in ("seconds", "forwards", "backwards") else f"{value:.3f}"


def _marked(table: Table, best: Any, worst: Any) -> pd.DataFrame:
    marked = table.texts.copy()
    for i in range(len(marked)):
        for j in range(len(marked.columns)):
            text = str(marked.iat[i, j])
            marked.iat[i, j] = best(text) if table.best.iat[i, j] else worst(text) if table.worst.iat[i, j] else text
    return marked


def _escaped(texts: pd.DataFrame) -> pd.DataFrame:
    def plain(name: object) -> str:
        return str(name).replace("|", r"\|").replace("<", "&lt;")

    shown = texts.map(lambda text: str(text).replace("|", r"\|"))  # marked: its tags stay
    return shown.rename(index=plain, columns=plain).rename_axis("attack")
