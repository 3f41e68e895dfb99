"""The one protocol between classifiers and attack libraries, and the laws that it keeps.

Every foreign model enters sparring through an adapter that speaks this protocol, and every attack library sees a
classifier through it (or through a *native door*, below). ``conformance/classifiers.py`` checks the laws:

1. ``logits`` takes float32 ``(N, C, H, W)`` and gives float32 ``(N, classes)``; ``vjp`` gives float32 of x's shape;
2. neither writes to its arguments;
3. both are deterministic, and a sample's numbers don't depend on the batch that it came in;
4. the empty batch is a batch;
5. ``vjp`` is the derivative of ``logits``, and linear in the cotangent;
6. another shape, another dtype or a NaN raises ``InputError``;
7. the same model rebuilt in a fresh process gives the same numbers;
8. ``lacks`` gives a reason for what is missing, and names nothing that is there.

Images live in the box [0, 1]. Input range, normalization, layout, evaluation mode and device are the adapter's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError

Images: TypeAlias = npt.NDArray[np.float32]
"""float32, (N, C, H, W), values in [0, 1]."""
Logits: TypeAlias = npt.NDArray[np.float32]
"""float32, (N, classes), unnormalized scores."""
Labels: TypeAlias = npt.NDArray[np.int64]
"""int64, (N,), class indices in [0, classes)."""


@runtime_checkable
class Classifier(Protocol):
    """float32 images in [0, 1], (N, C, H, W) -> float32 logits (N, classes)."""

    input_shape: tuple[int, int, int]
    classes: int

    def logits(self, x: Images) -> Logits:
        """Unnormalized class scores. Raises ``InputError`` for another shape, another dtype or a NaN."""
        ...


@runtime_checkable
class Differentiable(Classifier, Protocol):
    """A classifier that also has gradients."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient with respect to x of ``(logits(x) * cotangent).sum()``, shape of x. Raises as ``logits`` does."""
        ...


@runtime_checkable
class Lacking(Classifier, Protocol):
    """A classifier that says what it lacks, and why. The member is optional: ``lacks`` reads it."""

    lacks: Mapping[str, str]
    """``gradients`` or ``logits`` -> the reason. The reason follows an attack's name: "needs gradients, and ..."."""


def lacks(classifier: Classifier) -> dict[str, str]:
    """What a classifier lacks: ``gradients`` or ``logits`` -> the reason. Empty where nothing is missing.

    A classifier without ``vjp`` lacks gradients, even where it does not say so.
    """
    reasons = dict(classifier.lacks) if isinstance(classifier, Lacking) else {}
    if not isinstance(classifier, Differentiable):
        reasons.setdefault("gradients", f"needs gradients, and a {type(classifier).__name__} gives logits only")
    return reasons


Pull: TypeAlias = Callable[[Logits], Images]
"""From a cotangent (N, classes) to the gradient that ``vjp`` gives for it, for images that are fixed before."""


@runtime_checkable
class Linearizable(Differentiable, Protocol):
    """A door for attacks that need logits and gradients of the same images: one pass forwards serves both."""

    def linearize(self, x: Images) -> tuple[Logits, Pull]:
        """``logits(x)``, and a function from a cotangent to ``vjp(x, cotangent)``. Raises as these do."""
        ...


def linearized(classifier: Differentiable, x: Images) -> tuple[Logits, Pull]:
    """The result of ``classifier.linearize(x)``; without that door, the same from one pass forwards for each part."""
    if isinstance(classifier, Linearizable):
        return classifier.linearize(x)
    return classifier.logits(x), lambda cotangent: classifier.vjp(x, cotangent)


@dataclass
class Counter:
    """What an attack cost: images passed forwards and backwards, summed over all calls."""

    forwards: int = 0
    backwards: int = 0


@runtime_checkable
class TorchNative(Differentiable, Protocol):
    """A native door: the classifier holds a torch module, and libraries that speak torch can use it directly."""

    def torch_module(self, counter: Counter) -> AbstractContextManager[Any]:
        """A context whose value is a ``torch.nn.Module``: [0, 1] images (N, C, H, W) -> logits, on its own device.

        Inside the context the module is in evaluation mode and its parameters are frozen, for their gradients would
        take a third of an attack's time. Afterwards everything is as before. Every image passed forwards or backwards
        through the module is added to ``counter``.
        """
        ...


@runtime_checkable
class TensorflowNative(Differentiable, Protocol):
    """A native door: a TensorFlow function, for the libraries' own TensorFlow estimators."""

    def tensorflow_function(self, counter: Counter) -> Callable[[Any], Any]:
        """A function of tensors: [0, 1] images (N, C, H, W) -> logits, differentiable, counting into ``counter``."""
        ...


class Counted:
    """A classifier that counts every image passed forwards; a library sees a model without gradients as this."""

    def __init__(self, inner: Classifier, counter: Counter) -> None:
        self.inner, self.counter = inner, counter
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.lacks = lacks(inner)

    def logits(self, x: Images) -> Logits:
        self.counter.forwards += len(x)
        return self.inner.logits(x)


class CountedDifferentiable(Counted):
    """A ``Counted`` that counts backwards too. One ``vjp`` counts as one backward pass, not as a forward pass."""

    inner: Differentiable

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        self.counter.backwards += len(x)
        return self.inner.vjp(x, cotangent)

    def linearize(self, x: Images) -> tuple[Logits, Pull]:
        self.counter.forwards += len(x)
        logits, pull = linearized(self.inner, x)

        def counting(cotangent: Logits) -> Images:
            self.counter.backwards += len(x)
            return pull(cotangent)

        return logits, counting


def counted(classifier: Classifier, counter: Counter) -> Classifier:
    """The same classifier, with the same capability, counting into ``counter``."""
    if isinstance(classifier, Differentiable):
        return CountedDifferentiable(classifier, counter)
    return Counted(classifier, counter)


def check_images(x: Any, input_shape: tuple[int, int, int]) -> None:
    """Raise ``InputError`` unless x is a float32 array (N, *input_shape) without NaN or infinity."""
    if not isinstance(x, np.ndarray):
        raise InputError(f"images must be a NumPy array, not {type(x).__name__}")
    if x.dtype != np.float32:
        raise InputError(f"images must be float32, not {x.dtype}: use x.astype('float32')")
    if x.ndim != 4 or x.shape[1:] != tuple(input_shape):
        raise InputError(f"images must have shape (N, {', '.join(map(str, input_shape))}), not {x.shape}")
    if not np.isfinite(x).all():
        raise InputError(f"images contain {int(np.count_nonzero(~np.isfinite(x)))} values that are NaN or infinite")


def check_cotangent(cotangent: Any, n: int, classes: int) -> None:
    """Raise ``InputError`` unless the cotangent is a float32 array (n, classes) without NaN or infinity."""
    if not isinstance(cotangent, np.ndarray) or cotangent.dtype != np.float32 or cotangent.shape != (n, classes):
        described = f"{cotangent.dtype} {cotangent.shape}" if isinstance(cotangent, np.ndarray) else type(cotangent)
        raise InputError(f"the cotangent must be a float32 array of shape ({n}, {classes}), not {described}")
    if not np.isfinite(cotangent).all():
        raise InputError("the cotangent contains values that are NaN or infinite")
