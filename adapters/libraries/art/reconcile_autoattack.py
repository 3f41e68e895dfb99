"""The reconciliation of ART's AutoAttack: the source's four attacks in ART's loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.own.autoattack import opened_stages
from sparring.adapters.libraries.rewriting import attribute
from sparring.adapters.protocol import Images, Logits


class OfEstimator:
    """ART's estimator of a torch module, as a classifier of the protocol."""

    framework = "torch"

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.input_shape, self.classes = estimator.input_shape, estimator.nb_classes

    def logits(self, x: Images) -> Logits:
        """(N, classes). Not by ``predict``: its data loader draws from torch's generator, which the attacks use."""
        import torch

        with torch.no_grad():
            scores: Logits = self._forward(torch.tensor(x, device=self.estimator.device)).cpu().numpy()
        return scores

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The gradient of (logits * cotangent).sum(), (N, C, H, W)."""
        import torch

        device = self.estimator.device
        images = torch.tensor(x, device=device, requires_grad=True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._forward(images), images, torch.tensor(cotangent, device=device))
        pulled: Images = gradient.cpu().numpy()
        return pulled

    def _forward(self, images: Any) -> Any:
        logits = self.estimator.model(images)
        return logits[-1] if isinstance(logits, list) else logits


class Stage:
    """One attack of the source, as ART's AutoAttack runs its stages."""

    targeted = False

    def __init__(self, craft: Any, seed: int) -> None:
        self.craft, self.seed = craft, seed

    def generate(self, x: Images, y: npt.NDArray[Any], **kwargs: Any) -> Images:
        """Adversarial images of x; y is one-hot, (N, classes)."""
        images: Images = self.craft(x, y.argmax(axis=1), self.seed)
        return images


@contextmanager
def the_source_s_stages(call: Call) -> Iterator[Call]:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square in place of ART's, each once."""
    from art.attacks import evasion

    assert call.context is not None, "only canonical attacks are reconciled"
    assert call.canonical is not None
    params, norm, seed = call.context.params, call.canonical.norm, call.context.seed

    with opened_stages(norm, params, call.context.classes, seed) as opened:

        class Stages(evasion.AutoAttack):  # type: ignore[misc]
            def __init__(self, estimator: Any, **kwargs: Any) -> None:
                crafts = opened(OfEstimator(estimator))
                super().__init__(estimator, **{**kwargs, "attacks": [Stage(craft, seed) for craft in crafts]})

        with attribute(evasion, "AutoAttack", Stages):
            yield call


RECONCILIATIONS: dict[str, Reconcile] = {"autoattack-other-stages": the_source_s_stages}
