"""Robust accuracy and passes of what three libraries call AutoAttack, and of PGD-100, on a CNN for MNIST.

    SPARRING_DATA=folder python benchmarks/autoattack.py [--images 32] [--eps 0.1 0.15] [--norm linf] [--scale 100]

sparring's CNN is trained briefly, once (it stays in the cache). Every attack gets the same images, all classified
correctly, and the parameters of the source: 100 steps, 5000 queries. *as it comes* is torchattacks' own AutoAttack with
its own 10 steps. Passes are images passed forwards and backwards, for each image. With ``--scale`` the logits are
multiplied, which takes the cross-entropy's gradient away in float32, but not that of a ratio of logits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from sparring.adapters.attacks.run import attack
from sparring.adapters.protocol import Differentiable, Images, Logits
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.prepared import prepare as load
from sparring.models.prepared.open import open_model
from sparring.models.spec import DataSpec, TrainSpec

CNN = model_spec(
    name="cnn", architecture="cnn", framework="torch", train=TrainSpec(epochs=3, batch_size=128, samples=12_000)
)
DATA = DataSpec(name="mnist", samples=1000)


class Scaled:
    """A classifier's logits times a factor."""

    framework = "onnx"

    def __init__(self, inner: Differentiable, factor: float) -> None:
        self.inner, self.factor = inner, np.float32(factor)
        self.input_shape, self.classes = inner.input_shape, inner.classes

    def logits(self, x: Images) -> Logits:
        """(N, classes)."""
        return self.factor * self.inner.logits(x)

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The gradient by x."""
        return self.inner.vjp(x, self.factor * cotangent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.1, 0.15])
    parser.add_argument("--norm", default="linf", choices=("linf", "l2"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5000)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    model: Any = open_model(load.prepare(CNN, data=DATA, base=Path(), device="cpu"), device="cpu")
    model = model if asked.scale == 1 else Scaled(model, asked.scale)
    sample = datasets.load(DATA, base=Path())
    right = model.logits(sample.x).argmax(axis=1) == sample.y
    print(f"cnn on mnist: {right.mean():.3f} of {len(right)} test images right; logits x {asked.scale:g}")
    x, y = sample.x[right][: asked.images], sample.y[right][: asked.images]
    source = {"steps": asked.steps, "queries": asked.queries}
    theirs = {"norm": {"linf": "Linf", "l2": "L2"}[asked.norm], "seed": 0}
    for eps in asked.eps:
        print(f"{asked.norm}, eps {eps:g}, {len(x)} images")
        for who, name, library, params in (
            ("PGD-100, torchattacks", "pgd", "torchattacks", {"steps": 100}),
            ("AutoAttack, sparring", "autoattack", "sparring", source),
            ("AutoAttack, torchattacks", "autoattack", "torchattacks", source),
            ("AutoAttack, torchattacks, as it comes", "torchattacks:AutoAttack", "torchattacks", theirs),
            ("AutoAttack, art", "autoattack", "art", source),
        ):
            norm = None if ":" in name else asked.norm
            begin = time.process_time()
            found = attack(model, x, y, name, norm=norm, library=library, params={"eps": eps, **params})
            seconds = time.process_time() - begin
            robust = 1 - found.samples["success"].mean()
            print(
                f"  {who:38} robust accuracy {robust:.3f}; {found.forwards / len(x):9.1f} forwards, "
                f"{found.backwards / len(x):8.1f} backwards an image; {seconds:6.1f} s"
            )
            if "fooled_by" in found.extras:
                places = np.bincount(found.extras["fooled_by"] + 2, minlength=6)[2:]
                print(f"  {'':38} fallen to APGD-CE, APGD-DLR, FAB, Square: {', '.join(map(str, places))}")


if __name__ == "__main__":
    main()
