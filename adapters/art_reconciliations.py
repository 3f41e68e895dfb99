"""What takes ART's differences in the ledger away, on its own estimators of torch and TensorFlow, and on ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from sparring.adapters.library import Call, Reconcile
from sparring.adapters.rewriting import attribute, cross_entropy_gradient, rewritten, start_of, unit_length


def _pgd_classes() -> tuple[Any, Any, Any]:
    """What does the work of its gradient attacks: in NumPy (FGSM too, and all on our estimator), torch, TensorFlow."""
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

    from sparring.adapters.art_estimator import GradientsEstimator

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

    start = start_of(call) - call.x

    def sphere(nb_points: int, nb_dims: int, radius: float, norm: float) -> Any:
        return start.reshape(nb_points, nb_dims)

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


def _clipped(what: str, by: str) -> tuple[str, str]:
    return f"x_adv = {what}", f"x_adv = {by}({what}, *self.estimator.clip_values)"


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


RECONCILIATIONS: dict[str, Reconcile] = {
    "cross-entropy-float32": exact_cross_entropy,
    "linf-start-numpy": shared_start,
    "l2-start-art": shared_start,
    "l2-box-before-ball": ball_before_box,
    "l2-gradient-length-float32": exact_length,
}
