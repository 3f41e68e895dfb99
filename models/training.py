"""Training a network: one loop for both frameworks, the same batches, and the same weights every time."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np

from sparring.adapters.coexistence import guard
from sparring.adapters.errors import InputError
from sparring.adapters.preprocessing import Preprocessing
from sparring.adapters.protocol import Images, Labels
from sparring.models.sources import Progress
from sparring.models.spec import TrainSpec

TRAINING_VERSION = 1
"""Part of the identity of trained weights: raised by every change that changes the weights that come out."""

Step: TypeAlias = Callable[[Images, Labels], float]
"""One update of the weights on a batch; gives the mean cross-entropy of the batch."""


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


def train_torch(
    module: Any, x: Images, y: Labels, spec: TrainSpec, *, before: Preprocessing, device: str, progress: Progress | None
) -> None:
    """Train a torch module in place on images of the box (N, C, H, W), seen through ``before``, and labels (N,).

    It is trained on ``device`` (one of torch's) and comes back on the CPU, in evaluation mode. Raises ``InputError`` if
    the loss stops being finite.
    """
    guard()
    import torch
    from torch.nn.functional import cross_entropy

    module.to(device).train()
    optimizer: torch.optim.Optimizer
    if spec.optimizer == "adam":
        optimizer = torch.optim.Adam(module.parameters(), lr=spec.lr, betas=(0.9, 0.999), eps=1e-8)
    else:
        optimizer = torch.optim.SGD(module.parameters(), lr=spec.lr, momentum=0.9)

    def step(images: Images, labels: Labels) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(module(torch.from_numpy(images).to(device)), torch.from_numpy(labels).to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    _loop(step, x, y, spec, before, progress)
    module.to("cpu").eval()


def train_keras(
    model: Any, x: Images, y: Labels, spec: TrainSpec, *, before: Preprocessing, progress: Progress | None
) -> None:
    """Train a Keras model in place, as ``train_torch`` does; ``before`` puts the channels last."""
    import keras

    if spec.optimizer == "adam":
        optimizer = keras.optimizers.Adam(spec.lr, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    else:
        optimizer = keras.optimizers.SGD(spec.lr, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA would compile for longer than most of these networks train; on JAX, where every operation is compiled, a whole
    # step takes it 2 s and its single operations 20 s
    model.compile(optimizer=optimizer, loss=loss, jit_compile=keras.backend.backend() == "jax")

    def step(images: Images, labels: Labels) -> float:
        model.reset_metrics()  # else Keras gives the mean since the first batch
        return float(model.train_on_batch(images, labels))

    _loop(step, x, y, spec, before, progress)


def _loop(step: Step, x: Images, y: Labels, spec: TrainSpec, before: Preprocessing, progress: Progress | None) -> None:
    rng = np.random.default_rng(spec.seed)
    starts = range(0, len(x), spec.batch_size)
    # a last batch of one has no variance for batch normalisation to divide by
    starts = starts[:-1] if len(x) % spec.batch_size == 1 and len(starts) > 1 else starts
    for epoch in range(spec.epochs):
        order = rng.permutation(len(x))
        total = 0.0
        for i, start in enumerate(starts):
            chosen = order[start : start + spec.batch_size]
            total += step(before.apply(AUGMENT[spec.augment](x[chosen], rng)), y[chosen])
            if not math.isfinite(total):
                raise InputError(
                    f"train: the loss is no longer finite in epoch {epoch + 1}: lower train.lr ({spec.lr:g})"
                )
            if progress:
                what = f"epoch {epoch + 1}/{spec.epochs}, loss {total / (i + 1):.3f}"
                progress(epoch * len(starts) + i + 1, spec.epochs * len(starts), what)


def _shift(x: Images, rng: np.random.Generator) -> Images:
    """Each image moved by up to 10 % of its sides, bilinear, its border pixels repeated."""
    from scipy.ndimage import shift

    offsets = rng.uniform(-0.1, 0.1, (len(x), 2)) * x.shape[2:]
    moved = [shift(image, (0, *offset), order=1, mode="nearest") for image, offset in zip(x, offsets, strict=True)]
    return np.stack(moved).clip(0, 1)


def _flip_crop(x: Images, rng: np.random.Generator) -> Images:
    """Each image mirrored or not, then cut at random from itself padded by an eighth of its sides with black."""
    height, width = x.shape[2:]
    above, left = height // 8, width // 8
    x = np.where(rng.random(len(x))[:, None, None, None] < 0.5, x[..., ::-1], x)
    padded = np.pad(x, ((0, 0), (0, 0), (above, above), (left, left)))
    tops, lefts = rng.integers(0, 2 * above + 1, len(x)), rng.integers(0, 2 * left + 1, len(x))
    return np.stack([p[:, t : t + height, w : w + width] for p, t, w in zip(padded, tops, lefts, strict=True)])


AUGMENT: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "none": lambda x, _: x,
    "shift": _shift,
    "flip-crop": _flip_crop,
}


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
