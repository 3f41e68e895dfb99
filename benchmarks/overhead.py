"""What sparring costs: a cell against the bare library call and against a hand-written loop, on one torch model.

    python benchmarks/overhead.py [--images 256] [--steps 40] [--rounds 5] [--limit CELL,LOOP]

PGD without a random start on a small CNN at MNIST's size. In each round every contestant runs once, one after the
other; printed are ratios of the medians over the rounds, so that a noisy machine disturbs all alike. "cell" is a whole
cell: the clean predictions, the attack, the judgement, and the writing of the result with its images. "bare" is the
library as its own manual calls it. "loop" is PGD in ten lines, with the model's parameters frozen.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sparring.adapters import wrap
from sparring.models.data.datasets import Dataset
from sparring.models.model_spec import model_spec
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.recipes import array_digest
from sparring.suites.plan.cell import Cell
from sparring.suites.results import store
from sparring.suites.runner.cells import run_cell

EPS, EPS_STEP = 0.3, 0.01


def network() -> torch.nn.Module:
    """Two convolutions, one pooling, two dense layers: 28×28 in, 10 logits out."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(9216, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    ).eval()


def loop(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> torch.Tensor:
    """PGD as one would write it by hand."""
    model.requires_grad_(False)
    adv = x.clone()
    for _ in range(steps):
        adv.requires_grad_(True)
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(adv), y), adv)
        adv = adv.detach() + EPS_STEP * gradient.sign()
        adv = (x + (adv - x).clamp(-EPS, EPS)).clamp(0, 1)
    model.requires_grad_(True)
    return adv


def bare(library: str, model: torch.nn.Module, x: np.ndarray, y: np.ndarray, steps: int) -> np.ndarray:
    """The library as its own manual calls it."""
    if library == "art":
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        estimator = PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), x.shape[1:], 10, clip_values=(0, 1))
        attack = ProjectedGradientDescent(
            estimator, eps=EPS, eps_step=EPS_STEP, max_iter=steps, batch_size=len(x), verbose=False
        )
        return attack.generate(x, y)
    if library == "foolbox":
        import foolbox

        attack = foolbox.attacks.LinfPGD(abs_stepsize=EPS_STEP, steps=steps, random_start=False)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        return attack(wrapped, torch.tensor(x), torch.tensor(y), epsilons=EPS)[1].numpy()
    import torchattacks

    attack = torchattacks.PGD(model, eps=EPS, alpha=EPS_STEP, steps=steps, random_start=False)
    return attack(torch.tensor(x), torch.tensor(y)).numpy()


def cell(library: str, data: Dataset, steps: int) -> Cell:
    """The same attack as a cell."""
    ref = ModelRef(
        "net",
        "0" * 64,
        "torch",
        "object",
        data.x.shape[1:],
        10,
        model_spec(name="net", architecture="cnn"),
        None,
        {},
        "",
    )
    params = {"eps": EPS, "steps": steps, "eps_step": EPS_STEP, "random_start": False, "restarts": 1}
    return Cell(
        "bench", data.digest, ref, library, {}, "native", "pgd", "linf", params, False, 0, len(data.x), 0, len(data.x)
    )


def main() -> int:
    """Measure and print; exit code 1 when a limit is given and exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", help="CELL,LOOP: the largest ratios allowed, e.g. 1.05,1.15")
    args = parser.parse_args()
    model = network()
    x = np.random.default_rng(0).uniform(0, 1, (args.images, 1, 28, 28)).astype(np.float32)
    y = model(torch.tensor(x)).argmax(1).numpy()
    data = Dataset("bench", x, y, tuple("0123456789"), array_digest(x, y))
    classifier = wrap(model, input_shape=x.shape[1:], device="cpu")
    folder = Path(tempfile.mkdtemp())
    images: dict[str, np.ndarray] = {}

    def a_cell(library: str) -> np.ndarray:
        this = cell(library, data, args.steps)
        result = run_cell(this, classifier, data)
        assert result.status == "done", result.reason
        store.write(folder, this.id, this.identity(), result, replace=True)
        return result.arrays["x_adv"]

    libraries = ("art", "foolbox", "torchattacks")
    contestants: dict[str, Callable[[], np.ndarray]] = {
        "loop": lambda: loop(model, torch.tensor(x), torch.tensor(y), args.steps).numpy()
    }
    for name in libraries:
        contestants[f"bare {name}"] = lambda name=name: bare(name, model, x, y, args.steps)  # type: ignore[misc]
        contestants[f"cell {name}"] = lambda name=name: a_cell(name)  # type: ignore[misc]
    for name, run in contestants.items():
        images[name] = run()  # warm: imports, threads
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"PGD-{args.steps}, {args.images} images of 1×28×28, medians of {args.rounds} rounds; max |Δ| against the loop"
    )
    print(f"{'library':14}{'cell / bare':>12}{'cell / loop':>12}{'bare / loop':>12}{'max |Δ|':>12}")
    broken = 0
    for name in libraries:
        of_bare, of_loop = median[f"cell {name}"] / median[f"bare {name}"], median[f"cell {name}"] / median["loop"]
        difference = float(np.abs(images[f"cell {name}"] - images["loop"]).max())
        print(
            f"{name:14}{of_bare:12.2f}{of_loop:12.2f}{median[f'bare {name}'] / median['loop']:12.2f}{difference:12.1e}"
        )
        if args.limit:
            limits = [float(part) for part in args.limit.split(",")]
            broken += of_bare > limits[0] or of_loop > limits[1]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
