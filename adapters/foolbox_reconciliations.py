"""What takes Foolbox's differences in the ledger away: mostly one method of an attack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparring.adapters.library import Call, Reconcile
from sparring.adapters.rewriting import attribute, cross_entropy_gradient, rewritten, start_of, unit_length


def _class(call: Call) -> Any:
    import foolbox

    return getattr(foolbox.attacks, call.target)


@contextmanager
def exact_cross_entropy(call: Call) -> Iterator[Call]:
    """A loss, summed over the batch, whose gradient is computed in float64."""
    import eagerpy

    def exact(logits: Any, labels: Any) -> Any:
        gradient = cross_entropy_gradient(logits.numpy(), labels.numpy())
        return (logits * eagerpy.from_numpy(logits, gradient)).sum()

    change = ("ep.crossentropy(logits, labels).sum()", "exact(logits, labels)")
    with rewritten(_class(call), "get_loss_fn", change, exact=exact):
        yield call


@contextmanager
def shared_start(call: Call) -> Iterator[Call]:
    """The start that every library gets."""
    import eagerpy

    def start(self: Any, x0: Any, epsilon: float) -> Any:
        return eagerpy.from_numpy(x0, start_of(call))

    with attribute(_class(call), "get_random_start", start):
        yield call


@contextmanager
def length_alone(call: Call) -> Iterator[Call]:
    """The gradient divided by its length alone, which is taken in float64."""
    import eagerpy

    def normalize(self: Any, gradients: Any, *, x: Any, bounds: Any) -> Any:
        return eagerpy.from_numpy(gradients, unit_length(gradients.numpy()))

    with attribute(_class(call), "normalize", normalize):
        yield call


@contextmanager
def gradients_by_l1_norm(call: Call) -> Iterator[Call]:
    """The momentum sums gradients divided by their L1 norms, not their signs."""
    import eagerpy

    def normalize(self: Any, gradients: Any, *, x: Any, bounds: Any) -> Any:
        return eagerpy.from_numpy(gradients, unit_length(gradients.numpy(), 1))

    with attribute(_class(call), "normalize", normalize):
        yield call


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32": exact_cross_entropy,
    "linf-start-torch": shared_start,
    "linf-start-tensorflow": shared_start,
    "l2-start-foolbox": shared_start,
    "l2-gradient-at-least-1e-12": length_alone,
    "momentum-of-signs": gradients_by_l1_norm,
}
