"""Published values beside measured ones: difference, interval, and whether the order is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.rows import UNDEFENDED, done, labelled, with_errors
from sparring.suites.report.study import Study

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("dataset", "model", "defense", "variant", "attack", "metric"),
    *("published", "measured", "measured_low", "measured_high", "difference", "agrees"),
    *("line", "library", "attacker", "choice"),
)
"""``agrees``: whether the published value lies within the measured one's 95 % interval; NA where one is missing.
``line``: the disagreement in words. ``choice``: which row was taken where several match."""
ORDER_COLUMNS = ("of", "dataset", "group", "metric", "items", "tau", "published_order", "measured_order", "line")
CLEAN = "none"
"""The attack's name in rows of values on clean images."""
_COLUMN = {
    "accuracy": ("clean_accuracy", "robust_accuracy"),
    "prediction_seconds_per_image": ("prediction_seconds_per_image", "prediction_seconds_per_image"),
    "seconds_per_image": ("prediction_seconds_per_image", "seconds_in_all"),
}
"""The columns of a metric in the results: on clean images, and under attack."""


def compare(study: Study) -> pd.DataFrame:
    """One row for each published value, with ``COLUMNS``; no row where the suite has no published values.

    The measured value is that of the library that ``published`` names, or else of the suite's first. Where several rows
    match, the first in the suite's order is taken, and ``choice`` says so. Seeds are averaged. ``seconds_per_image`` of
    an attack includes the prediction.
    """
    import pandas as pd

    suite = study.manifest["suite"]
    publication = suite.get("published") or {}
    lines: list[dict[str, Any]] = []
    if publication.get("values"):
        rows = with_errors(labelled(study.frame))  # a paper may print top-5 scores of ten classes
        prediction = rows.get("prediction_seconds_per_image", 0.0)
        rows["seconds_in_all"] = rows["seconds_per_image"] + prediction
        library = publication.get("library") or next(iter(suite.get("libraries") or [""]))
        instead = publication.get("instead") or {}
        for value in publication["values"]:
            replaced = {key: instead[value[key]] for key in ("data", "model") if value.get(key) in instead}
            replacements = ", ".join(f"{new} in place of {value[key]}" for key, new in replaced.items())
            for line in _compared({**value, **replaced}, rows, str(library)):
                lines.append({**line, "choice": "; ".join(filter(None, [replacements, line["choice"]]))})
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    numbers = ["published", "measured", "measured_low", "measured_high", "difference"]
    return frame.astype(dict.fromkeys(numbers, "float64")).astype({"agrees": "boolean"})


def orders(study: Study) -> pd.DataFrame:
    """Whether attacks, defenses and models have the published order, by Kendall's tau-b (``ORDER_COLUMNS``).

    There is one row for each group of three or more values that differ in one column alone: for example one data set,
    model and defense under several attacks.
    """
    import pandas as pd

    compared = compare(study)
    both = compared[compared["published"].notna() & compared["measured"].notna()]
    lines = []
    for of in ("attack", "defense", "model"):
        others = [key for key in ("dataset", "model", "defense", "variant", "attack", "metric") if key != of]
        ranked = both[both["attack"] != CLEAN] if of == "attack" else both
        for key, group in ranked.groupby(others, sort=False):
            group = group.drop_duplicates(of)
            if len(group) >= 3:
                lines.append(_order(of, dict(zip(others, key, strict=True)), group))
    return pd.DataFrame(lines, columns=list(ORDER_COLUMNS))


def verdict(compared: pd.DataFrame) -> str:
    """How many of the published values agree, in one sentence."""
    judged = compared[compared["agrees"].notna()]
    agree = judged["agrees"].astype(bool)
    lower = int((judged["difference"][~agree] < 0).sum())
    higher = int((judged["difference"][~agree] > 0).sum())
    missing = int(compared["measured"].isna().sum())
    more = f"; {missing} were not measured" if missing else ""
    return f"{int(agree.sum())} of {len(judged)} agree; measured lower: {lower}, higher: {higher}{more}."


def _compared(value: Mapping[str, Any], rows: pd.DataFrame, library: str) -> Iterator[dict[str, Any]]:
    dataset = str(value.get("data") or value.get("dataset"))
    attack, defense = str(value.get("attack") or CLEAN), str(value.get("defense") or UNDEFENDED)
    answers, choice = _rows(rows, dataset, value, attack, defense, library)
    variant = str(answers["variant"].iloc[0]) if len(answers) and attack != CLEAN else str(value.get("variant") or "")
    for metric, number in value["metrics"].items():
        line: dict[str, Any] = {
            "dataset": dataset,
            "model": value["model"],
            "defense": defense,
            "variant": variant,
            "attack": attack,
            "metric": metric,
            "published": float(number),
            "choice": choice,
            "library": "",
            "attacker": "",
            "agrees": None,
        }
        column = _COLUMN.get(metric, (f"clean_{metric}", metric))[attack != CLEAN]
        values = list(answers[column].dropna()) if column in answers else []
        if not values:
            why = f"no {metric} in these rows" if len(answers) else choice
            yield {**line, "line": f"published {_number(number)}, not measured: {why}"}
            continue
        first = answers.iloc[0]
        line |= {"measured": float(np.mean(np.asarray(values))), "attacker": first["attacker"]}
        line["library"] = first["library"] if attack != CLEAN else ""
        line["difference"] = line["measured"] - line["published"]
        ends = [f"{column}_low", f"{column}_high"]
        if all(end in answers for end in ends) and answers[ends].notna().all(axis=None):
            low, high = (float(answers[end].mean()) for end in ends)
            line |= {"measured_low": low, "measured_high": high, "agrees": low <= line["published"] <= high}
        yield {**line, "line": _words(line)}


def _rows(
    rows: pd.DataFrame, dataset: str, value: Mapping[str, Any], attack: str, defense: str, library: str
) -> tuple[pd.DataFrame, str]:
    """The rows, one for each seed, that match a published value; and the choice made, or why there are none."""
    matches = rows[(rows["dataset"] == dataset) & (rows["model"] == value["model"])]
    if matches.empty:
        return matches, f"no model {value['model']} on {dataset} in this run"
    matches = matches[[chain == defense or _plain(chain) == defense for chain in matches["defense"]]]
    if matches.empty:
        return matches, f"no defense {defense} in this run"
    if attack == CLEAN:
        return done(matches).drop_duplicates("seed"), ""
    same_attack = matches[(matches["name"] == attack) | (matches["attack"] == attack)]
    # its label here may say more, where more differs: the steps of patches that have a size in common
    if same_attack.empty:
        words = set(attack.split())
        same_attack = matches[[words <= set(label.split()) for label in matches["attack"]]]
    matches = same_attack
    if matches.empty:
        return matches, f"no attack {attack} in this run"
    choices = []
    variant = value.get("variant")
    if variant:
        matches = matches[matches["variant"] == variant]
        if matches.empty:
            return matches, f"{attack} was not run in the variant {variant}"
    if (matches["library"] == library).any():
        matches = matches[matches["library"] == library]
    else:  # the library lacks this attack, which may be one of sparring's own
        choices.append(f"{matches['library'].iloc[0]}'s: {library} does not run it here")
        matches = matches[matches["library"] == matches["library"].iloc[0]]
    attacker = value.get("attacker")
    if attacker:
        matches = matches[matches["attacker"] == attacker]
    finished = done(matches)
    if finished.empty:
        why = matches["reason"].iloc[0] if len(matches) else ""
        return finished, f"{library}: {matches['status'].iloc[0]}: {why}" if len(matches) else f"no {attacker} attacker"
    first = finished.iloc[0]
    for key, what in (
        ("defense", "of several defenses"),
        ("variant", "of several variants"),
        ("attack", "of several"),
        ("attacker", "of both attackers"),
        ("route", "of several routes"),
        ("reconcile", "of several"),
    ):
        if finished[key].nunique() > 1:
            choices.append(f"{what} the first: {first[key] or 'as it is'}")
        finished = finished[finished[key] == first[key]]
    return finished, "; ".join(choices)


def _plain(chain: str) -> str:
    """A chain of defenses without parameters."""
    return " + ".join(part.split("(")[0] for part in chain.split(" + "))


def _words(line: Mapping[str, Any]) -> str:
    """The sentence for values that disagree; empty where they agree."""
    if "measured_low" not in line or line["agrees"]:
        return ""
    side = "higher" if line["difference"] > 0 else "lower"
    interval = f"[{_number(line['measured_low'])}, {_number(line['measured_high'])}]"
    return (
        f"published {_number(line['published'])}, measured {_number(line['measured'])} {interval}: {side} by "
        f"{_number(abs(line['difference']))}, beyond the interval"
    )


def _order(of: str, group: Mapping[str, Any], values: pd.DataFrame) -> dict[str, Any]:
    from scipy.stats import kendalltau

    tau = float(kendalltau(values["published"], values["measured"]).statistic)
    orders = {
        side: " > ".join(values.sort_values(side, ascending=False, kind="stable")[of])
        for side in ("published", "measured")
    }
    where = ", ".join(str(value) for key, value in group.items() if value and key not in ("dataset", "metric"))
    comparison = (
        "no order" if np.isnan(tau) else "the same" if tau == 1 else "the reverse" if tau == -1 else f"tau = {tau:.2f}"
    )
    return {
        "of": f"{of}s",
        "dataset": group["dataset"],
        "group": where,
        "metric": group["metric"],
        "items": len(values),
        "tau": tau,
        "published_order": orders["published"],
        "measured_order": orders["measured"],
        "line": f"{group['dataset']}, {where}: {of}s by {group['metric']}: published {orders['published']}, "
        f"measured {orders['measured']}: {comparison}",
    }


def _number(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3g}"
