"""Labels for rows of results: the attack with its parameters, and its place in the run. Also: text as LaTeX."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sparring.adapters.attacks.catalogue import catalogue, in_words, shortest

if TYPE_CHECKING:
    import pandas as pd


def row_labels(data: pd.DataFrame) -> list[str]:
    """For each row, the attack with its parameters. Parameters at sparring's default value are left out."""
    labels = []
    attacks = catalogue()
    names = [name for name, _ in attacks]
    for _, item in data.iterrows():
        params = json.loads(item["params"])
        canonical = attacks.get((item["attack"], item["norm"]))
        parameters = shortest(canonical, canonical.resolve(params)) if canonical else params
        shown = ", ".join(f"{key}={in_words(value)}" for key, value in parameters.items())
        norm = f" {item['norm']}" if isinstance(item["norm"], str) and names.count(item["attack"]) > 1 else ""
        aim = " targeted" if item["targeted"] else ""
        goal = item.get("aim", item.get("target"))
        aim = f" → {goal}" if isinstance(goal, str) and goal else aim
        labels.append(f"{item['attack']}{norm}{aim} ({shown})" if shown else f"{item['attack']}{norm}{aim}")
    return labels


def places(data: pd.DataFrame) -> list[str]:
    """For each row, its data set, defense, attacker and variant: those that vary in the run, joined by commas."""
    shown = [
        name for name in ("dataset", "defense", "attacker", "variant") if name in data and data[name].nunique() > 1
    ]
    words = {"none": "undefended", "": ""}
    labels = []
    for row in data[shown].itertuples(index=False, name=None):
        values = [words.get(value, value) for value in row if isinstance(value, str)]
        labels.append(", ".join(filter(None, values)))
    return labels if shown else [""] * len(data)


_LATEX = {
    **{sign: f"\\{sign}" for sign in "{}$&%#_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "\n": " ",
}


def latex(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in str(text))
