"""Seconds for each image and success of JSMA: sparring's, ART's and torchattacks', on a ResNet-18 for CIFAR-10.

    SPARRING_DATA=folder python benchmarks/jsma.py [--images 32] [--gammas 0.005 0.02] [--singly]

torchvision's resnet18 at 3 x 32 x 32 is trained briefly, once (it stays in the cache). Every attack gets the same
images, all classified correctly, the same gamma, theta 1, and the same class to reach for each image: the next one.
*Reached* is the share that is classified as that class afterwards, *left* the share that is no longer in its own. The
attacks take turns, a batch each, and seconds are processor time of one thread; with ``--singly`` ART also gets one
image at a time, which is the default of its ``batch_size``. torchattacks takes one at a time in any case: it gets
``--slow`` images only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from sparring.adapters.attacks.run import attack
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.prepared import prepare as load
from sparring.models.prepared.open import open_model
from sparring.models.spec import DataSpec, TrainSpec

RESNET = model_spec(
    name="resnet18",
    architecture="resnet18",
    framework="torch",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    train=TrainSpec(epochs=6, batch_size=128, samples=12_000, augment="flip-crop"),
)
DATA = DataSpec(name="cifar10", samples=1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--slow", type=int, default=4, help="images for torchattacks")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.005, 0.02])
    parser.add_argument("--singly", action="store_true", help="ART one image at a time, too")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    ref = load.prepare(RESNET, data=DATA, base=Path(), device="cpu")
    model = open_model(ref, device="cpu")
    sample = datasets.load(DATA, base=Path())
    right = model.logits(sample.x).argmax(axis=1) == sample.y
    print(f"resnet18 on cifar10: {right.mean():.3f} of {len(right)} test images right")
    x, y = sample.x[right][: asked.images], sample.y[right][: asked.images]

    who = {"sparring": ("sparring", asked.batch), "art": ("art", asked.batch)}
    who |= {"art, singly": ("art", 1)} if asked.singly else {}
    who |= {"torchattacks": ("torchattacks", asked.batch)} if asked.slow else {}
    for gamma in asked.gammas:
        seconds = dict.fromkeys(who, 0.0)
        decided: dict[str, list[np.ndarray]] = {name: [] for name in who}
        passes = dict.fromkeys(who, 0)
        for start in range(0, len(x), asked.batch):
            for name, (library, batch) in who.items():
                part = slice(start, min(start + asked.batch, asked.slow if library == "torchattacks" else len(x)))
                if part.stop <= start:
                    continue
                begin = time.process_time()
                found = attack(
                    model, x[part], y[part], "jsma", library=library, batch_size=batch, params={"gamma": gamma}
                )
                seconds[name] += time.process_time() - begin
                decided[name].append(found.samples["pred_adv"])
                passes[name] += found.forwards + found.backwards
        print(f"gamma {gamma:g}, up to {int(x[0].size * gamma / 2)} pairs")
        for name, parts in decided.items():
            after, n = np.concatenate(parts), sum(map(len, parts))
            ours = np.concatenate(decided["sparring"])[:n]
            there, ours_there = ((labels == (y[:n] + 1) % 10).mean() for labels in (after, ours))
            slower = seconds[name] / n * len(x) / seconds["sparring"]
            print(
                f"  {name:14} {n:4} images {seconds[name] / n:8.3f} s an image, {slower:6.1f} x sparring's; "
                f"{passes[name] / n:6.1f} passes; reached {there:.3f} (sparring's of the same: {ours_there:.3f}), "
                f"left {(after != y[:n]).mean():.3f}"
            )


if __name__ == "__main__":
    main()
