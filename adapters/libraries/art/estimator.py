"""Any classifier as an ART estimator, in NumPy: the bridge for ART, which asks estimators for arrays."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin, NeuralNetworkMixin
from scipy.special import log_softmax, softmax

from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits

Floats = npt.NDArray[np.float32]


class AnswersNaN:
    """The classifier, whose logits of an image with a NaN are NaN, as a network's are, where it would refuse."""

    def __init__(self, inner: Classifier) -> None:
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes

    def logits(self, x: Images) -> Logits:
        """(N, classes)."""
        finite = np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        if finite.all():
            return self.inner.logits(x)
        scores = np.full((len(x), self.classes), np.nan, np.float32)
        scores[finite] = self.inner.logits(x[finite])
        return scores

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """As the classifier's."""
        return cast(Differentiable, self.inner).vjp(x, cotangent)


class LogitsEstimator(ClassifierMixin, NeuralNetworkMixin, BaseEstimator):  # type: ignore[misc]
    """What black-box attacks need: ``predict`` gives logits. It counts as a neural network, as some of them demand."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(model=classifier, clip_values=(0.0, 1.0), channels_first=True, preprocessing=None)
        self.nb_classes = classifier.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return cast(Classifier, self.model).input_shape

    def predict(self, x: npt.NDArray[Any], batch_size: int = 128, **kwargs: Any) -> Logits:
        """Logits (N, classes), at most ``batch_size`` images at a time.

        NaN for images with a NaN, as networks answer: SquareAttack asks for some (l2, images below 10 x 10).
        """
        x, logits = _float32(x), AnswersNaN(cast(Classifier, self.model)).logits
        if len(x) <= batch_size:
            return logits(x)
        return np.concatenate([logits(x[i : i + batch_size]) for i in range(0, len(x), batch_size)])

    def compute_loss(self, x: npt.NDArray[Any], y: npt.NDArray[Any], reduction: str = "none", **kwargs: Any) -> Floats:
        """Cross-entropy of each image, (N,), or its mean or sum. ``y``: one-hot, or class indices (N,)."""
        losses = -(log_softmax(self.predict(x, len(x)), axis=1) * _one_hot(y, self.nb_classes)).sum(axis=1)
        reduced: Floats = {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]
        return reduced

    def fit(self, x: Any, y: Any, batch_size: int = 128, nb_epochs: int = 20, **kwargs: Any) -> None:
        """Not done here: attacks don't train."""
        raise NotImplementedError("sparring's classifiers are not trained through ART")

    def get_activations(self, x: Any, layer: Any, batch_size: int = 128, framework: bool = False) -> Any:
        """Not there: the protocol has no layers."""
        raise NotImplementedError("sparring's classifiers have no layers to look into")


class ProbabilitiesEstimator(LogitsEstimator):
    """For the attacks that refuse logits."""

    def predict(self, x: npt.NDArray[Any], batch_size: int = 128, **kwargs: Any) -> Floats:
        """Probabilities (N, classes)."""
        probabilities: Floats = softmax(super().predict(x, batch_size), axis=1)
        return probabilities


class GradientsEstimator(ClassGradientsMixin, LossGradientsMixin, LogitsEstimator):  # type: ignore[misc]
    """What white-box attacks need as well; every gradient is one ``vjp``."""

    def loss_gradient(self, x: npt.NDArray[Any], y: npt.NDArray[Any], **kwargs: Any) -> Floats:
        """Gradient of each image's own cross-entropy, shape of x: no image's gradient depends on its batch."""
        x = _float32(x)
        classifier = cast(Differentiable, self.model)
        return classifier.vjp(x, softmax(classifier.logits(x), axis=1) - _one_hot(y, self.nb_classes))

    def class_gradient(self, x: npt.NDArray[Any], label: Any = None, **kwargs: Any) -> Floats:
        """Gradients of logits: (N, classes, C, H, W) where ``label`` is None; (N, 1, C, H, W) where it is one class, or
        an array of one for each image."""
        x = _float32(x)
        vjp = cast(Differentiable, self.model).vjp
        every = np.eye(self.nb_classes, dtype=np.float32)
        if label is None:
            return np.stack([vjp(x, np.repeat(row[None], len(x), axis=0)) for row in every], axis=1)
        of_each = np.broadcast_to(np.asarray(label, np.int64), len(x))
        return vjp(x, every[of_each])[:, None]


def estimator(classifier: Classifier) -> LogitsEstimator:
    """An estimator with the classifier's own capability: with gradients only where there are some."""
    return GradientsEstimator(classifier) if isinstance(classifier, Differentiable) else LogitsEstimator(classifier)


def _float32(x: npt.NDArray[Any]) -> Images:
    return np.ascontiguousarray(x, dtype=np.float32)


def _one_hot(y: npt.NDArray[Any], classes: int) -> Floats:
    if y.ndim == 2 and y.shape[1] == classes:
        return y.astype(np.float32, copy=False)
    return np.eye(classes, dtype=np.float32)[y.reshape(-1).astype(np.int64)]
