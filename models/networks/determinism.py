"""The same numbers every time: everything random in a framework follows from a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from sparring.adapters.attacks import seeding
from sparring.adapters.frameworks.coexistence import guard


@contextmanager
def seeded(seed: int, framework: str) -> Iterator[None]:
    """Inside, everything random in ``torch`` or ``keras`` follows from the seed and operations are deterministic.

    Build the network inside as well: its initial weights are drawn here. On leaving, the generators of Python, NumPy
    and torch and torch's determinism are as before; TensorFlow's global seed stays.
    """
    guard()
    with ExitStack() as stack:
        if framework == "torch" or os.environ.get("KERAS_BACKEND") == "torch":
            stack.enter_context(_deterministic_torch())
        stack.enter_context(seeding.seeded(seed, of_tensorflow=False))
        if framework != "torch":
            _seed_keras(seed)
        yield


# --- the same numbers every time ------------------------------------------------------------------------------------


def placed(device: str, family: str) -> AbstractContextManager[Any]:
    """Where Keras works: on the CPU if that is asked for; torch's modules are moved instead."""
    if family == "torch" or device != "cpu":
        return nullcontext()
    import keras

    place: AbstractContextManager[Any] = keras.device("cpu")
    return place


@contextmanager
def _deterministic_torch() -> Iterator[None]:
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        # the weights would depend on how many cores the machine has; and where other processes keep these busy,
        # threads that wait for each other made a small network train 50 times slower
        torch.set_num_threads(1)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(threads)


def _seed_keras(seed: int) -> None:
    """Seed Keras's own generator, which draws initial weights and dropout, and TensorFlow."""
    import keras

    keras.utils.set_random_seed(seed % 2**32)
    random.seed(seed)  # Keras has seeded it with fewer bits
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):  # it stays on for the process; on a CPU nothing needs it
            tf.config.experimental.enable_op_determinism()
