"""Training a network: one loop for every framework, the same batches, and the same weights every time.

How a network is trained is a value, ``Training``. A training defense is a function that makes another one of it;
``train`` carries it out on a ``Learner``, which is a network of one framework with its optimizer.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Differentiable, Images, Labels, Logits
from sparring.models.data.pictures import Progress
from sparring.models.spec import DefenseSpec, TrainSpec
from sparring.models.training.augmentation import AUGMENT

TRAINING_VERSION = 1
"""Part of the identity of trained weights: raised by every change that changes the weights that come out."""

Targets: TypeAlias = Labels | npt.NDArray[np.float32]
"""Class indices (N,), or a probability for each class (N, classes)."""
Weights: TypeAlias = list[npt.NDArray[Any]]
"""Every array that a network is made of, in its own order."""
History: TypeAlias = tuple[dict[str, Any], ...]
"""A row an epoch: ``epoch``, ``loss`` and ``accuracy`` (means over its steps, dropout and all), and where images are
held out ``validation_loss`` and ``validation_accuracy``; ``learning_rate`` of the epoch, where the spec has a schedule;
``stage`` says of which training, where there are several."""


class Learner(Protocol):
    """A network of one framework that can be trained: the images it takes are those of the box."""

    network: Any
    kernels: list[Any]
    """the weights that an L2 penalty is on"""
    before: Preprocessing
    """what the network wants done to images of the box"""

    def classifier(self) -> Differentiable:
        """A live view of the weights, in evaluation mode: what an attack sees at this moment of the training."""
        ...

    def step(
        self,
        x: Images,
        targets: Targets,
        *,
        lr: float,
        temperature: float = 1.0,
        gradient_noise: float = 0.0,
        weight_noise: float = 0.0,
    ) -> tuple[float, float]:
        """One update of the weights on a batch; its mean cross-entropy before, and the share that was right.

        The logits are divided by ``temperature``. ``gradient_noise`` and ``weight_noise`` are standard deviations of
        Gaussian noise: added to the gradient of the weights, and to the weights while that gradient is computed.
        """
        ...

    def gradient(self, x: Images, y: Labels) -> Images:
        """Of each image's own cross-entropy with respect to the image (N, C, H, W), in evaluation mode."""
        ...

    def weights(self) -> Weights:
        """A copy of every array of the network."""
        ...

    def set_weights(self, weights: Weights) -> None:
        """Put them back."""
        ...

    def finish(self) -> Any:
        """The network, on the CPU and in evaluation mode, with nothing of the training left on it."""
        ...


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


def trained(
    build: Callable[[], Any],
    framework: str,
    x: Images,
    y: Labels,
    spec: TrainSpec,
    *,
    defenses: Sequence[DefenseSpec] = (),
    begun: Begun | None = None,
    before: Preprocessing,
    options: Mapping[str, Any],
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The network that ``build`` makes, trained on images of the box (N, C, H, W) and labels (N,), and facts of it.

    ``framework`` is ``torch`` or ``keras-`` with the backend that this process has; ``options`` are the keyword
    arguments of ``wrap`` (range, normalisation, layout), and ``before`` says the same for the training. Those of
    ``defenses`` that are training defenses change the training, in order; wrappers are passed over. Where what
    comes out begins with the training without them, ``begun`` gives the weights of that. The facts: ``history``,
    ``seconds`` and ``defenses`` (their labels). Raises ``InputError`` for a defense that is not known or
    not meant so, and if the loss stops being finite.
    """
    begin = time.perf_counter()
    family = framework.partition("-")[0]
    used = [spec.label for spec in defenses]
    with seeded(spec.seed, family), _on(device, family):
        training = plain = _plain(build, family, x, y, spec, before, options, device, progress)
        if defenses:
            training, used = _defended(training, defenses)
        learner, history = train(training, (plain, begun) if begun and training is not plain else None)
        network = learner.finish()
    return network, {"history": list(history), "seconds": time.perf_counter() - begin, "defenses": used}


@contextmanager
def seeded(seed: int, framework: str) -> Iterator[None]:
    """Inside, everything random in ``torch`` or ``keras`` follows from the seed and operations are deterministic.

    Build the network inside as well: its initial weights are drawn here. On leaving, the generators of Python, NumPy
    and torch and torch's determinism are as before; TensorFlow's global seed stays.
    """
    guard()
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        if framework == "torch" or os.environ.get("KERAS_BACKEND") == "torch":
            stack.enter_context(_deterministic_torch(seed))
        if framework != "torch":
            stack.enter_context(_deterministic_keras(seed))
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield


def softmax(logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Probabilities (N, classes) of logits that are divided by ``temperature``."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


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
    # a last batch of one has no variance for batch normalisation to divide by
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
        found = evaluate(learner.classifier(), x, y, training.temperature)
        row["validation_loss"], row["validation_accuracy"] = found
    return row


def _plain(
    build: Callable[[], Any],
    family: str,
    x: Images,
    y: Labels,
    spec: TrainSpec,
    before: Preprocessing,
    options: Mapping[str, Any],
    device: str,
    progress: Progress | None,
) -> Training:
    def fresh() -> Learner:
        if family == "torch":
            from sparring.models.training.torch_learner import TorchLearner

            return TorchLearner(build(), spec, x.shape[1:], before, options, device)
        from sparring.models.training.keras_learner import KerasLearner

        return KerasLearner(build(), spec, x.shape[1:], before, options, device)

    held = None
    if spec.validation:
        # a generator of its own: which images are held out depends on nothing but the seed and their number
        order = np.random.default_rng([spec.seed, 1]).permutation(len(x))
        n = round(spec.validation * len(x))
        if not 0 < n < len(x):
            raise InputError(f"train.validation: {spec.validation:g} of {len(x)} images is {n}: nothing to choose by")
        out, kept = np.sort(order[:n]), np.sort(order[n:])
        held, x, y = (x[out], y[out]), x[kept], y[kept]
    return Training(fresh, family, x, y, spec, held, progress=progress)


def _defended(training: Training, defenses: Sequence[DefenseSpec]) -> tuple[Training, list[str]]:
    """The training as its training defenses, in order, change it; and the labels of those."""
    from sparring.models.defenses import catalogue as known

    used = []
    for spec in defenses:
        defense, params = known.resolve(spec)
        if defense.kind == "training":
            training = known.called(defense.build)(training, **params)
            used.append(spec.label)
    return training, used


# --- the same numbers every time ------------------------------------------------------------------------------------


def _on(device: str, family: str) -> AbstractContextManager[Any]:
    """Where Keras works: on the CPU if that is asked for; torch's modules are moved instead."""
    if family == "torch" or device != "cpu":
        return nullcontext()
    import keras

    place: AbstractContextManager[Any] = keras.device("cpu")
    return place


@contextmanager
def _deterministic_torch(seed: int) -> Iterator[None]:
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    devices = list(range(torch.cuda.device_count()))
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=devices):
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            # the weights would depend on how many cores the machine has; and where other processes keep these busy,
            # threads that wait for each other made a small network train 50 times slower
            torch.set_num_threads(1)
            torch.manual_seed(seed)
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.set_num_threads(threads)


@contextmanager
def _deterministic_keras(seed: int) -> Iterator[None]:
    import keras

    keras.utils.set_random_seed(seed % 2**32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):  # it stays on for the process; on a CPU nothing needs it
            tf.config.experimental.enable_op_determinism()
    yield
