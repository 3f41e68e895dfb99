"""PGD on bare ONNX files, and on the models that they were exported from, on real pictures.

    python benchmarks/onnx_pgd.py [--images 200] [--batch-size 50] [--only 'cnn,keras rnn'] [--library torchattacks]

Data come from SPARRING_DATA. The networks for CIFAR-10 are trained here for a short while (and stay in SPARRING_CACHE);
the MobileNet v2 has its published weights and gets ImageNet's samples. Each is exported, and the file opened with no
other knowledge than its path. Both are attacked with the same parameters and no random start. A row says the success on
all images, those that were wrong from the start among them, on the source and on the file; the images whose verdicts
differ; the greatest difference of a logit; the share of pixels on which the signs of the two loss gradients agree; and
the seconds of both attacks.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from sparring.adapters import attack
from sparring.adapters.frameworks.coexistence import guard
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import prepare
from sparring.models.spec import DataSpec

SHORT = {"epochs": 2, "seed": 0, "samples": 10000}
CIFAR = ("cnn", "dnn", "rnn", "gru", "simple_rnn", "resnet18", "mobilenet_v2")
MODELS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name, "framework": "torch", "train": SHORT} for name in CIFAR},
    **{
        f"keras {name}": {"architecture": name, "framework": "keras", "train": SHORT}
        for name in ("cnn", "rnn", "simple_rnn")
    },
    "mobilenet_v2 on ImageNet": {"architecture": "mobilenet_v2", "framework": "torch", "weights": "imagenet-mobilenet"},
    "keras mobilenet_v2 on ImageNet": {
        "architecture": "mobilenet_v2",
        "framework": "keras",
        "weights": "imagenet-mobilenet",
    },
}


def main() -> int:
    """Print the table; 1 where a success differs by more than half a point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--library", default="torchattacks")
    parser.add_argument("--only", default=",".join(MODELS), help="names of models, separated by commas")
    asked = parser.parse_args()
    guard()
    worst = 0.0
    print(f"{'model':30} {'source':>7} {'file':>7} {'verdicts':>8} {'logits':>8} {'signs':>7} {'seconds':>15}")
    for name, keys in MODELS.items():
        if name not in asked.only.split(","):
            continue
        source, file, x, y = opened(name, keys, asked.images)
        eps = 0.2 / 255 if "ImageNet" in name else 2 / 255  # neither none nor all
        params = {"eps": eps, "eps_step": eps / 4, "steps": 10, "random_start": False}
        theirs, ours = (
            attack(model, x, y, "pgd", library=asked.library, norm="linf", batch_size=asked.batch_size, params=params)
            for model in (source, file)
        )
        few = slice(0, 50)
        logits, gradients = source.logits(x[few]), [loss_gradient(model, x[few], y[few]) for model in (source, file)]
        off = np.abs(file.logits(x[few]) - logits).max()
        a, b = (float(run.samples["success"].mean()) for run in (theirs, ours))
        flips = int((theirs.samples["pred_adv"] != ours.samples["pred_adv"]).sum())
        signs = (np.sign(gradients[0]) == np.sign(gradients[1])).mean()
        print(
            f"{name:30} {a:7.1%} {b:7.1%} {flips:8} {off:8.1e} {signs:7.2%} {theirs.seconds:7.1f} {ours.seconds:7.1f}"
        )
        worst = max(worst, abs(a - b))
    print(f"largest difference of a success: {100 * worst:.2f} points")
    return int(worst > 0.005)


def opened(name: str, keys: dict[str, Any], n: int) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """The source, its file, images and labels."""
    here = Path()
    data = DataSpec(name="imagenet-samples", samples=n) if "ImageNet" in name else DataSpec(name="cifar10", samples=n)
    ref = prepare(model_spec(name="source", **keys), data=data, base=here)
    exported = prepare(model_spec(name="file", export="source"), data=data, base=here, others={"source": ref})
    sample = datasets.load(data, base=here)
    return open_model(ref), open_model(exported), sample.x, sample.y


def loss_gradient(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the cross-entropy."""
    powers = np.exp(model.logits(x) - model.logits(x).max(axis=1, keepdims=True))
    residue = powers / powers.sum(axis=1, keepdims=True) - np.eye(model.classes)[y]
    return np.asarray(model.vjp(x, residue.astype(np.float32)))


if __name__ == "__main__":
    sys.exit(main())
