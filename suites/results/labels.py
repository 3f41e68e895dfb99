"""What a row of results is called: its attack with parameters, its place in the run; and any text as LaTeX."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sparring.adapters.attacks.catalogue import catalogue, in_words, shortest

if TYPE_CHECKING:
    import pandas as pd


def row_labels(data: pd.DataFrame) -> list[str]:
    """The attack with its parameters, without those that have sparring's default value."""
    labels = []
    known = catalogue()
    names = [name for name, _ in known]
    for _, item in data.iterrows():
        params = json.loads(item["params"])
        canonical = known.get((item["attack"], item["norm"]))
        told = shortest(canonical, canonical.resolve(params)) if canonical else params
        shown = ", ".join(f"{key}={in_words(value)}" for key, value in told.items())
        norm = f" {item['norm']}" if isinstance(item["norm"], str) and names.count(item["attack"]) > 1 else ""
        aim = " targeted" if item["targeted"] else ""
        whose = item.get("aim", item.get("target"))
        aim = f" → {whose}" if isinstance(whose, str) and whose else aim
        labels.append(f"{item['attack']}{norm}{aim} ({shown})" if shown else f"{item['attack']}{norm}{aim}")
    return labels


def places(data: pd.DataFrame) -> list[str]:
    """Of each row its data set, defense and attacker, those of them that vary in the run; empty where none does."""
    shown = [
        name for name in ("dataset", "defense", "attacker", "variant") if name in data and data[name].nunique() > 1
    ]
    words = {"none": "undefended", "": ""}
    labels = []
    for row in data[shown].itertuples(index=False, name=None):
        told = [words.get(value, value) for value in row if isinstance(value, str)]
        labels.append(", ".join(filter(None, told)))
    return labels if shown else [""] * len(data)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "–": "--", "—": "---", "×": r"$\times$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "−": r"$-$", "\n": " ",
}  # fmt: skip


def latex(text: str) -> str:
    """The text with LaTeX's own signs escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in str(text))
