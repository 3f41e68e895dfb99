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
from sparring.models.defenses.catalogue import find, wrap_defended
from sparring.models.spec import DataSpec, DefenseSpec

EPS = 0.15
N = 24


@lru_cache(maxsize=1)
def mnist() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A small CNN of 6,000 images, its 200 test images and labels, and ART's DeepFool on the first of them."""
    train = datasets.load_train(DataSpec(name="mnist"), base=Path(), samples=6000, seed=0)
    test = datasets.load(DataSpec(name="mnist", samples=200), base=Path())
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)]
    net = nn.Sequential(*layers).double()  # in single precision each kind of processor would train another network
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    x, y = torch.from_numpy(train.x).double(), torch.from_numpy(train.y)
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    classifier = wrap(net.float().eval(), input_shape=(1, 28, 28), device="cpu")
    return classifier, test.x, test.y, deepfool(classifier, test.x[:N], test.y[:N]).images


def deepfool(classifier: Any, x: np.ndarray, y: np.ndarray) -> Any:
    return attack(classifier, x, y[: len(x)], "deepfool", library="art", steps=15)


def stepwise(classifier: Any, x: np.ndarray, y: np.ndarray, name: str = "pgd", **params: Any) -> np.ndarray:
    given = {"eps": EPS, **({"steps": 10} if name == "pgd" else {}), **params}
    found: np.ndarray = attack(classifier, x, y[: len(x)], name, library="torchattacks", params=given).images
    return found


def accuracy(classifier: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float((classifier.logits(x).argmax(axis=1) == y[: len(x)]).mean())


def behind(spec: DefenseSpec, classifier: Any) -> list[Any]:
    """The defended classifier: once, or with eight seeds where it is random.

    Images that differ in the last bit meet other draws, so that each kind of processor has its own: of one draw the
    accuracy on 24 images is .1 more or less elsewhere, of the mean of all hardly anything.
    """
    seeds = range(8 if find(spec.defense).random else 1)
    return [wrap_defended(classifier, [spec], seed=seed) for seed in seeds]


def mean_accuracy(classifiers: list[Any], x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([accuracy(classifier, x, y) for classifier in classifiers]))


def aware_attacks(classifiers: list[Any], x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """What attackers leave who know of the defense, one for each of four seeds.

    The accuracy under DeepFool, the length of its change, and the accuracy under PGD with eps .25.
    """
    found = []
    for one in classifiers[:4]:
        images = deepfool(one, x, y).images
        far = stepwise(one, x, y, eps=0.25)
        found.append((mean_accuracy(classifiers, images, y), length(images - x), mean_accuracy(classifiers, far, y)))
    left, change, far_left = np.mean(found, axis=0)
    return float(left), float(change), float(far_left)


def said(name: str, **params: Any) -> DefenseSpec:
    return DefenseSpec(defense=name, **params)


# most that clean accuracy loses, least accuracy that DeepFool leaves to who is unaware, least of it that who is aware
# takes back: little where the picture moves, for DeepFool stops just past a boundary that is elsewhere in the next draw
MASKS = {
    "median-smoothing": (said("median-smoothing", size=3), 0.04, 0.6, 0.25),
    "mean-smoothing": (said("mean-smoothing"), 0.07, 0.5, 0.25),
    "gaussian-blur": (said("gaussian-blur"), 0.05, 0.5, 0.25),
    "jpeg": (said("jpeg"), 0.02, 0.65, 0.25),
    "bit-depth": (said("bit-depth", levels=4), 0.02, 0.7, 0.25),
    "random-noise": (said("random-noise", draws=4), 0.03, 0.65, 0.25),
    "random-rotation": (said("random-rotation", draws=4), 0.05, 0.55, 0.2),
    "random-shift": (said("random-shift", shift=0.05, draws=4), 0.09, 0.45, 0.0),
    "random-resize-pad": (said("random-resize-pad", draws=4), 0.09, 0.4, 0.0),
    "randomization": (said("randomization", shift=0.05, zoom=0.1, draws=4), 0.13, 0.5, 0.05),
    "total-variation": (said("total-variation", weight=0.1, keep=0.8, steps=20, draws=4), 0.05, 0.6, 0.25),
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
        defended = behind(spec, classifier)
        change = mean_accuracy(defended, x, y) - accuracy(classifier, x, y)
        left, far, stepwise_left = aware_attacks(defended, x[:N], y)
        columns = [mean_accuracy(defended, unaware, y), left, far, mean_accuracy(defended, fgsm, y), stepwise_left]
        print(
            " | ".join([f"| `{spec.label}`", f"{change:+.3f}", *(f"{each:.2f}" for each in columns)]) + " |", flush=True
        )


if __name__ == "__main__":
    table()
