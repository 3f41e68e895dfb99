"""A run folder as a study leaves it, with several data sets, models, defenses, attackers, sizes, seeds and failures.

The images are noise and the decisions are drawn, each cell's from a seed of its own; the scores are computed from them
with scikit-learn and statsmodels' formulas here, not with the code under test.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sparring.adapters.attacks.catalogue import find
from sparring.models.storage import write_whole
from sparring.suites.plan.cell import Result
from sparring.suites.results import store

BLUR = "gaussian-blur(sigma=1.0)"
DEFENSES = {"none": ("",), "adversarial-training": ("",), BLUR: ("unaware", "aware")}
ATTACKS = (("fgsm", {"eps": 0.1}, 0.6), ("fgsm", {"eps": 0.2}, 0.4), ("pgd", {"eps": 0.1}, 0.45), ("deepfool", {}, 0.1))
"""name, parameters, and how many images it leaves of an undefended model, about"""


def write_study(
    run: Path,
    *,
    datasets=("mnist", "gtsrb"),
    models=("cnn", "rnn"),
    defenses=None,
    attacks=ATTACKS,
    libraries=("art", "foolbox"),
    seeds=(0, 1),
    n=60,
    shape=(1, 4, 4),
    published=None,
) -> pd.DataFrame:
    """Write it; returns the frame of its results. gtsrb has 43 classes, all others 10."""
    defenses = DEFENSES if defenses is None else defenses
    rows = []
    for number, dataset in enumerate(datasets):
        classes = 43 if dataset == "gtsrb" else 10
        labels = np.random.default_rng(number).integers(0, classes, n)
        for m, model in enumerate(models):
            for d, (defense, attackers) in enumerate(defenses.items()):
                clean = _decided(labels, classes, 0.95 - 0.05 * m - 0.05 * d, (number, m, d))
                for attacker in attackers:
                    for a, (attack, params, left) in enumerate(attacks):
                        for k, library in enumerate(libraries):
                            for seed in seeds:
                                keep = left + 0.15 * d - (0.2 if attacker == "aware" else 0)
                                place = (number, m, d, a, k, seed, attacker == "aware")
                                subject = (dataset, model, defense, attacker)
                                call = (attack, params, library, seed)
                                rows.append(_cell(run, shape, subject, call, (classes, labels, clean), keep, place))
    frame = pd.DataFrame(rows)
    _fail(run, frame)
    write_whole(
        run / "manifest.json", json.dumps(_manifest(datasets, models, defenses, libraries, seeds, n, published))
    )
    frame.to_parquet(run / "results.parquet", index=False)
    return frame


def _decided(labels, classes, right, place):
    """Logits, (n, classes), that are right on about so many of the images."""
    draw = np.random.default_rng((7, *place))
    decided = np.where(draw.random(len(labels)) < right, labels, draw.integers(0, classes, len(labels)))
    logits = draw.normal(size=(len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), decided] += 4
    return logits


def _cell(run, shape, subject, call, truth, left, place) -> dict:
    (dataset, model, defense, attacker), (attack, params, library, seed) = subject, call
    classes, labels, clean = truth
    draw, n = np.random.default_rng((8, *place)), len(labels)
    canonical = find(attack)
    params = canonical.resolve(params)
    adv = _decided(labels, classes, left, (9, *place))
    adv[adv.argmax(1) == clean.argmax(1)] = clean[adv.argmax(1) == clean.argmax(1)]
    x = draw.random((n, *shape)).astype(np.float32)
    eps = params.get("eps")
    step = (eps if eps is not None else draw.uniform(0, 0.3, (n, 1, 1, 1))) * draw.choice([-1, 1], x.shape)
    x_adv = np.clip(x + step, 0, 1).astype(np.float32)
    delta = np.abs(x_adv.astype(np.float64) - x).reshape(n, -1)
    arrays = {
        "x": x,
        "x_adv": x_adv,
        "logits_clean": clean,
        "logits_adv": adv,
        "y": labels,
        "target": np.full(n, -1),
        "pred_clean": clean.argmax(1),
        "pred_adv": adv.argmax(1),
        "success": adv.argmax(1) != labels,
        "l0": (delta > 0).sum(1).astype(float),
        "l1": delta.sum(1),
        "l2": np.sqrt((delta**2).sum(1)),
        "linf": delta.max(1),
    }
    cell_id = "-".join(map(str, map(int, place)))
    seconds = float(draw.uniform(0.1, 2))
    result = Result("done", forwards=3 * n, backwards=2 * n, seconds=seconds, facts={"device": "cpu"}, arrays=arrays)
    store.write(run, cell_id, {}, result)
    return {
        "cell_id": cell_id,
        "status": "done",
        "reason": "",
        "suite": "study",
        "dataset": dataset,
        "model": model,
        "architecture": model,
        "framework": "torch",
        "defense": defense,
        "attacker": attacker,
        "library": library,
        "library_version": "1",
        "route": "native" if defense == "none" else "bridged",
        "attack": attack,
        "norm": canonical.norm,
        "eps": float("nan") if eps is None else eps,
        "params": json.dumps(params),
        "targeted": False,
        "seed": seed,
        "n": n,
        **scored(arrays),
        "forwards": 3.0,
        "backwards": 2.0,
        "seconds": seconds,
        "seconds_per_image": seconds / n,
        "prediction_seconds_per_image": 0.001,
        "notes": "",
        "library_call": "{}",
        "device": "cpu",
        "reconcile": "",
    }


def scored(arrays) -> dict:
    """The scores that the results hold, from the arrays alone."""
    from scipy.stats import binomtest
    from sklearn.metrics import precision_recall_fscore_support

    y, n = arrays["y"], len(arrays["y"])
    found = {}
    for side, prefix in (("clean", "clean_"), ("adv", "")):
        decided, logits = arrays[f"pred_{side}"], arrays[f"logits_{side}"]
        hits = int((decided == y).sum())
        name = f"{prefix}accuracy" if prefix else "robust_accuracy"
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        found |= {name: hits / n, f"{name}_low": interval.low, f"{name}_high": interval.high}
        values = precision_recall_fscore_support(y, decided, labels=np.unique(y), average="macro", zero_division=0.0)
        for key, value in zip(("precision", "recall", "f1"), values, strict=False):
            found |= {prefix + key: value, f"{prefix}{key}_low": value - 0.05, f"{prefix}{key}_high": value + 0.05}
        found[f"{prefix}top5"] = float((np.argsort(-logits, 1)[:, :5] == y[:, None]).any(1).mean())
    right = arrays["pred_clean"] == y
    found["attack_success_rate"] = float((right & arrays["success"]).sum() / max(1, right.sum()))
    for norm in ("l0", "l2", "linf"):
        hit = arrays[norm][right & arrays["success"]]
        found[f"{norm}_median"] = float(np.median(hit)) if len(hit) else float("nan")
    return found


def _fail(run, frame) -> None:
    """The last row is one that failed, the one before can't be."""
    last, before = frame.index[-1], frame.index[-2]
    numbers = [name for name in frame if name not in ("eps", "seed", "n") and frame[name].dtype == float]
    frame.loc[[last, before], numbers] = float("nan")
    frame.loc[last, ["status", "reason"]] = ["failed", "ValueError: it <b>broke</b> & 5 % of_it"]
    frame.loc[before, ["status", "reason"]] = ["unsupported", "no such attack"]


def _manifest(datasets, models, defenses, libraries, seeds, n, published) -> dict:
    history = [
        {
            "epoch": 1 + e,
            "loss": 2.0 / (1 + e),
            "validation_loss": 2.1 / (1 + e) + 0.05 * e,
            "accuracy": 0.5 + 0.05 * e,
            "validation_accuracy": 0.5 + 0.04 * e,
        }
        for e in range(8)
    ]
    search = [
        {"params": {"lr": 0.001, "units": 64}, "accuracy": 0.9},
        {"params": {"lr": 0.01, "units": 64}, "accuracy": 0.8},
    ]
    made = {
        f"{model} [{defense}] on {dataset}": {
            "digest": "0" * 64,
            "framework": "torch",
            "dataset": dataset,
            "model": model,
            "defense": defense,
            "facts": {
                "history": history,
                "seconds": 3.0,
                **({"search": {"trials": search}} if defense != "adversarial-training" else {}),
            },
        }
        for dataset in datasets
        for model in models
        for defense in defenses
    }
    suite = {"name": "study", "libraries": list(libraries), "models": [{"name": name} for name in models]}
    if published is not None:
        suite["published"] = published
    held = [{"name": name, "digest": "0" * 64, "images": n} for name in datasets]
    return {
        "suite": suite,
        "data": held if len(held) > 1 else held[0],
        "models": made,
        "seeds": list(seeds),
        "packages": {},
        "machine": {},
        "profile": "small",
        "reduced": [],
    }
