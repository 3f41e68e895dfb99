"""An ordinary mistake, kept as a model: it clamps its input to [0, 1], where the images already lie.

The clamp changes no output. But torch has changed what the gradient of a clamp is at exactly 0 and 1, and with it what
every attack by gradients finds on such a model: the study ``versions-torch`` shows in which release.
"""

from __future__ import annotations

from collections import OrderedDict

from sparring.models.architectures.torch_networks import cnn

from torch import Tensor, nn  # isort: skip  # that module guards torch's import


class Clamp(nn.Module):
    """Pixels below 0 become 0, those above 1 become 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


def digits_cnn() -> nn.Module:
    """The network ``cnn`` behind a clamp, (N, 1, 8, 8) -> (N, 10). Its weights bear the names of ``cnn``'s."""
    return nn.Sequential(OrderedDict({"clamp": Clamp(), **dict(cnn((1, 8, 8), 10).named_children())}))
