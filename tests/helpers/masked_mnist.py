"""A CNN on MNIST behind each wrapper, attacked by who knows of it and who doesn't; run as a script, the table of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparring.adapters import attack, wrap
from sparring.models.data import datasets
from sparring.models.defenses.catalogue import wrap_defended
from sparring.models.spec import DataSpec, DefenseSpec

EPS = 0.15
N = 24


@lru_cache(maxsize=1)
def mnist() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A small CNN of 6,000 images, its 200 test images and labels, and ART's DeepFool on the first of them."""
    train = datasets.load_train(DataSpec(name="mnist"), base=Path(), samples=6000, seed=0)
    test = datasets.load(DataSpec(name="mnist", samples=200), base=Path())
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    classifier = wrap(net.eval(), input_shape=(1, 28, 28), device="cpu")
    return classifier, test.x, test.y, deepfool(classifier, test.x[:N], test.y[:N]).images


def deepfool(classifier: Any, x: np.ndarray, y: np.ndarray) -> Any:
    return attack(classifier, x, y[: len(x)], "deepfool", library="art", steps=15)


def stepwise(classifier: Any, x: np.ndarray, y: np.ndarray, name: str = "pgd", **params: Any) -> np.ndarray:
    given = {"eps": EPS, **({"steps": 10} if name == "pgd" else {}), **params}
    found: np.ndarray = attack(classifier, x, y[: len(x)], name, library="torchattacks", params=given).images
    return found


def accuracy(classifier: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float((classifier.logits(x).argmax(axis=1) == y[: len(x)]).mean())


def said(name: str, **params: Any) -> DefenseSpec:
    return DefenseSpec(defense=name, **params)


# spec -> most that clean accuracy loses, least accuracy that is left under DeepFool of an unaware attacker
MASKS = {
    "median-smoothing": (said("median-smoothing", size=3), 0.04, 0.6),
    "mean-smoothing": (said("mean-smoothing"), 0.07, 0.5),
    "gaussian-blur": (said("gaussian-blur"), 0.05, 0.5),
    "jpeg": (said("jpeg"), 0.02, 0.65),
    "bit-depth": (said("bit-depth", levels=4), 0.02, 0.7),
    "random-noise": (said("random-noise", draws=4), 0.03, 0.65),
    "random-rotation": (said("random-rotation", draws=4), 0.05, 0.6),
    "random-shift": (said("random-shift", shift=0.05, draws=4), 0.09, 0.45),
    "random-resize-pad": (said("random-resize-pad", draws=4), 0.09, 0.4),
    "randomization": (said("randomization", shift=0.05, zoom=0.1, draws=4), 0.13, 0.55),
    "total-variation": (said("total-variation", weight=0.1, keep=0.8, steps=20, draws=4), 0.05, 0.6),
}


def length(change: np.ndarray) -> float:
    """The median, over the images, of the Euclidean length."""
    return float(np.median(np.sqrt((change**2).sum(axis=(1, 2, 3)))))


def table() -> None:
    """The rows of docs/defenses.md."""
    classifier, x, y, unaware = mnist()
    fgsm = stepwise(classifier, x[:N], y, "fgsm")
    print(
        f"undefended: FGSM leaves {accuracy(classifier, fgsm, y):.2f}, DeepFool's length {length(unaware - x[:N]):.2f}"
    )
    for spec, *_ in MASKS.values():
        defended = wrap_defended(classifier, [spec], seed=0)
        aware = deepfool(defended, x[:N], y).images
        pgd = stepwise(defended, x[:N], y, eps=0.2)
        change = accuracy(defended, x, y) - accuracy(classifier, x, y)
        told = [f"{accuracy(defended, each, y):.2f}" for each in (unaware, aware, fgsm, pgd)]
        told.insert(2, f"{length(aware - x[:N]):.2f}")
        print(" | ".join([f"| `{spec.label}`", f"{change:+.3f}", *told]) + " |")


if __name__ == "__main__":
    table()
