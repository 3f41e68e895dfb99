"""What a training works on: a network of one framework with its optimizer."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Differentiable, Images, Labels

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
