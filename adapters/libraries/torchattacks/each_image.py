"""The attacks of AutoAttack as torchattacks has them, except that no image depends on the others of its batch.

torchattacks draws for the batch: an image's start depends on its place in it, and later draws on how many images are
left. Under l2 its APGDT takes the first image's step for all. In these versions every image gets the draws that it
would get alone, and its own step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torchattacks
from torch.overrides import TorchFunctionMode

from sparring.adapters.libraries.torchattacks import bridge


class SameStart(TorchFunctionMode):
    """Within the context, the first random numbers that are drawn for a batch are one image's, repeated for all."""

    drawn = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.drawn and function in (torch.rand, torch.randn):
            self.drawn = True
            (shape,) = args
            return function(shape[1:]).expand(shape)
        return function(*args, **(kwargs or {}))


class APGD(torchattacks.APGD):  # type: ignore[misc]
    """Every image starts with the same random numbers."""

    def attack_single_run(self, x_in: Any, y_in: Any) -> Any:
        """One run from one start."""
        with SameStart():
            return super().attack_single_run(x_in, y_in)


class APGDT(torchattacks.APGDT):  # type: ignore[misc]
    """Every image starts with the same random numbers and has its own step.

    A run is APGD's, which has a step for each image; its DLR loss is the targeted one here.
    """

    loss = "dlr"

    def attack_single_run(self, x_in: Any, y_in: Any) -> Any:
        """One run from one start, towards one target class an image."""
        self.target_classes = self.get_logits(x_in).sort(dim=1)[1][:, -self.target_class]
        with SameStart():
            return torchattacks.APGD.attack_single_run(self, x_in, y_in)

    def dlr_loss(self, x: Any, y: Any) -> Any:
        """The targeted loss, (N,), of logits x (N, classes) and labels y (N,)."""
        return self.dlr_loss_targeted(x, y, self.target_classes)


class Square(torchattacks.Square):  # type: ignore[misc]
    """Every image gets the same random signs."""

    def random_choice(self, shape: Any) -> Any:
        """Random signs, one image's for all where the shape begins with the number of images."""
        return super().random_choice([1, *shape[1:]] if len(shape) == 4 else shape)


LIBRARY = replace(
    bridge.LIBRARY, session=partial(bridge.session, versions={"APGD": APGD, "APGDT": APGDT, "Square": Square})
)
