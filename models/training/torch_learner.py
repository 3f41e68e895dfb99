"""A torch module that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.models.spec import TrainSpec
from sparring.models.training.learner import Targets, Weights

guard()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from sparring.adapters.frameworks.pytorch import TorchClassifier, choose_device, evaluating, exactly  # noqa: E402


class TorchLearner:
    """A ``Learner`` of a torch module, trained in place on ``device`` (auto, cpu, cuda).

    ``before`` is what the module wants done to images of the box, ``options`` the keyword arguments of ``wrap`` that
    say the same.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: TrainSpec,
        input_shape: tuple[int, ...],
        before: Preprocessing,
        options: Mapping[str, Any],
        device: str,
    ) -> None:
        self.device = choose_device(device)
        self.network = network.to(self.device).train()
        self.l2, self.before, self._options = spec.l2, before, {**options, "input_shape": tuple(input_shape)}
        self.trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.kernels = [p for name, p in network.named_parameters() if p.requires_grad and _is_kernel(name, p)]
        self.optimizer: torch.optim.Optimizer
        if spec.optimizer == "adam":
            self.optimizer = torch.optim.Adam(network.parameters(), lr=spec.lr, betas=(0.9, 0.999), eps=1e-8)
        else:
            self.optimizer = torch.optim.SGD(network.parameters(), lr=spec.lr, momentum=0.9)
        self._view: Differentiable | None = None

    def classifier(self) -> Differentiable:
        """A live view of the weights, in evaluation mode."""
        if self._view is None:
            self._view = TorchClassifier(self.network, device=str(self.device), **self._options)
        return self._view

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
        """One update; see ``Learner``."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        images, wanted = (torch.from_numpy(a).to(self.device) for a in (self.before.apply(x), targets))
        self.optimizer.zero_grad(set_to_none=True)
        clean = self._shake(weight_noise)
        logits = self.network(images)
        scaled = logits if temperature == 1 else logits / temperature
        loss = cross_entropy(scaled, wanted)
        # a sum apart from the loss that is reported, which is the cross-entropy
        whole = loss + self.l2 * sum(kernel.square().sum() for kernel in self.kernels) if self.l2 else loss
        whole.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter, value in zip(self.trainable, clean, strict=False):
                parameter.copy_(value)
            if gradient_noise:
                for parameter in self.trainable:
                    if parameter.grad is not None:
                        parameter.grad.add_(torch.randn_like(parameter), alpha=gradient_noise)
        self.optimizer.step()
        classes = wanted if wanted.ndim == 1 else wanted.argmax(1)
        return float(loss.detach()), float((logits.detach().argmax(1) == classes).float().mean())

    def gradient(self, x: Images, y: Labels) -> Images:
        """Of the cross-entropy with respect to the images, in evaluation mode; see ``Learner``."""
        leaf = torch.from_numpy(self.before.apply(x)).to(self.device).requires_grad_()
        with evaluating(self.network), exactly(self.device):
            loss = cross_entropy(self.network(leaf), torch.from_numpy(y).to(self.device), reduction="sum")
            gradient = torch.autograd.grad(loss, leaf)[0]
        return self.before.transposed(gradient.cpu().numpy())

    def weights(self) -> Weights:
        """A copy of the module's state."""
        return [np.array(value.detach().cpu().numpy()) for value in self.network.state_dict().values()]

    def set_weights(self, weights: Weights) -> None:
        """Put a state back."""
        names = self.network.state_dict().keys()
        self.network.load_state_dict({k: torch.from_numpy(w) for k, w in zip(names, weights, strict=True)})

    def finish(self) -> nn.Module:
        """The module on the CPU, in evaluation mode."""
        self.optimizer.zero_grad(set_to_none=True)
        return self.network.to("cpu").eval()

    def _shake(self, std: float) -> list[Tensor]:
        """Add Gaussian noise to the weights; what they were before, or nothing where there is no noise."""
        if not std:
            return []
        with torch.no_grad():
            clean = [parameter.clone() for parameter in self.trainable]
            for parameter in self.trainable:
                parameter.add_(torch.randn_like(parameter), alpha=std)
        return clean


def _is_kernel(name: str, parameter: Tensor) -> bool:
    """What Keras calls a kernel: no bias, no scale of a normalization, and of a recurrent cell what its inputs meet."""
    last = name.rpartition(".")[2]
    return parameter.ndim >= 2 and (last == "weight" or last.startswith("weight_ih"))
