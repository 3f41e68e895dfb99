"""What takes torchattacks' differences in the ledger away: mostly a line or two of an attack's ``forward``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparring.adapters.library import Call, Reconcile
from sparring.adapters.rewriting import cross_entropy_gradient, rewritten, start_of


def _rewriting(call: Call, *changes: tuple[str, str], method: str = "forward", **known: Any) -> Any:
    import torchattacks

    return rewritten(getattr(torchattacks, call.target), method, *changes, **known)


@contextmanager
def exact_cross_entropy(call: Call) -> Iterator[Call]:
    """A loss, summed over the batch, whose gradient is computed in float64."""
    import torch

    def exact(outputs: Any, labels: Any) -> Any:
        gradient = cross_entropy_gradient(outputs.detach().cpu().numpy(), labels.cpu().numpy())
        return (outputs * torch.from_numpy(gradient).to(outputs)).sum()

    with _rewriting(call, ("nn.CrossEntropyLoss()", "exact"), exact=exact):
        yield call


@contextmanager
def shared_start(call: Call) -> Iterator[Call]:
    """The start that every library gets."""
    import torch

    loop = "for _ in range(self.steps):"
    change = (loop, f"adv_images = start.to(images)\n    {loop}")
    with _rewriting(call, change, start=torch.from_numpy(start_of(call))):
        yield call


@contextmanager
def length_alone(call: Call) -> Iterator[Call]:
    """The gradient divided by its length alone, which is taken in float64; where there is none, it stays zero."""
    changes = (
        ("torch.norm(grad.view(batch_size, -1), p=2, dim=1)", "torch.norm(grad.double().view(batch_size, -1), dim=1)"),
        ("+ self.eps_for_division", ""),
        ("grad = grad / grad_norms.view(batch_size, 1, 1, 1)", "grad = unit(grad, grad_norms)"),
    )

    def unit(gradient: Any, length: Any) -> Any:
        return (gradient / length.view(-1, 1, 1, 1)).nan_to_num(0).to(gradient)

    with _rewriting(call, *changes, unit=unit):
        yield call


@contextmanager
def zero_gradient_stays_zero(call: Call) -> Iterator[Call]:
    """An image without a gradient adds nothing to its momentum."""

    def magnitude(gradient: Any) -> Any:
        none = (gradient == 0).all(dim=(1, 2, 3), keepdim=True)
        return gradient.abs() + none

    with _rewriting(call, ("torch.abs(grad)", "magnitude(grad)"), magnitude=magnitude):
        yield call


@contextmanager
def l1_norm_of_gradients(call: Call) -> Iterator[Call]:
    """Gradients divided by the sum of their magnitudes, as the source has it, not by the mean."""
    with _rewriting(call, ("torch.mean(", "torch.sum(")):
        yield call


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32-mean": exact_cross_entropy,
    "linf-start-torch": shared_start,
    "l2-start-radius": shared_start,
    "l2-gradient-plus-1e-10": length_alone,
    "zero-gradient-nan": zero_gradient_stays_zero,
    "look-ahead-by-mean": l1_norm_of_gradients,
}
