"""Training a network: one loop for every framework, the same batches, and the same weights every time.

How a network is trained is a value, ``Training``. A training defense is a function that makes another one of it;
``train`` carries it out on a ``Learner``, which is a network of one framework with its optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Differentiable, Images, Labels, Logits
from sparring.models.data.pool import Progress
from sparring.models.networks.determinism import seeded
from sparring.models.spec import TrainSpec
from sparring.models.training.augmentation import AUGMENT
from sparring.models.training.learner import History, Learner, Targets, Weights

TRAINING_VERSION = 1
"""Part of the identity of trained weights: raised by every change that changes the weights that come out."""


Batch: TypeAlias = Callable[[Images, Targets, np.random.Generator], tuple[Images, Targets]]
"""What becomes of a batch before the step that is made with it."""
Change: TypeAlias = Callable[[Learner], AbstractContextManager[Batch]]
"""Entered once a training, with its learner."""


@dataclass(frozen=True)
class Training:
    """How a network is trained; a training defense gives another one, by ``dataclasses.replace``."""

    fresh: Callable[[], Learner]
    """a learner with new initial weights, from the global generators"""
    family: str
    """``torch`` or ``keras``"""
    x: Images
    """(N, C, H, W)"""
    y: Targets
    spec: TrainSpec
    held: tuple[Images, Labels] | None = None
    """images and labels that the network is not trained on"""
    changes: tuple[Change, ...] = ()
    """what becomes of each batch, in order, after the augmentation that ``spec`` names"""
    gradient_noise: Callable[[int], float] | None = None
    """standard deviation by epoch (0 is the first)"""
    weight_noise: Callable[[int], float] | None = None
    schedule: Callable[[float], float] | None = None
    """share of the steps that is done, in [0, 1) -> what the learning rate is multiplied by"""
    temperature: float = 1.0
    """what logits are divided by while training"""
    first: Training | None = None
    """what is carried out before: this training starts from its weights, and from new ones where there is none"""
    loop: Callable[[Learner, Training], History] | None = None
    """who trains, where it isn't the loop of this file"""
    stage: str = ""
    past: History = ()
    """of the trainings whose outcome is in ``x`` and ``y``"""
    progress: Progress | None = None


Begun: TypeAlias = Callable[[Learner], History]
"""Puts the weights that a training has come to before into a learner, and says how it came to them."""


def train(training: Training, done: tuple[Training, Begun] | None = None) -> tuple[Learner, History]:
    """Carry a training out: everything random follows from ``training.spec.seed``.

    ``done`` is a training that was carried out before: where this one begins with it, it is not carried out again.
    Raises ``InputError`` if the loss stops being finite.
    """
    if done is not None and training is done[0]:
        with seeded(training.spec.seed, training.family):
            learner = training.fresh()
        return learner, done[1](learner)
    past = training.past
    start: Weights | None = None
    if training.first is not None:
        learner, past = train(training.first, done)
        start = learner.weights()
    with seeded(training.spec.seed, training.family):
        learner = training.fresh()
        if start is not None:
            learner.set_weights(start)
        rows = (training.loop or _loop)(learner, training)
    return learner, (*past, *rows)


def probabilities(logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Probabilities (N, classes), float32, of logits that are divided by ``temperature``; computed in float64."""
    from scipy.special import softmax

    return np.asarray(softmax(logits.astype(np.float64) / temperature, axis=1), np.float32)


def evaluate(
    classifier: Differentiable, x: Images, y: Labels, temperature: float = 1.0, batch_size: int = 256
) -> tuple[float, float]:
    """Mean cross-entropy, logits divided by ``temperature``, and accuracy, on images (N, C, H, W) and labels (N,)."""
    logits = np.concatenate([classifier.logits(x[i : i + batch_size]) for i in range(0, len(x), batch_size)])
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(y)), y]
    return float(losses.mean()), float((logits.argmax(axis=1) == y).mean())


# --- the loop -------------------------------------------------------------------------------------------------------


def _loop(learner: Learner, training: Training) -> History:
    spec, x, y = training.spec, training.x, training.y
    rng = np.random.default_rng(spec.seed)
    starts = range(0, len(x), spec.batch_size)
    # a last batch of one has no variance for batch normalization to divide by
    starts = starts[:-1] if len(x) % spec.batch_size == 1 and len(starts) > 1 else starts
    steps = spec.epochs * len(starts)
    rows: list[dict[str, Any]] = []
    best: Weights | None = None
    rate, plateau = spec.lr, Plateau()
    with ExitStack() as stack:
        changes = [stack.enter_context(change(learner)) for change in training.changes]
        for epoch in range(spec.epochs):
            order = rng.permutation(len(x))
            total = right = seen = 0.0
            noise = {
                "gradient_noise": training.gradient_noise(epoch) if training.gradient_noise else 0.0,
                "weight_noise": training.weight_noise(epoch) if training.weight_noise else 0.0,
            }
            for i, start in enumerate(starts):
                chosen = order[start : start + spec.batch_size]
                images, targets = AUGMENT[spec.augment](x[chosen], rng), y[chosen]
                for change in changes:
                    images, targets = change(images, targets, rng)
                done = epoch * len(starts) + i
                lr = rate * (training.schedule(done / steps) if training.schedule else 1.0)
                loss, accuracy = learner.step(images, targets, lr=lr, temperature=training.temperature, **noise)
                if not math.isfinite(loss):
                    raise InputError(
                        f"train: the loss is no longer finite in epoch {epoch + 1}: lower train.lr ({spec.lr:g})"
                    )
                seen += len(images)
                total, right = total + loss * len(images), right + accuracy * len(images)
                if training.progress:
                    stage = f"{training.stage}: " if training.stage else ""
                    what = f"{stage}epoch {epoch + 1}/{spec.epochs}, loss {total / seen:.3f}"
                    training.progress(done + 1, steps, what)
            rows.append(row_of(learner, training, epoch + 1, total / seen, right / seen))
            # the first of equals: nothing was gained by training on
            if spec.keep == "best" and rows[-1]["validation_loss"] <= min(row["validation_loss"] for row in rows):
                best = learner.weights()
            if spec.schedule == "plateau":
                rows[-1]["learning_rate"] = rate
                rate = plateau.after(rows[-1]["validation_loss"], rate)
    if best is not None:
        learner.set_weights(best)
    return tuple(rows)


@dataclass
class Plateau:
    """A learning rate that falls where a loss no longer does: ``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    With mode min, factor .1 and patience 3, and torch's own threshold (1e-4 of the best), which the papers that name it
    leave as it is.
    """

    best: float = math.inf
    waited: int = 0

    def after(self, loss: float, rate: float) -> float:
        """The rate of the next epoch, after one that ended with this loss and was run at ``rate``."""
        self.waited += 1
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
        if self.waited <= 3:
            return rate
        self.waited = 0
        return rate * 0.1 if rate - rate * 0.1 > 1e-8 else rate  # torch leaves a rate that hardly changes


def row_of(learner: Learner, training: Training, epoch: int, loss: float, accuracy: float) -> dict[str, Any]:
    """The row of the history after that epoch (1 is the first)."""
    row: dict[str, Any] = {"epoch": epoch, "loss": loss, "accuracy": accuracy}
    if training.stage:
        row["stage"] = training.stage
    if training.held is not None:
        x, y = training.held
        scores = evaluate(learner.classifier(), x, y, training.temperature)
        row["validation_loss"], row["validation_accuracy"] = scores
    return row
