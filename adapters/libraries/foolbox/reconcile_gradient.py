"""Reconciliations of Foolbox's gradient attacks: each takes one difference of the ledger away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.rewriting import (
    Classes,
    attribute,
    cross_entropy_gradient,
    margins,
    rewritten,
    starts_of,
    unit_length,
)

THEIRS = Classes("foolbox.attacks", method="run")


@contextmanager
def exact_cross_entropy(call: Call) -> Iterator[Call]:
    """A loss, summed over the batch, whose gradient is computed in float64."""
    import eagerpy

    def exact(logits: Any, labels: Any) -> Any:
        gradient = cross_entropy_gradient(logits.numpy(), labels.numpy())
        return (logits * eagerpy.from_numpy(logits, gradient)).sum()

    change = ("ep.crossentropy(logits, labels).sum()", "exact(logits, labels)")
    with rewritten(THEIRS.of(call), "get_loss_fn", change, exact=exact):
        yield call


def shared_start_on(*frameworks: str) -> Reconcile:
    """The start that every library gets, on the tensors of these frameworks."""

    @contextmanager
    def shared_start(call: Call) -> Iterator[Call]:
        import eagerpy

        own, starts = THEIRS.of(call).get_random_start, starts_of(call)

        def start(self: Any, x0: Any, epsilon: float) -> Any:
            if type(x0).__name__ not in frameworks:
                return own(self, x0, epsilon)
            return eagerpy.from_numpy(x0, next(starts))

        with attribute(THEIRS.of(call), "get_random_start", start):
            yield call

    return shared_start


@contextmanager
def length_alone(call: Call) -> Iterator[Call]:
    """The gradient is divided by its length alone, in float64."""
    import eagerpy

    def normalize(self: Any, gradients: Any, *, x: Any, bounds: Any) -> Any:
        return eagerpy.from_numpy(gradients, unit_length(gradients.numpy()))

    with attribute(THEIRS.of(call), "normalize", normalize):
        yield call


@contextmanager
def gradients_by_l1_norm(call: Call) -> Iterator[Call]:
    """The momentum sums gradients divided by their L1 norms, not their signs."""
    import eagerpy

    def normalize(self: Any, gradients: Any, *, x: Any, bounds: Any) -> Any:
        return eagerpy.from_numpy(gradients, unit_length(gradients.numpy(), 1))

    with attribute(THEIRS.of(call), "normalize", normalize):
        yield call


@contextmanager
def lowest_margin_of_restarts(call: Call) -> Iterator[Call]:
    """Of each image's ends the one with the lowest margin counts, not the first that succeeded."""
    import eagerpy
    from foolbox.attacks.base import Repeated

    def nearer(model: Any, new: Any, old: Any) -> Any:
        margin = [margins(model(images).numpy(), call.labels, call.targeted) for images in (new, old)]
        return eagerpy.from_numpy(new, margin[0] < margin[1])

    change = ("new_best = ep.logical_and(success[k], first)", "new_best = nearer(model, xpcs[k], best_xpcs[k])")
    with rewritten(Repeated, "__call__", change, nearer=nearer):
        yield call


overshoot_once = THEIRS.lines(
    ("x0 + (1.0 + self.overshoot) * p_total", "x0 + p_total"),
    ("restore_type(x)", "restore_type(ep.clip(x0 + (1.0 + self.overshoot) * (x - x0), min_, max_))"),
)
"""DeepFool takes plain steps. Their sum is multiplied by 1 + overshoot once, at the end."""


nothing_added_to_distances = THEIRS.lines(("distances = distances + 1e-4", "pass"))
"""DeepFool's steps to the boundary and no further."""


sum_inside_the_box = THEIRS.lines(("p_total += p_step", "p_total = ep.clip(x0 + p_total + p_step, min_, max_) - x0"))
"""DeepFool's steps add up from the clipped image, not beside it."""


@contextmanager
def exact_lengths(call: Call) -> Iterator[Call]:
    """Nothing is added to the lengths of gradients: a class with the gradient of the own one has no boundary."""
    import eagerpy

    def distances(self: Any, losses: Any, grads: Any) -> Any:
        length = np.linalg.norm(grads.numpy().reshape(*losses.shape, -1), axis=2)
        away = np.divide(abs(losses.numpy()), length, out=np.full_like(length, np.inf), where=length > 0)
        return eagerpy.from_numpy(losses, away)

    def perturbations(self: Any, distances: Any, grads: Any) -> Any:
        far = np.where(np.isfinite(distances.numpy()), distances.numpy(), 0)
        return eagerpy.from_numpy(grads, far.reshape(-1, 1, 1, 1) * unit_length(grads.numpy()))

    with (
        attribute(THEIRS.of(call), "get_distances", distances),
        attribute(THEIRS.of(call), "get_perturbations", perturbations),
    ):
        yield call


@contextmanager
def each_image_stops_by_itself(call: Call) -> Iterator[Call]:
    """CW ends for an image when its own objective fell by less than a ten-thousandth in a tenth of the steps."""
    sums = "loss = is_adv_loss.sum() + squared_norms.sum()"
    stop = """if not (loss <= 0.9999 * loss_at_previous_check):
                        break  # stop Adam if there has been no progress
                    loss_at_previous_check = loss.item()"""
    ends = """going &= objective[0] <= 0.9999 * loss_at_previous_check
                    loss_at_previous_check = objective[0]"""
    success = "found_advs_iter = is_adversarial(perturbed, logits)"
    step = "loss, (perturbed"
    changes = (
        (sums, f"{sums}\n            objective[:] = [(is_adv_loss + squared_norms).numpy()]"),
        ("loss_at_previous_check = np.inf", "loss_at_previous_check, going = np.inf, np.full((N,), True)"),
        (
            step,
            f"if not going.any(): break\n                on = ep.from_numpy(x, going.copy())\n                {step}",
        ),
        ("step % (np.ceil(self.steps / 10)) == 0", "step % max(self.steps // 10, 1) == 0"),
        (stop, ends),
        (success, f"{success}\n                found_advs_iter = ep.logical_and(found_advs_iter, on)"),
    )
    objective: list[Any] = []
    with THEIRS.rewritten(call, *changes, objective=objective):
        yield call


no_last_search_step = THEIRS.lines(("and self.binary_search_steps >= 10", "and False"))
"""The last search step of ten or more is like the others."""


distance_from_the_image = THEIRS.lines(("reconstsructed_x = to_model_space(x_attack)", "reconstsructed_x = x"))
"""CW measures the distance from the image itself, not from its rounded version out of the attack's space."""


tanh_in_float64 = THEIRS.lines(
    ("x_attack = to_attack_space(x)", "x = x.float64()\n        x_attack = to_attack_space(x)"),
    ("logits = model(x)\n", "logits = model(x.float32())\n"),
    ("loss = is_adv_loss.sum()", "is_adv_loss = is_adv_loss.float64()\n            loss = is_adv_loss.sum()"),
    ("ep.full(x, (N,), ep.inf)", "ep.full(x, (N,), ep.inf).float64()"),
    ("restore_type(best_advs)", "restore_type(best_advs.float32())"),
)
"""CW's variable and its images in float64; the model gets them in float32."""


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32": exact_cross_entropy,
    "linf-start-framework": shared_start_on("PyTorchTensor"),
    "linf-start-tensorflow": shared_start_on("TensorFlowTensor"),
    "l2-start-foolbox": shared_start_on("PyTorchTensor"),
    "l2-start-tensorflow": shared_start_on("TensorFlowTensor"),
    "first-success-of-restarts": lowest_margin_of_restarts,
    "l2-gradient-at-least-1e-12": length_alone,
    "momentum-of-signs": gradients_by_l1_norm,
    "deepfool-overshoot-in-the-loop": overshoot_once,
    "deepfool-distance-plus-1e-4": nothing_added_to_distances,
    "deepfool-sum-beside-the-box": sum_inside_the_box,
    "deepfool-length-plus-1e-8": exact_lengths,
    "cw-stops-with-the-batch": each_image_stops_by_itself,
    "cw-tanh-in-float32": tanh_in_float64,
    "cw-distance-from-inside": distance_from_the_image,
    "cw-last-c-is-the-upper-bound": no_last_search_step,
}
