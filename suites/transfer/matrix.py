"""The transfer matrix of a run: how often the adversarial images made on one model fool every other model.

The literature mixes two rates: success on all images, and success on those that both models classify correctly. The
matrix has both, and the target's own error on the clean images beside them (Zhao et al., "Towards Good Practices in
Evaluating Transfer Adversarial Attacks", 2022, section 3). Everything is computed from what the run stored.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.errors import InputError
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.storage import write_whole
from sparring.suites.plan.file import Suite
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.results.metrics import mcnemar, paired_difference, wilson
from sparring.suites.transfer import judge_cell
from sparring.suites.transfer.judge_all import Failures
from sparring.suites.transfer.same_function import families

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "surrogate",
    "target",
    "surrogate_framework",
    "target_framework",
    "attack",
    "norm",
    "library",
    "route",
    "eps",
    "params",
    "targeted",
    "aim",
    "variant",
    "seed",
    "status",
    "reason",
    "n",
    "n_correct",
    "target_clean_error",
    "success_all",
    "success_all_low",
    "success_all_high",
    "success_on_correct",
    "success_on_correct_low",
    "success_on_correct_high",
    "success_8bit",
    "success_8bit_low",
    "success_8bit_high",
    "success_8bit_on_correct",
    "success_8bit_on_correct_low",
    "success_8bit_on_correct_high",
    "n_target_correct",
    "success_on_target_correct",
    "success_on_target_correct_low",
    "success_on_target_correct_high",
    "same_function",
    "suite",
    "dataset",
    "cell_id",
)
"""The columns of ``transfer.csv``.

``n_correct`` counts the images that target and surrogate both classify correctly, ``n_target_correct`` those that the
target classifies correctly. Success is any other class than the label, or, for a targeted attack, the class aimed at.
``success_8bit`` is the success after saving the images with 8 bits a channel, on all n. ``aim`` is the one class at
which all images are aimed, empty without one. ``same_function``: surrogate and target are one model, or two runtimes of
one."""


@dataclass(frozen=True)
class Transfer:
    """A transfer matrix: its rows, and the tables that follow from them. ``folder`` is the run's."""

    folder: Path
    rows: pd.DataFrame
    """with ``COLUMNS``, a row for each surrogate, target, attack and library (and parameters, seed)"""
    surrogates: pd.DataFrame
    """for each surrogate, attack and library: the mean success over its targets"""
    asymmetry: pd.DataFrame
    """for two models, attack and library: success one way minus the other, on images that both classify correctly"""
    runtimes: pd.DataFrame
    """for two runtimes of one model: on how many of a cell's images their decisions differ, and on which"""

    @property
    def deviations(self) -> pd.DataFrame:
        """The rows of ``runtimes`` in which two runtimes of one model disagree."""
        return self.runtimes[self.runtimes["differing"] > 0]

    @property
    def failed(self) -> int:
        """The number of rows that failed, ran out of time or have no result."""
        return int(self.rows["status"].isin(["failed", "timeout", "missing"]).sum())


def check(suite: Suite, models: Mapping[str, ModelRef]) -> None:
    """Raise ``InputError`` for a target whose images or classes differ in shape or number from a surrogate's."""
    for target in suite.targets:
        for surrogate in suite.attacked:
            one, other = models[target.name], models[surrogate.name]
            if (one.classes, tuple(one.input_shape)) != (other.classes, tuple(other.input_shape)):
                raise InputError(
                    f"transfer: the target {target.name} takes images of {tuple(one.input_shape)} and gives "
                    f"{one.classes} classes, the surrogate {surrogate.name} {tuple(other.input_shape)} and "
                    f"{other.classes}: images travel between models that are alike in both"
                )


def judged(suite: Suite, planned: list[Planned]) -> list[Planned]:
    """The rows whose images the targets judge: those of the suite's data set and of its transfer's attacks."""
    only = suite.transfer.attacks if suite.transfer else None
    return [row for row in planned if row.data == suite.one_data and row.cell.attack in (only or (row.cell.attack,))]


def matrix(
    suite: Suite, planned: list[Planned], models: Mapping[str, ModelRef], folder: Path, failures: Failures
) -> Transfer:
    """Compute the matrix from what the run stored; a failed cell or judgement is a row that says why."""
    import pandas as pd

    same = families(suite, models)
    keys = {spec.name: judge_cell.target_key(models[spec.name]) for spec in suite.targets}
    lines, runtimes, on_both = [], [], {}
    for row in planned:
        result = None if row.unsupported else store.read(folder, row.cell.id)
        done = result is not None and result.status == "done"
        judged = {name: judge_cell.read(folder, row.cell.id, key) if done else None for name, key in keys.items()}
        for name in keys:
            line = _facts(suite.name, row, models, name) | {"same_function": same[row.model] == same[name]}
            judgement = judged[name]
            if row.unsupported is not None:
                line |= {"status": "unsupported", "reason": row.unsupported}
            elif result is None:
                line |= {"status": "missing", "reason": ""}
            elif not done:
                line |= {"status": result.status, "reason": result.reason}
            elif judgement is None:
                line |= dict(zip(("status", "reason"), failures.get((row.cell.id, name), ("missing", "")), strict=True))
            else:
                line |= {"status": "done", "reason": "", **_rates(result.arrays, judgement, row.asked.targeted)}
                on_both[row.model, name, _attack_key(line)] = _on_both(result.arrays, judgement, row.asked.targeted)
            lines.append(line)
        if done:
            subject = {key: line[key] for key in ("surrogate", "attack", "norm", "library", "eps", "params", "seed")}
            judgements = {name: judgement for name, judgement in judged.items() if judgement is not None}
            runtimes += [subject | pair for pair in _between_runtimes(judgements, same)]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    texts = ("reason", "norm")
    counts = dict.fromkeys(("n", "n_correct", "n_target_correct"), "Int64")
    frame = frame.astype({name: "string" for name in texts}).astype({"eps": "float64", "seed": "int64", **counts})
    pairs = pd.DataFrame(runtimes, columns=list(RUNTIME_COLUMNS))
    return Transfer(folder, frame, _surrogates(frame), _asymmetry(on_both, same), pairs)


def write(transfer: Transfer) -> None:
    """Write ``transfer.csv`` and ``.parquet`` into the run folder, and the other tables below its ``transfer/``."""
    write_whole(transfer.folder / "transfer.csv", transfer.rows.to_csv(index=False, lineterminator="\n"))
    buffer = io.BytesIO()
    transfer.rows.to_parquet(buffer, index=False)
    write_whole(transfer.folder / "transfer.parquet", buffer.getvalue())
    for name in ("surrogates", "asymmetry", "runtimes"):
        path = transfer.folder / "transfer" / f"{name}.csv"
        write_whole(path, getattr(transfer, name).to_csv(index=False, lineterminator="\n"))


# --- a row


def _facts(suite_name: str, row: Planned, models: Mapping[str, ModelRef], target: str) -> dict[str, Any]:
    cell = row.cell
    return {
        "surrogate": row.model,
        "target": target,
        "surrogate_framework": "+".join(models[row.model].frameworks),
        "target_framework": "+".join(models[target].frameworks),
        "attack": cell.attack,
        "norm": cell.norm,
        "library": cell.library,
        "route": cell.route,
        "eps": row.asked.eps,
        "params": json.dumps(cell.params, sort_keys=True),
        "targeted": cell.targeted,
        "aim": row.aim,
        "variant": row.variant,
        "seed": cell.seed,
        "n": cell.stop - cell.start,
        "suite": suite_name,
        "dataset": cell.dataset,
        "cell_id": cell.id,
    }


def _rates(samples: Mapping[str, np.ndarray], judged: judge_cell.Judgement, targeted: bool) -> dict[str, Any]:
    y = samples["y"]
    right = judged["pred_clean"] == y
    both = right & (samples["pred_clean"] == y)
    hits, hits_8bit = (_hits(samples, judged[name], targeted) for name in ("pred_adv", "pred_8bit"))
    return {
        "n": len(y),
        "n_correct": int(both.sum()),
        "n_target_correct": int(right.sum()),
        "target_clean_error": float(1 - right.mean()),
        **_rate("success_all", hits),
        **_rate("success_on_correct", hits[both]),
        **_rate("success_on_target_correct", hits[right]),
        **_rate("success_8bit", hits_8bit),
        **_rate("success_8bit_on_correct", hits_8bit[both]),
    }


def _hits(samples: Mapping[str, np.ndarray], classes: np.ndarray, targeted: bool) -> np.ndarray:
    return np.asarray(classes == samples["target"] if targeted else classes != samples["y"])


def _rate(name: str, hits: np.ndarray) -> dict[str, float]:
    """The rate with its Wilson interval; NaN where there are no images."""
    if not len(hits):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = wilson(int(hits.sum()), len(hits))
    return {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}


# --- the tables that follow

_ATTACK = ("attack", "norm", "library", "route", "eps", "params", "targeted", "aim", "variant", "seed")
RUNTIME_COLUMNS = (
    "surrogate",
    "attack",
    "norm",
    "library",
    "eps",
    "params",
    "seed",
    "target_a",
    "target_b",
    "n",
    "differing",
    "images",
    "largest_margin",
)
"""The columns of ``transfer/runtimes.csv``.

``images``: the numbers of the images on which the decisions differ, joined by spaces. ``largest_margin``: the largest
margin of either runtime on them, in logits; rounding decides only where it is tiny."""


def _attack_key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    # the route follows the framework, and the two directions of a pair have two frameworks
    return tuple(line[name] for name in _ATTACK if name != "route")


def _surrogates(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean over the targets that are not the surrogate itself in this or another runtime."""
    import pandas as pd

    keys = ["surrogate", "surrogate_framework", *_ATTACK]
    done = frame[(frame["status"] == "done") & ~frame["same_function"].astype(bool)]
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "targets": len(group),
            "mean_success_all": group["success_all"].mean(),
            "mean_success_on_correct": group["success_on_correct"].mean(),
            "mean_success_8bit": group["success_8bit"].mean(),
        }
        for key, group in done.groupby(keys, sort=False, dropna=False)
    ]
    names = ["targets", "mean_success_all", "mean_success_on_correct", "mean_success_8bit"]
    return pd.DataFrame(rows, columns=[*keys, *names])


def _on_both(
    samples: Mapping[str, np.ndarray], judged: judge_cell.Judgement, targeted: bool
) -> tuple[np.ndarray, np.ndarray]:
    both = (judged["pred_clean"] == samples["y"]) & (samples["pred_clean"] == samples["y"])
    return both, _hits(samples, judged["pred_adv"], targeted)


def _asymmetry(
    on_both: Mapping[tuple[Any, ...], tuple[np.ndarray, np.ndarray]], same: Mapping[str, Any]
) -> pd.DataFrame:
    """Both directions start from the same images, so the two rates are compared image by image (McNemar)."""
    import pandas as pd

    rows = []
    for (a, b, key), (both, forth) in on_both.items():
        back = on_both.get((b, a, key))
        if a >= b or back is None or same[a] == same[b]:
            continue
        right = both & back[0]
        one, other = forth[right], back[1][right]
        difference, low, high = paired_difference(other, one)
        rows.append(
            {
                "a": a,
                "b": b,
                **dict(zip((name for name in _ATTACK if name != "route"), key, strict=True)),
                "n": int(right.sum()),
                "success_a_to_b": float(one.mean()) if len(one) else float("nan"),
                "success_b_to_a": float(other.mean()) if len(other) else float("nan"),
                "difference": difference,
                "difference_low": low,
                "difference_high": high,
                "p": mcnemar(one, other),
            }
        )
    names = ["a", "b", *(name for name in _ATTACK if name != "route"), "n", "success_a_to_b", "success_b_to_a"]
    return pd.DataFrame(rows, columns=[*names, "difference", "difference_low", "difference_high", "p"])


def _between_runtimes(judged: Mapping[str, judge_cell.Judgement], same: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for a, b in combinations(judged, 2):
        if same[a] != same[b]:
            continue
        differ = np.zeros(len(judged[a]["pred_adv"]), bool)
        for name in ("pred_clean", "pred_adv", "pred_8bit"):
            differ |= judged[a][name] != judged[b][name]
        margins = np.maximum(judged[a]["margin"], judged[b]["margin"])[differ]
        yield {
            "target_a": a,
            "target_b": b,
            "n": len(differ),
            "differing": int(differ.sum()),
            "images": " ".join(map(str, np.flatnonzero(differ))),
            "largest_margin": float(margins.max()) if len(margins) else float("nan"),
        }
