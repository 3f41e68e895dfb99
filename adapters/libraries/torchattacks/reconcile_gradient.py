"""Reconciliations of torchattacks' gradient attacks: each takes one difference of the ledger away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.rewriting import Classes, attribute, cross_entropy_gradient, margins, starts_of

THEIRS = Classes("torchattacks", method="forward")


@contextmanager
def exact_cross_entropy(call: Call) -> Iterator[Call]:
    """A loss, summed over the batch, whose gradient is computed in float64."""
    import torch

    def exact(outputs: Any, labels: Any) -> Any:
        gradient = cross_entropy_gradient(outputs.detach().cpu().numpy(), labels.cpu().numpy())
        return (outputs * torch.from_numpy(gradient).to(outputs)).sum()

    with THEIRS.rewritten(call, ("nn.CrossEntropyLoss()", "exact"), exact=exact):
        yield call


@contextmanager
def shared_start(call: Call) -> Iterator[Call]:
    """The start that every library gets."""
    import torch

    loop, starts = "for _ in range(self.steps):", starts_of(call)

    def start(images: Any) -> Any:
        return torch.from_numpy(next(starts)).to(images)

    with THEIRS.rewritten(call, (loop, f"adv_images = start(images)\n        {loop}"), start=start):
        yield call


@contextmanager
def best_of_restarts(call: Call) -> Iterator[Call]:
    """There are as many runs as restarts. For each image the end with the lowest margin counts."""
    import torch

    cls, context = THEIRS.of(call), call.context
    assert context is not None

    def lowest(self: Any, images: Any, labels: Any) -> Any:
        ends = [super(cls, self).__call__(images, labels) for _ in range(context.params["restarts"])]
        logits = [self.get_logits(end).detach().cpu().numpy() for end in ends]
        best = np.argmin([margins(z, call.labels, call.targeted) for z in logits], axis=0)
        return torch.stack(ends)[torch.from_numpy(best), torch.arange(len(best))]

    with attribute(cls, "__call__", lowest):
        yield call


@contextmanager
def length_alone(call: Call) -> Iterator[Call]:
    """The gradient is divided by its length alone, in float64. A gradient of zeros stays zero."""
    changes = (
        ("torch.norm(grad.view(batch_size, -1), p=2, dim=1)", "torch.norm(grad.double().view(batch_size, -1), dim=1)"),
        ("+ self.eps_for_division", ""),
        ("grad = grad / grad_norms.view(batch_size, 1, 1, 1)", "grad = unit(grad, grad_norms)"),
    )

    def unit(gradient: Any, length: Any) -> Any:
        return (gradient / length.view(-1, 1, 1, 1)).nan_to_num(0).to(gradient)

    with THEIRS.rewritten(call, *changes, unit=unit):
        yield call


@contextmanager
def zero_gradient_stays_zero(call: Call) -> Iterator[Call]:
    """An image without a gradient adds nothing to its momentum."""

    def magnitude(gradient: Any) -> Any:
        none = (gradient == 0).all(dim=(1, 2, 3), keepdim=True)
        return gradient.abs() + none

    with THEIRS.rewritten(call, ("torch.abs(grad)", "magnitude(grad)"), magnitude=magnitude):
        yield call


l1_norm_of_gradients = THEIRS.lines(("torch.mean(", "torch.sum("))
"""Gradients are divided by the sum of their magnitudes, as in the source, not by the mean."""


@contextmanager
def overshoot_once(call: Call) -> Iterator[Call]:
    """DeepFool takes plain steps. Their sum is multiplied by 1 + overshoot once, at the end."""
    ends = "torch.cat(adv_images).detach()"
    longer = f"torch.clamp(images + (1 + self.overshoot) * ({ends} - images), min=0, max=1)"
    with (
        THEIRS.rewritten(call, ("(1 + self.overshoot) * delta", "delta"), method="_forward_indiv"),
        THEIRS.rewritten(
            call, (f"adv_images = {ends}", f"adv_images = {longer}"), method="forward_return_target_labels"
        ),
    ):
        yield call


@contextmanager
def only_candidates(call: Call) -> Iterator[Call]:
    """DeepFool considers the most probable classes of the image where it starts."""
    assert call.context is not None
    count = call.context.params["candidates"]
    first: dict[int, list[int]] = {}

    def candidates(scores: Any, index: int) -> list[int]:
        if index not in first:
            first[index] = np.argsort(-scores.detach().cpu().numpy(), kind="stable")[:count].tolist()
        return first[index]

    caller = ("self._forward_indiv(\n", "self._forward_indiv(idx,\n")
    signature = ("def _forward_indiv(self, image, label):", "def _forward_indiv(self, idx, image, label):")
    loop = (
        "for i in range(len(fs)) if i != label",
        "for i in range(len(fs)) if i != label and i in candidates(fs, idx)",
    )
    # the target class that it returns is then wrong, and nobody reads it
    with (
        THEIRS.rewritten(call, caller, method="forward_return_target_labels"),
        THEIRS.rewritten(call, signature, loop, method="_forward_indiv", candidates=candidates),
    ):
        yield call


@contextmanager
def no_step_to_a_tied_class(call: Call) -> Iterator[Call]:
    """A class whose score has the gradient of the own one has no boundary, and is never the nearest."""
    lengths, length = "torch.norm(nn.Flatten()(w_prime), p=2, dim=1)", "torch.norm(w_prime[hat_L], p=2)"
    changes = (
        (
            f"torch.abs(f_prime) / {lengths}",
            f"(torch.abs(f_prime) / {lengths}).nan_to_num(nan=torch.inf, posinf=torch.inf)",
        ),
        (f"({length} ** 2)", f"({length} ** 2).clamp(min=1e-38)"),
    )
    with THEIRS.rewritten(call, *changes, method="_forward_indiv"):
        yield call


@contextmanager
def search_for_c(call: Call) -> Iterator[Call]:
    """CW runs for one c after the other: tenfold until it succeeds, then halfway between failure and success."""
    import torch

    cls, context = THEIRS.of(call), call.context
    assert context is not None
    params = context.params

    def searching(self: Any, images: Any, labels: Any) -> Any:
        n = len(images)
        best, nearest = images.clone(), np.full(n, np.inf)
        c, low, high = np.full(n, float(self.c)), np.zeros(n), np.full(n, np.inf)
        for _ in range(params["search_steps"]):
            self.c = torch.from_numpy(c).to(images.device)
            x_adv = super(cls, self).__call__(images, labels).to(images)
            margin = margins(self.get_logits(x_adv).detach().cpu().numpy(), call.labels, call.targeted)
            succeeded = margin < -params["confidence"]
            distance = np.where(succeeded, (x_adv - images).flatten(1).norm(dim=1).cpu().numpy(), np.inf)
            better = distance < nearest
            best[torch.from_numpy(better)], nearest = x_adv[torch.from_numpy(better)], np.minimum(nearest, distance)
            low, high = np.where(succeeded, low, c), np.where(succeeded, c, high)
            c = np.where(np.isfinite(high), (low + np.where(np.isfinite(high), high, 0)) / 2, 10 * c)
        return best

    changes = (
        ("self.f(outputs, target_labels).sum()", "(self.c * self.f(outputs, target_labels)).sum()"),
        ("self.f(outputs, labels).sum()", "(self.c * self.f(outputs, labels)).sum()"),
        ("cost = L2_loss + self.c * f_loss", "cost = L2_loss + f_loss"),
    )
    with THEIRS.rewritten(call, *changes), attribute(cls, "__call__", searching):
        yield call


pixels_inside_the_box = THEIRS.lines(
    ("torch.clamp(x * 2 - 1, min=-1, max=1)", "0.999999 * torch.clamp(x * 2 - 1, min=-1, max=1)"),
    method="inverse_tanh_space",
)
"""CW starts pixels at 0 and 1 just inside, as the source's authors do: tanh never reaches 0 and 1."""


@contextmanager
def each_image_stops_by_itself(call: Call) -> Iterator[Call]:
    """CW ends for an image when its own objective fell by less than a ten-thousandth in a tenth of the steps."""
    assert call.context is not None
    objective = "current_L2 + self.c * self.f(outputs, target_labels if self.targeted else labels)"
    stop = """if cost.item() > prev_cost:
                    return best_adv_images
                prev_cost = cost.item()"""
    ends = """going, prev_cost = going & (objective <= 0.9999 * prev_cost), objective
                if not going.any():
                    return best_adv_images"""
    changes = (
        ("prev_cost = 1e10", "prev_cost, going = torch.inf, torch.ones(len(images), dtype=bool).to(self.device)"),
        ("optimizer.zero_grad()", f"objective = ({objective}).detach()\n            optimizer.zero_grad()"),
        ("mask = condition * (", "mask = condition * going * ("),
        (stop, ends if call.context.params["abort_early"] else "pass"),
    )
    with THEIRS.rewritten(call, *changes):
        yield call


@contextmanager
def success_with_confidence(call: Call) -> Iterator[Call]:
    """CW counts an image as a success when its margin is beyond the confidence."""
    import torch

    def beyond(self: Any, outputs: Any, labels: Any) -> Any:
        margin = margins(outputs.detach().cpu().numpy(), labels.cpu().numpy(), call.targeted)
        return torch.from_numpy(margin < -self.kappa).to(outputs)

    changes = (
        ("(pre == target_labels).float()", "beyond(self, outputs, target_labels)"),
        ("(pre != labels).float()", "beyond(self, outputs, labels)"),
    )
    with THEIRS.rewritten(call, *changes, beyond=beyond):
        yield call


tanh_in_float64 = THEIRS.lines(
    ("self.inverse_tanh_space(images)", "self.inverse_tanh_space(images.double())"),
    ("self.get_logits(adv_images)", "self.get_logits(adv_images.float())"),
)
"""CW's variable and its images in float64; the model gets them in float32."""


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32-mean": exact_cross_entropy,
    "linf-start-framework": shared_start,
    "l2-start-radius": shared_start,
    "one-start": best_of_restarts,
    "l2-gradient-plus-1e-10": length_alone,
    "zero-gradient-nan": zero_gradient_stays_zero,
    "look-ahead-by-mean": l1_norm_of_gradients,
    "deepfool-overshoot-per-step": overshoot_once,
    "deepfool-all-classes": only_candidates,
    "deepfool-tie-nan": no_step_to_a_tied_class,
    "cw-one-c": search_for_c,
    "cw-border-pixels-stay": pixels_inside_the_box,
    "cw-tanh-in-float32": tanh_in_float64,
    "cw-stops-when-the-batch-rises": each_image_stops_by_itself,
    "cw-success-without-confidence": success_with_confidence,
}
