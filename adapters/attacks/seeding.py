"""One seed for every random number generator that an attack library may draw from."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded(seed: int, *, of_tensorflow: bool = True) -> Iterator[None]:
    """Within the context Python's, NumPy's, torch's and TensorFlow's global generators start from ``seed``.

    Afterwards they go on as if nothing had happened. Only TensorFlow's does not, for its state can't be read. No
    framework is imported for this. Seeding TensorFlow makes it prepare every function again, which takes longer than a
    batch: callers that seed often and draw nothing from it pass ``of_tensorflow=False``.
    """
    torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow") if of_tensorflow else None
    # the state is set around the libraries' own calls, which draw from NumPy's legacy global generator
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch_states = (torch.get_rng_state(), torch.cuda.get_rng_state_all()) if torch else None
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    if torch:
        torch.manual_seed(seed)
    if tensorflow:
        tensorflow.random.set_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if torch and torch_states:
            torch.set_rng_state(torch_states[0])
            torch.cuda.set_rng_state_all(torch_states[1])
