"""torchvision's classifiers. On their own, since importing torchvision takes as long as importing torch."""

from __future__ import annotations

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures.architecture import Builder

guard()

import torchvision.models  # noqa: E402
from torch import nn  # noqa: E402


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def from_torchvision(name: str) -> Builder:
    """The builder of torchvision's classifier of that name, with fresh weights; it takes 3 channels."""

    def build(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
        if input_shape[0] != 3:
            raise ValueError(f"torchvision's {name} takes 3 channels")
        # these two add classifiers for training, and then return a tuple
        extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **extra)
        return net

    return build


resnet18, resnet50 = from_torchvision("resnet18"), from_torchvision("resnet50")
mobilenet_v2 = mobilenet_v2_torchvision = from_torchvision("mobilenet_v2")
