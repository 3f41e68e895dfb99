"""Tables of how the models were trained: the search for hyperparameters, and the training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparring.suites.report.rows import UNDEFENDED
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable


def trainings(study: Study) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """For each training: the model's data set, name and defense, and the facts of its training.

    A defense that does not train shares the training of the undefended model, which then comes once.
    """
    seen: list[tuple[str, str, dict[str, Any]]] = []
    data = study.manifest.get("data")
    only = str(data["name"]) if isinstance(data, dict) else ""
    for name, entry in study.manifest.get("models", {}).items():
        facts = entry.get("facts") or {}
        if facts:
            subject = {
                "dataset": str(entry.get("dataset") or entry.get("data") or only),
                "model": re.sub(r" \[.*\](?=/\d+$)", "", str(entry.get("model", name))),
                "defense": str(entry.get("defense") or UNDEFENDED),
            }
            training = (subject["dataset"], re.sub(r" \[.*\]$", "", subject["model"]), facts)
            if training not in seen:
                seen.append(training)
                yield subject, facts


def stages(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The stages of a training, such as teacher and student: name and epochs. Often there is one, without a name."""
    parts: list[tuple[str, list[Mapping[str, Any]]]] = []
    for epoch in history:
        name = str(epoch.get("stage") or "")
        if not parts or parts[-1][0] != name:
            parts.append((name, []))
        parts[-1][1].append(epoch)
    return parts


def search(study: Study) -> Iterator[StudyTable]:
    import pandas as pd

    lines = []
    for subject, facts in trainings(study):
        record = facts.get("search") or {}
        trials = record.get("trials", ()) if isinstance(record, dict) else record
        lines += [{**subject, "trial": number, **_flat(trial)} for number, trial in enumerate(trials, 1)]
    yield StudyTable(
        "search",
        "Trials of the hyperparameter search",
        "Cross-validated on training images; the best was trained.",
        pd.DataFrame(lines),
        ("accuracy", "mean_accuracy", "deviation"),
    )


def training(study: Study) -> Iterator[StudyTable]:
    import pandas as pd

    lines = []
    for subject, facts in trainings(study):
        for stage, history in stages(facts.get("history") or []):
            last = history[-1]
            best = min(history, key=lambda epoch: epoch.get("validation_loss") or epoch.get("loss") or float("inf"))
            line = {**subject, "stage": stage or None, "epochs": len(history), "best_epoch": best.get("epoch")}
            line |= {key: last.get(key) for key in ("loss", "accuracy", "validation_loss", "validation_accuracy")}
            lines.append({**line, "seconds": facts.get("seconds")})
    frame = pd.DataFrame(lines)
    yield StudyTable(
        "training",
        "Training",
        "Of the last epoch; the best epoch has the lowest validation loss (without validation, training loss). Seconds "
        "are those of all stages of a training.",
        frame.dropna(axis="columns", how="all"),
        ("accuracy", "validation_accuracy"),
    )


def _flat(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial with each of its parameters in a column of its own, and lists as texts."""
    flat: dict[str, Any] = {}
    for key, value in trial.items():
        if isinstance(value, dict):
            flat |= {str(name): inner for name, inner in value.items()}
        elif isinstance(value, list | tuple):
            flat[key] = ", ".join(f"{each:.3f}" if isinstance(each, float) else str(each) for each in value)
        else:
            flat[key] = value
    return flat
