"""Reconciliations of ART's gradient attacks, on its estimators of torch and TensorFlow, and on ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

THEIRS = Classes("art.attacks.evasion", method="generate")


def _pgd_classes() -> tuple[Any, Any, Any]:
    """The classes of ART's gradient attacks: in NumPy (FGSM too, and all on our estimator), torch, TensorFlow."""
    from art.attacks.evasion.fast_gradient import FastGradientMethod
    from art.attacks.evasion.projected_gradient_descent import (
        projected_gradient_descent_pytorch as torch,
    )
    from art.attacks.evasion.projected_gradient_descent import (
        projected_gradient_descent_tensorflow_v2 as tensorflow,
    )

    return (
        FastGradientMethod,
        torch.ProjectedGradientDescentPyTorch,
        tensorflow.ProjectedGradientDescentTensorFlowV2,
    )


@contextmanager
def exact_cross_entropy(call: Call) -> Iterator[Call]:
    """A loss, summed over the batch, whose gradient is computed in float64."""
    from art.estimators.classification import PyTorchClassifier, TensorFlowV2Classifier

    from sparring.adapters.libraries.art.estimator import GradientsEstimator

    def of_torch(outputs: Any, labels: Any) -> Any:
        import torch

        gradient = cross_entropy_gradient(outputs.detach().cpu().numpy(), labels.cpu().numpy())
        return (outputs * torch.from_numpy(gradient).to(outputs)).sum()

    def of_tensorflow(labels: Any, outputs: Any) -> Any:
        import tensorflow

        gradient = cross_entropy_gradient(outputs.numpy(), np.asarray(labels))
        return tensorflow.reduce_sum(outputs * gradient)

    def bridged(self: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        x = np.ascontiguousarray(x, np.float32)
        return self.model.vjp(x, cross_entropy_gradient(self.model.logits(x), y))

    with ExitStack() as stack:
        for cls, change, exact in (
            (PyTorchClassifier, ("self._loss(", "exact("), of_torch),
            (TensorFlowV2Classifier, ("self._loss_object(y_input", "exact(y_input"), of_tensorflow),
        ):
            stack.enter_context(rewritten(cls, "loss_gradient", change, exact=exact))
        stack.enter_context(attribute(GradientsEstimator, "loss_gradient", bridged))
        yield call


@contextmanager
def shared_start(call: Call) -> Iterator[Call]:
    """The start that every library gets."""
    import importlib

    starts = starts_of(call)

    def sphere(nb_points: int, nb_dims: int, radius: float, norm: float) -> Any:
        return (next(starts) - call.x).reshape(nb_points, nb_dims)

    with ExitStack() as stack:
        for cls in _pgd_classes():
            stack.enter_context(attribute(importlib.import_module(cls.__module__), "random_sphere", sphere))
        yield call


@contextmanager
def ball_before_box(call: Call) -> Iterator[Call]:
    """Each step is projected onto the ball and then clipped to the box, not the other way round."""
    numpy, torch, tensorflow = _pgd_classes()
    end = "x_init[batch_index_1:batch_index_2] + perturbation"
    with ExitStack() as stack:
        for cls, name, change in (
            (numpy, "_apply_perturbation", ("x = np.clip(x, clip_min, clip_max)", "pass")),
            (numpy, "_compute", (f"= {end}", f"= np.clip({end}, *self.estimator.clip_values)")),
            (torch, "_apply_perturbation_pytorch", ("if self.estimator.clip_values is not None", "if False")),
            (torch, "_compute_pytorch", _clipped("perturbation + x_init", "torch.clamp")),
            (tensorflow, "_apply_perturbation", ("if self.estimator.clip_values is not None", "if False")),
            (tensorflow, "_compute_tf", _clipped("tf.add(perturbation, x_init)", "tf.clip_by_value")),
        ):
            stack.enter_context(rewritten(cls, name, change))
        yield call


def _clipped(point: str, clip: str) -> tuple[str, str]:
    return f"x_adv = {point}", f"x_adv = {clip}({point}, *self.estimator.clip_values)"


@contextmanager
def exact_length(call: Call) -> Iterator[Call]:
    """The length by which a gradient is divided, taken in float64."""
    numpy, torch, tensorflow = _pgd_classes()

    def of_torch(gradients: Any) -> Any:
        import torch

        return torch.from_numpy(unit_length(gradients.cpu().numpy())).to(gradients)

    def of_tensorflow(gradients: Any) -> Any:
        import tensorflow

        return tensorflow.constant(unit_length(gradients.numpy()))

    by_torch = "(grad_2d.abs() * q_norm.where(q_norm == 0, 1 / q_norm))"
    by_tensorflow = "(tf.abs(grad_2d) * tf.where(q_norm == 0, 0.0, 1 / q_norm))"
    with ExitStack() as stack:
        for cls, name, old, unit in (
            (numpy, "_compute_perturbation", "(np.abs(grad_2d) / np.where(q_norm, q_norm, np.inf))", unit_length),
            (torch, "_compute_perturbation_pytorch", by_torch, of_torch),
            (tensorflow, "_compute_perturbation", by_tensorflow, of_tensorflow),
        ):
            stack.enter_context(rewritten(cls, name, (old, "abs(unit(grad_2d))"), unit=unit))
        yield call


@contextmanager
def lowest_margin_of_restarts(call: Call) -> Iterator[Call]:
    """Of each image's ends the one with the lowest margin counts, not the last whose prediction has changed."""
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_numpy import (
        ProjectedGradientDescentNumpy,
    )

    def nearer(best: Any, estimator: Any, clean: Any, labels: Any, x_adv: Any, targeted: bool, batch_size: int) -> Any:
        new, old = (
            margins(estimator.predict(np.asarray(x), batch_size=batch_size), np.asarray(labels), targeted)
            for x in (x_adv, best)
        )
        return new < old

    change = ("compute_success_array(", "nearer(adv_x[batch_index_1:batch_index_2], ")
    with ExitStack() as stack:
        for cls in (ProjectedGradientDescentNumpy, *_pgd_classes()[1:]):
            stack.enter_context(rewritten(cls, "generate", change, nearer=nearer))
        yield call


@contextmanager
def exact_lengths(call: Call) -> Iterator[Call]:
    """Nothing is added to the lengths of gradients: a class with the gradient of the own one has no boundary."""
    from art.attacks.evasion import DeepFool

    def over(top: Any, bottom: Any, otherwise: float) -> Any:
        return np.divide(top, bottom, out=np.full_like(bottom, otherwise), where=bottom > 0)

    changes = (
        ("tol = 10e-8", "tol = np.float32(0)"),
        ("np.abs(f_diff) / norm", "over(np.abs(f_diff), norm, np.inf)"),
        ("absolute1 / pow1", "over(absolute1, pow1, 0)"),
    )
    with rewritten(DeepFool, "generate", *changes, over=over):
        yield call


own_score_subtracted = THEIRS.lines(
    ("f_batch[np.arange(len(f_batch)), labels_indices]", "f_batch[np.arange(len(f_batch)), fk_hat]")
)
"""DeepFool subtracts the score of the own class, not that of another one with a wrong index."""


@contextmanager
def adam(call: Call) -> Iterator[Call]:
    """CW takes Adam's step in place of its line search, until an image's objective no longer falls."""
    from art.attacks.evasion import CarliniL2Method

    context = call.context
    assert context is not None
    every = max(context.params["steps"] // 10, 1)
    state: dict[str, Any] = {}

    def step(descent: Any, t: int, loss: Any) -> Any:
        if t == 0:
            state.update(
                m=np.zeros_like(descent), v=np.zeros_like(descent), before=np.inf, going=np.full(len(loss), True)
            )
        if context.params["abort_early"] and t % every == 0:
            state["going"] &= loss <= 0.9999 * state["before"]
            state["before"] = loss.copy()
        state["m"] = 0.9 * state["m"] + 0.1 * descent
        state["v"] = 0.999 * state["v"] + 0.001 * descent**2
        m, v = state["m"] / (1 - 0.9 ** (t + 1)), state["v"] / (1 - 0.999 ** (t + 1))
        return np.where(state["going"].reshape(-1, 1, 1, 1), m / (np.sqrt(v) + 1e-8), 0)

    changes = (
        ("# perform line search to optimize perturbation", "perturbation_tanh = step(perturbation_tanh, i_iter, loss)"),
        ("best_lr = np.zeros(x_batch.shape[0])", "best_lr = learning_rate.copy()"),
        ("range(self.max_halving)", "range(0)"),
        ("range(self.max_doubling)", "range(0)"),
        ("learning_rate[active] *= 2", "pass"),
    )
    with rewritten(CarliniL2Method, "generate", *changes, step=step):
        yield call


tenfold = THEIRS.lines(
    (
        "c_current[~overall_attack_success & c_double] *= 2",
        "c_current[~overall_attack_success & c_double] *= 10",
    )
)
"""CW's c grows tenfold until it succeeds."""


@contextmanager
def halfway(call: Call) -> Iterator[Call]:
    """CW's c, once it has succeeded, goes halfway between the last failure and the last success."""
    from art.attacks.evasion import CarliniL2Method

    succeeded = "c_double[overall_attack_success] = False"
    changes = (
        ("c_lower_bound = np.zeros(x_batch.shape[0])", "c_lower_bound, upper = 0 * c_current, np.inf * c_current"),
        (succeeded, f"{succeeded}; upper = np.where(overall_attack_success, c_current, upper)"),
        ("c_current1 = (c_current - c_lower_bound)", "c_current1 = (upper - c_current)"),
        ("c_old = c_current\n", "c_old = c_current.copy()\n"),
    )
    with rewritten(CarliniL2Method, "generate", *changes):
        yield call


@contextmanager
def no_gradient_past_the_hinge(call: Call) -> Iterator[Call]:
    """CW's term for the class has no gradient where it is 0: there only the distance counts."""
    from art.attacks.evasion import CarliniL2Method

    def active(self: Any, logits: Any, target: Any) -> Any:
        return margins(logits, target, self.targeted) > -self.confidence

    change = ("c_mult = c_weight", "c_mult = c_weight * active(self, z_logits, target)")
    with rewritten(CarliniL2Method, "_loss_gradient", change, active=active):
        yield call


last_step_not_taken = THEIRS.lines(("best_lr[active] > 0", "(best_lr[active] > 0) & (i_iter + 1 < self.max_iter)"))
"""CW looks at one image a step, before the step. The image after the last step doesn't count."""


@contextmanager
def tanh_in_float64(call: Call) -> Iterator[Call]:
    """CW's variable and its images in float64; the model gets them in float32."""
    from art.attacks.evasion import CarliniL2Method

    change = (
        "x_batch = x_adv[batch_index_1:batch_index_2]",
        "x_batch = x_adv[batch_index_1:batch_index_2].astype(float)",
    )
    gets = ("self.estimator.class_gradient(x_adv,", "self.estimator.class_gradient(x_adv.astype(ART_NUMPY_DTYPE),")
    with rewritten(CarliniL2Method, "generate", change), rewritten(CarliniL2Method, "_loss_gradient", gets):
        yield call


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32": exact_cross_entropy,
    "linf-start-numpy": shared_start,
    "l2-start-art": shared_start,
    "last-success-of-restarts": lowest_margin_of_restarts,
    "l2-box-before-ball": ball_before_box,
    "l2-gradient-length-float32": exact_length,
    "deepfool-length-plus-1e-7": exact_lengths,
    "deepfool-other-score": own_score_subtracted,
    "cw-line-search": adam,
    "cw-gradient-past-the-hinge": no_gradient_past_the_hinge,
    "cw-tanh-in-float32": tanh_in_float64,
    "cw-one-image-more": last_step_not_taken,
    "cw-doubles-c": tenfold,
    "cw-search-stands-still": halfway,
}
