"""Copies of a finished run, altered as another release would have: what `sparring diff` and `matrix` are tested on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[2]
SUITE = {
    "name": "small",
    "data": {"name": "digits", "samples": 24},
    "models": [
        {
            "name": "net",
            "architecture": "cnn",
            "framework": "torch",
            "weights": str(ROOT / "suites" / "studies" / "versions-cnn.safetensors"),
        }
    ],
    "libraries": ["foolbox", "torchattacks"],
    "attacks": [{"attack": "fgsm", "eps": 0.1}, {"attack": "jsma"}],
}
"""Three rows that are done, and one, Foolbox's JSMA, that can't be."""


def altered(run: Path, to: Path, **packages: str) -> Path:
    """A copy of the run, as if these packages had been installed (underscores stand for dashes)."""
    shutil.copytree(run, to)
    path = to / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["packages"] |= {name.replace("_", "-"): release for name, release in packages.items()}
    path.write_text(json.dumps(manifest))
    return to


def rewrite_manifest(run: Path, change) -> None:
    """Let ``change`` alter the manifest in place."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def cell(run: Path, library: str, attack: str) -> Path:
    """The folder of a row's result."""
    frame = pd.read_parquet(run / "results.parquet")
    (row,) = frame[(frame["library"] == library) & (frame["attack"] == attack)]["cell_id"]
    return run / "cells" / row


def rewrite_arrays(run: Path, library: str, attack: str, change) -> None:
    """Let ``change`` alter the arrays of a row's result in place."""
    path = cell(run, library, attack) / "images.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(path, **arrays)


def rewrite_table(run: Path, library: str, attack: str, **values) -> None:
    """Set columns of a row of the results."""
    frame = pd.read_parquet(run / "results.parquet")
    frame.loc[(frame["library"] == library) & (frame["attack"] == attack), list(values)] = list(values.values())
    frame.to_parquet(run / "results.parquet", index=False)


def drop_row(run: Path, library: str, attack: str) -> None:
    """Take a row out of the results."""
    frame = pd.read_parquet(run / "results.parquet")
    frame[(frame["library"] != library) | (frame["attack"] != attack)].to_parquet(run / "results.parquet", index=False)


def hit(arrays: dict, n: int) -> None:
    """Let the attack hit ``n`` images more, each with a pixel moved by a half."""
    spared = np.flatnonzero(~arrays["success"])[:n]
    assert len(spared) == n
    arrays["success"][spared] = True
    arrays["pred_adv"][spared] = (arrays["y"][spared] + 1) % 10
    arrays["x_adv"][spared, 0, 0, 0] += 0.5
