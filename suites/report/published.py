"""What a publication printed beside what was measured: difference, interval, and whether the order is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.rows import UNDEFENDED, done, labelled, with_errors
from sparring.suites.report.study import Study

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "dataset", "model", "defense", "variant", "attack", "metric", "published", "measured", "measured_low",
    "measured_high", "difference", "agrees", "line", "library", "attacker", "choice",
)  # fmt: skip
"""``agrees``: whether the published value lies within the measured one's 95 % interval, NA where either is missing;
``line``: in words, where it does not; ``choice``: which row was taken, where several would do."""
ORDER_COLUMNS = ("of", "dataset", "group", "metric", "items", "tau", "published_order", "measured_order", "line")
CLEAN = "none"
"""The attack's name of values on clean images."""
_COLUMN = {
    "accuracy": ("clean_accuracy", "robust_accuracy"),
    "prediction_seconds_per_image": ("prediction_seconds_per_image", "prediction_seconds_per_image"),
    "seconds_per_image": ("prediction_seconds_per_image", "seconds_in_all"),
}  # fmt: skip
"""Of a metric, the column of the results: on clean images, and under attack."""


def compare(study: Study) -> pd.DataFrame:
    """One row for each published value (``COLUMNS``); none where the suite has none.

    Compared is the library that ``published`` names, else the suite's first. Where several rows would do, the first in
    the suite's order is taken, and ``choice`` says so; several seeds are averaged. ``seconds_per_image`` of an attack
    are its own and the prediction's.
    """
    import pandas as pd

    suite = study.manifest["suite"]
    said = suite.get("published") or {}
    lines: list[dict[str, Any]] = []
    if said.get("values"):
        rows = with_errors(labelled(study.frame))  # with every top-5 score: a paper may print those of ten classes
        prediction = rows.get("prediction_seconds_per_image", 0.0)
        rows["seconds_in_all"] = rows["seconds_per_image"] + prediction
        library = said.get("library") or next(iter(suite.get("libraries") or [""]))
        instead = said.get("instead") or {}
        for value in said["values"]:
            put = {key: instead[value[key]] for key in ("data", "model") if value.get(key) in instead}
            told = ", ".join(f"{new} in place of {value[key]}" for key, new in put.items())
            for line in _compared({**value, **put}, rows, str(library)):
                lines.append({**line, "choice": "; ".join(filter(None, [told, line["choice"]]))})
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    numbers = ["published", "measured", "measured_low", "measured_high", "difference"]
    return frame.astype(dict.fromkeys(numbers, "float64")).astype({"agrees": "boolean"})


def orders(study: Study) -> pd.DataFrame:
    """Whether attacks, defenses and models rank as they were published to (``ORDER_COLUMNS``), by Kendall's tau-b.

    A row for each group of three or more values that differ in one thing alone: those of one data set, model and
    defense under several attacks, and so on.
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
    found, choice = _rows(rows, dataset, value, attack, defense, library)
    variant = str(found["variant"].iloc[0]) if len(found) and attack != CLEAN else str(value.get("variant") or "")
    for metric, number in value["metrics"].items():
        line: dict[str, Any] = {
            "dataset": dataset, "model": value["model"], "defense": defense, "variant": variant, "attack": attack,
            "metric": metric, "published": float(number), "choice": choice, "library": "", "attacker": "",
            "agrees": None,
        }  # fmt: skip
        column = _COLUMN.get(metric, (f"clean_{metric}", metric))[attack != CLEAN]
        known = list(found[column].dropna()) if column in found else []
        if not known:
            why = f"no {metric} in these rows" if len(found) else choice
            yield {**line, "line": f"published {_number(number)}, not measured: {why}"}
            continue
        first = found.iloc[0]
        line |= {"measured": float(np.mean(np.asarray(known))), "attacker": first["attacker"]}
        line["library"] = first["library"] if attack != CLEAN else ""
        line["difference"] = line["measured"] - line["published"]
        ends = [f"{column}_low", f"{column}_high"]
        if all(end in found for end in ends) and found[ends].notna().all(axis=None):
            low, high = (float(found[end].mean()) for end in ends)
            line |= {"measured_low": low, "measured_high": high, "agrees": low <= line["published"] <= high}
        yield {**line, "line": _words(line)}


def _rows(
    rows: pd.DataFrame, dataset: str, value: Mapping[str, Any], attack: str, defense: str, library: str
) -> tuple[pd.DataFrame, str]:
    """The rows (one a seed) that answer a published value, and which were chosen, or why there are none."""
    mine = rows[(rows["dataset"] == dataset) & (rows["model"] == value["model"])]
    if mine.empty:
        return mine, f"no model {value['model']} on {dataset} in this run"
    mine = mine[[chain == defense or _plain(chain) == defense for chain in mine["defense"]]]
    if mine.empty:
        return mine, f"no defense {defense} in this run"
    if attack == CLEAN:
        return done(mine).drop_duplicates("seed"), ""
    called = mine[(mine["name"] == attack) | (mine["attack"] == attack)]
    if called.empty:  # its label here may say more, where more differs: the steps of patches that have a size in common
        words = set(attack.split())
        called = mine[[words <= set(label.split()) for label in mine["attack"]]]
    mine = called
    if mine.empty:
        return mine, f"no attack {attack} in this run"
    told = []
    variant = value.get("variant")
    if variant:
        mine = mine[mine["variant"] == variant]
        if mine.empty:
            return mine, f"{attack} was not run in the variant {variant}"
    if (mine["library"] == library).any():
        mine = mine[mine["library"] == library]
    else:  # an attack that the library has not, such as one of sparring's own
        told.append(f"{mine['library'].iloc[0]}'s: {library} does not run it here")
        mine = mine[mine["library"] == mine["library"].iloc[0]]
    wanted = value.get("attacker")
    if wanted:
        mine = mine[mine["attacker"] == wanted]
    finished = done(mine)
    if finished.empty:
        why = mine["reason"].iloc[0] if len(mine) else ""
        return finished, f"{library}: {mine['status'].iloc[0]}: {why}" if len(mine) else f"no {wanted} attacker"
    first = finished.iloc[0]
    for key, what in (
        ("defense", "of several defenses"), ("variant", "of several variants"), ("attack", "of several"),
        ("attacker", "of both attackers"), ("route", "of several routes"), ("reconcile", "of several"),
    ):  # fmt: skip
        if finished[key].nunique() > 1:
            told.append(f"{what} the first: {first[key] or 'as it is'}")
        finished = finished[finished[key] == first[key]]
    return finished, "; ".join(told)


def _plain(chain: str) -> str:
    """A chain of defenses without their parameters."""
    return " + ".join(part.split("(")[0] for part in chain.split(" + "))


def _words(line: Mapping[str, Any]) -> str:
    """What is said where the values part."""
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
    said = (
        "no order" if np.isnan(tau) else "the same" if tau == 1 else "the reverse" if tau == -1 else f"tau = {tau:.2f}"
    )
    return {
        "of": f"{of}s", "dataset": group["dataset"], "group": where, "metric": group["metric"], "items": len(values),
        "tau": tau, "published_order": orders["published"], "measured_order": orders["measured"],
        "line": f"{group['dataset']}, {where}: {of}s by {group['metric']}: published {orders['published']}, "
        f"measured {orders['measured']}: {said}",
    }  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3g}"
