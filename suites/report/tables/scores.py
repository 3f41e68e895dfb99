"""Tables of scores: clean, under attack, the drop between them, and each defense under each attack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sparring.suites.report.rows import KEYS, SUBJECT, UNDEFENDED, mean_over_seeds, without_idle_control
from sparring.suites.report.study import AIMS, INTERVAL, METRICS, Study, clean_rows, column, present
from sparring.suites.report.table import HIGH, LOW, StudyTable

if TYPE_CHECKING:
    import pandas as pd


def clean(study: Study) -> Iterator[StudyTable]:
    rows = clean_rows(study)
    if rows.empty:
        return
    values = present(rows, True)
    costs = [name for name in ("prediction_seconds_per_image",) if name in rows]
    frame = mean_over_seeds(rows, SUBJECT, [*values, *costs]).rename(columns=values)
    frame.insert(len(SUBJECT), "images", _images(study, frame, SUBJECT))
    yield StudyTable(
        "clean",
        "Clean images",
        f"Before any attack; precision, recall and F1 are macro means; {INTERVAL}.",
        frame,
        METRICS,
    )


def attacked(study: Study) -> Iterator[StudyTable]:
    rows = study.done
    if rows.empty:
        return
    values = present(rows, False)
    aims = [name for name in AIMS if name in rows]
    frame = mean_over_seeds(rows, KEYS, [*values, *aims]).rename(columns=values)
    yield StudyTable(
        "attacked",
        "Under attack",
        "After the attack, over all images; the success rate is that on images classified correctly before; distances "
        f"are medians over the successful; {INTERVAL}.",
        frame,
        (*METRICS, "attack_success_rate"),
    )


def drops(study: Study) -> Iterator[StudyTable]:
    rows = study.done.copy()
    for metric in METRICS:
        if f"drop_{metric}" not in rows and {column(metric), column(metric, True)} <= set(rows):  # an older run
            rows[f"drop_{metric}"] = rows[column(metric, True)] - rows[column(metric)]
    names = [f"drop_{metric}{end}" for metric in METRICS for end in ("", LOW, HIGH)]
    names = [name for name in names if name in rows and rows[name].notna().any()]
    if rows.empty or not names:
        return
    frame = mean_over_seeds(rows, KEYS, names).rename(columns={name: name.removeprefix("drop_") for name in names})
    yield StudyTable("drops", "What the attacks take", f"Clean minus attacked, by metric; {INTERVAL}.", frame, METRICS)


def summary(study: Study) -> Iterator[StudyTable]:
    """One line for each model and defense: its accuracy, and what the defense costs and gains."""
    import pandas as pd

    rows = study.attacks
    lines = []
    keys = [*SUBJECT, "attacker", "variant"]
    for key, group in rows.groupby(keys, sort=False):
        means = mean_over_seeds(group, KEYS, [column("accuracy"), column("f1")])
        lowest = means.iloc[int(means[column("accuracy")].to_numpy().argmin())]
        lines.append(
            {
                **dict(zip(keys, key, strict=True)),
                "attacks": len(means),
                "clean_accuracy": group["clean_accuracy"].mean(),
                "mean_accuracy": means[column("accuracy")].mean(),
                "mean_f1": means[column("f1")].mean(),
                "lowest_accuracy": lowest[column("accuracy")],
                "lowest_under": f"{lowest['attack']} ({lowest['library']})",
            }
        )
    frame = pd.DataFrame(lines)
    if not len(frame):
        return
    if frame["defense"].nunique() > 1:
        frame["cost_clean"], frame["gain_mean"] = zip(*(_against_bare(rows, line) for line in lines), strict=True)
    yield StudyTable(
        "summary",
        "Summary",
        "Accuracy before the attacks, its mean over all attacks and libraries, and the lowest; cost and gain are "
        "against the undefended model: clean accuracy lost, and mean accuracy won under the attacks that both met.",
        frame,
        ("clean_accuracy", "mean_accuracy", "mean_f1", "lowest_accuracy", "cost_clean", "gain_mean"),
    )


def defenses(study: Study) -> Iterator[StudyTable]:
    """Defenses in rows, attacks in columns; one table for each data set and metric."""
    import pandas as pd

    rows = without_idle_control(study.done)
    down = [key for key in KEYS if key not in ("dataset", "attack")]
    for dataset, group in rows.groupby("dataset", sort=False):
        if group["defense"].nunique() < 2:
            continue
        for metric in ("accuracy", "f1"):
            attacks = list(dict.fromkeys(group["attack"]))
            lines: dict[tuple[Any, ...], dict[str, Any]] = {}
            for key, cell in group.groupby([*down, "attack"], sort=False):
                line = lines.setdefault(key[:-1], dict(zip(down, key, strict=False)))
                line.setdefault("clean", cell[column(metric, True)].mean() if column(metric, True) in cell else None)
                for end in ("", LOW, HIGH):
                    if column(metric) + end in cell:
                        line[f"{key[-1]}{end}"] = cell[column(metric) + end].mean()
            across = ["clean", *(attack + end for attack in attacks for end in ("", LOW, HIGH))]
            frame = pd.DataFrame(list(lines.values()))
            frame = frame[[name for name in (*down, *across) if name in frame]]
            word = "F1" if metric == "f1" else metric
            yield StudyTable(
                f"defenses-{_safe(str(dataset))}-{metric}",
                f"{dataset}: {word} of each defense under each attack",
                f"Macro F1, clean and attacked; {INTERVAL}." if metric == "f1" else f"Clean and attacked; {INTERVAL}.",
                frame,
                ("clean", *attacks),
            )


def _against_bare(rows: pd.DataFrame, line: dict[str, Any]) -> tuple[float, float]:
    """What a defended model loses on clean images and gains under attack, against the undefended one."""
    if line["defense"] == UNDEFENDED:
        return float("nan"), float("nan")
    model = rows[(rows["dataset"] == line["dataset"]) & (rows["model"] == line["model"])]
    model = model[model["variant"] == line["variant"]]
    bare = model[model["defense"] == UNDEFENDED]
    mine = model[(model["defense"] == line["defense"]) & (model["attacker"] == line["attacker"])]
    each = [part.groupby(["attack", "library"])[column("accuracy")].mean() for part in (mine, bare)]
    cost = bare["clean_accuracy"].mean() - mine["clean_accuracy"].mean()
    return float(cost), float((each[0] - each[1]).mean())  # attacks that only one of them met are left out


def _images(study: Study, frame: pd.DataFrame, keys: Sequence[str]) -> list[int]:
    counts = {tuple(key): int(rows["n"].max()) for key, rows in study.done.groupby(list(keys), sort=False)}
    return [counts[tuple(row)] for row in frame[list(keys)].itertuples(index=False, name=None)]


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
