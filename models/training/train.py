"""From an architecture to trained weights: the plain training, and what defenses make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Images, Labels
from sparring.models.data.pool import Progress
from sparring.models.networks.determinism import placed, seeded
from sparring.models.spec import TrainSpec
from sparring.models.training.learner import Learner
from sparring.models.training.loop import Begun, Training, train


def trained(
    build: Callable[[], Any],
    framework: str,
    x: Images,
    y: Labels,
    spec: TrainSpec,
    *,
    defenses: Sequence[tuple[str, Callable[[Training], Training]]] = (),
    begun: Begun | None = None,
    before: Preprocessing,
    options: Mapping[str, Any],
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train the network that ``build`` makes on images of the box (N, C, H, W) and labels (N,).

    ``framework`` is ``torch`` or ``keras-`` with the backend that this process has. ``options`` are the keyword
    arguments of ``wrap`` (range, normalization, layout); ``before`` says the same for the training. ``defenses`` are
    the training defenses, each with its label, in order. Where the training begins with the one without defenses,
    ``begun`` gives the weights of that one.

    Returns the network and its facts: ``history``, ``seconds`` and ``defenses`` (their labels). Raises ``InputError``
    if the loss stops being finite.
    """
    begin = time.perf_counter()
    family = framework.partition("-")[0]
    with seeded(spec.seed, family), placed(device, family):
        training = plain = _plain(build, family, x, y, spec, before, options, device, progress)
        for _, change in defenses:
            training = change(training)
        learner, history = train(training, (plain, begun) if begun and training is not plain else None)
        network = learner.finish()
    labels = [label for label, _ in defenses]
    return network, {"history": list(history), "seconds": time.perf_counter() - begin, "defenses": labels}


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
