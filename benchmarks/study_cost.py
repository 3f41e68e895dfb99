"""What a study's `paper` profile would cost, extrapolated from a finished smaller run on the same machine.

    python benchmarks/study_cost.py four-attacks-four-defenses runs/four-attacks-four-defenses-small

Every training and every cell of the paper profile is matched with that of the run, and its seconds are multiplied: a
training's by epochs x images (and, of a search, trials x folds), a cell's by images x steps of the attack. It prints
seconds of one worker by kind, and the sums. On a GPU: make the small run there (`--device cuda`) and ask again; nothing
is carried over from one machine to another.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd

from sparring.models.data import datasets
from sparring.models.defenses.catalogue import wrappers
from sparring.models.model_spec import ModelSpec, TrainedModel
from sparring.models.spec import TrainSpec
from sparring.suites import load_suite
from sparring.suites.plan.expand import origin, parts
from sparring.suites.plan.file import Suite, home
from sparring.suites.results import manifest

REPEATS = ("steps", "search_steps", "queries", "restarts", "draws")
"""Parameters to which an attack's time is proportional."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a suite file or the name of a study, with a profile `paper`")
    parser.add_argument("run", type=Path, help="a finished run of it in another profile")
    asked = parser.parse_args()
    told = manifest.read(asked.run)
    small = Suite.model_validate(told["suite"])
    paper = load_suite(asked.study, profile="paper")
    results = pd.read_parquet(asked.run / "results.parquet")
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    unmatched: list[str] = []
    before = {part.one_data.label: part for part in parts(small)}
    for part in parts(paper):
        data = part.one_data.label
        if data not in before:
            unmatched.append(f"data set {data}")
            continue
        size = datasets.size(part.one_data, base=home(asked.study)) if part.one_data.samples is None else None
        images = part.one_data.samples or size or 0
        train = len(datasets.load_train(part.one_data, base=home(asked.study)).y)
        _trainings(part, before[data], told["models"], data, train, seconds, unmatched)
        _cells(part, before[data], results[results["dataset"] == data], images, seconds, unmatched)
    for (data, kind), total in sorted(seconds.items()):
        print(f"{data:12} {kind:12} {total:12,.0f} s  {total / 3600:8.1f} h")
    total = sum(seconds.values())
    print(f"{'all':12} {'':12} {total:12,.0f} s  {total / 3600:8.1f} h of one worker")
    print(f"{told['machine']['cores']} cores, device {told['device']}, GPUs {told['machine']['gpus'] or 'none'}")
    if unmatched:
        print(f"not in the run, so not counted: {len(unmatched)}, as {', '.join(sorted(set(unmatched))[:6])}")


def _trainings(
    paper: Suite,
    small: Suite,
    models: Mapping[str, Any],
    data: str,
    train: int,
    seconds: dict[tuple[str, str], float],
    unmatched: list[str],
) -> None:
    known = {spec.name: spec for spec in small.models}
    several = any(name.endswith(f" on {data}") for name in models)
    for spec in paper.models:
        if not isinstance(spec, TrainedModel) or spec.train is None:
            continue
        like = known.get(spec.name) or known.get(f"{spec.name.rpartition('/')[0]}/1")
        told = models.get(f"{like.name} on {data}" if several else like.name) if like else None
        if not isinstance(like, TrainedModel) or like.train is None or not told or "seconds" not in told["facts"]:
            unmatched.append(f"training of {spec.name}")
            continue
        factor = _work(spec.train, train) / _work(like.train, train)
        seconds[data, "training"] += told["facts"]["seconds"] * factor * _adversarial(spec, like)
        if spec.search and like.search:
            own = sum(float(trial.get("seconds", 0.0)) for trial in told["facts"].get("search", []))
            points = [
                one.trials if one.how == "random" else prod(map(len, one.over.values()))
                for one in (spec.search, like.search)
            ]
            share = [(one.samples or train) * one.folds for one in (spec.search, like.search)]
            epochs = spec.train.epochs / like.train.epochs
            seconds[data, "search"] += own * epochs * points[0] / points[1] * share[0] / share[1]


def _work(train: TrainSpec, images: int) -> float:
    return float(train.epochs * min(train.samples or images, images))


def _adversarial(spec: ModelSpec, like: ModelSpec) -> float:
    """The defenses' own epochs, where they have some beside those of the training."""
    extra = [sum(one.given.get("epochs", 0) for one in each.defenses) for each in (spec, like)]
    return max(1.0, extra[0] / extra[1]) if extra[1] else 1.0


def _cells(
    paper: Suite,
    small: Suite,
    results: pd.DataFrame,
    images: int,
    seconds: dict[tuple[str, str], float],
    unmatched: list[str],
) -> None:
    for spec in paper.attacked:
        for attack in paper.attacks:
            if attack.models is not None and origin(spec) not in attack.models:
                continue
            for asked in attack.requests():
                for library in attack.libraries or paper.libraries:
                    for attacker in (attack.attackers or paper.attackers) if wrappers(spec.defenses) else ("",):
                        told = {
                            "model": origin(spec),
                            "defense": spec.defense,
                            "library": library,
                            "attack": asked.name,
                            "attacker": attacker,
                        }
                        like = results[(results[list(told)] == pd.Series(told)).all(axis=1)]
                        like = like[like["status"] == "done"]
                        if not len(like):
                            unmatched.append(f"{asked.name} of {library}")
                            continue
                        row = like.iloc[0]
                        was = json.loads(row["params"])
                        more = [
                            asked.params[key] / was[key] for key in REPEATS if was.get(key) and asked.params.get(key)
                        ]
                        # AutoAttack's steps are those of some of its attacks, its queries those of another
                        factor = max(more) if asked.name == "autoattack" else prod(more)
                        seconds[paper.one_data.label, "attacks"] += (
                            row["seconds"] * factor * images / row["n"] * len(paper.seeds)
                        )


if __name__ == "__main__":
    main()
