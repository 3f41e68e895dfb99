"""ART's preprocessors and postprocessors by their own names, around any classifier.

A class gets ART's own keyword arguments, checked against its signature. Others are pinned: images are in [0, 1],
channels first, and a defense is applied when predicting. ART's random classes draw from NumPy's global generator: so
each image is processed alone, with the generator seeded by its content. Predictions are processed one by one, too, for
one of the postprocessors mixes up the rows of a batch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import softmax

from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.errors import InputError, missing_package
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import LEAST_PROBABILITY
from sparring.adapters.parameters import REQUIRED, Parameter
from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits, check_cotangent, check_images, lacks
from sparring.adapters.wrappers.transformed import Coins, Pull, Transform, coins, defended

PINNED: Mapping[str, Any] = {
    "clip_values": (0.0, 1.0),
    "channels_first": True,
    "apply_fit": False,
    "apply_predict": True,
    "augmentation": False,
    "verbose": False,
    "device_type": "cpu",
}
"""Keywords that sparring sets wherever a class has them."""
OTHERWISE: Mapping[str, Mapping[str, Any]] = {
    # it refuses channels first, and its clipping calls a method that TensorFlow's tensors lack
    "SpatialSmoothingTensorFlowV2": {"clip_values": None, "channels_first": False},
}
IGNORED = {"GaussianAugmentation": ("ratio",)}
"""Keywords without effect beside the pinned ones."""
CHANNELS_LAST = ("SpatialSmoothingTensorFlowV2", "TotalVarMin")
"""They take the last axis for the channels, whatever ``channels_first`` is."""
RANDOM = ("Cutout", "GaussianAugmentation", "TotalVarMin", "GaussianNoise")
DECIDES = ("ClassLabels",)

LABELS = "it changes the labels of training images, which a deployed classifier doesn't have"
SOUND = "it is for sound"
VIDEO = "it is for videos"
UNSUPPORTED = {
    "CutMix": LABELS,
    "CutMixPyTorch": LABELS,
    "CutMixTensorFlowV2": LABELS,
    "CutoutPyTorch": "it is art:Cutout, written in torch",
    "CutoutTensorFlowV2": "it is art:Cutout, written in TensorFlow",
    "LabelSmoothing": LABELS,
    "Mixup": LABELS,
    "MixupPyTorch": LABELS,
    "MixupTensorFlowV2": LABELS,
    "Mp3Compression": SOUND,
    "Mp3CompressionPyTorch": SOUND,
    "PixelDefend": "it needs a PixelCNN that was trained on the images",
    "Resample": SOUND,
    "ThermometerEncoding": "it gives a network of its own, trained on the encoded images, several channels for each",
    "VideoCompression": VIDEO,
    "VideoCompressionPyTorch": VIDEO,
}


@dataclass(frozen=True)
class RawDefense:
    """A class of ``art.defences``, reachable as ``art:ClassName``."""

    name: str
    post: bool
    """whether it changes predictions, not images"""
    description: str
    parameters: Mapping[str, Parameter]
    random: bool = False
    unsupported: str | None = None
    """why it can't defend an image classifier, if it can't"""

    @property
    def decides(self) -> bool:
        """Whether it gives decisions only."""
        return self.name in DECIDES

    @property
    def has_derivative(self) -> bool:
        """Whether it is written in a framework that differentiates it."""
        return self.name.endswith(("PyTorch", "TensorFlowV2"))


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawDefense]:
    """Every preprocessor and postprocessor class of the installed ART, by name."""
    guard()
    from art.defences import postprocessor, preprocessor

    classes = {}
    for module, base in ((preprocessor, preprocessor.Preprocessor), (postprocessor, postprocessor.Postprocessor)):
        for name, cls in sorted(vars(module).items()):
            if inspect.isclass(cls) and issubclass(cls, base) and cls is not base:
                classes[name] = _raw(name, cls, base is postprocessor.Postprocessor)
    return classes


def build(name: str, params: Mapping[str, Any]) -> Any:
    """An object of ART's class of that name. Raises ``InputError`` for values that ART refuses."""
    from art.defences import postprocessor, preprocessor

    cls = getattr(postprocessor if raw()[name].post else preprocessor, name)
    valid, pinned = inspect.signature(cls).parameters, {**PINNED, **OTHERWISE.get(name, {})}
    try:
        return cls(**params, **{key: value for key, value in pinned.items() if key in valid})
    except (ValueError, TypeError) as error:
        raise InputError(f"ART refuses: {error}") from error
    except ImportError as error:
        raise missing_package(error.name or "a package", "pip install 'sparring[extras]'", f"ART's {name}") from error


def preprocessed(
    classifier: Classifier, *, name: str, seed: int, gradients: str, draws: int = 1, **params: Any
) -> Classifier:
    """The classifier behind a preprocessor of ART's. Gradients pass by the class's own ``estimate_gradient``.

    That is the identity (BPDA) for all that are written in NumPy, and the derivative for the others.
    """
    transform = _transform(build(name, params), name in RANDOM, name in CHANNELS_LAST)
    return defended(classifier, transform, seed=seed, gradients=gradients, draws=draws)


def _transform(processor: Any, random: bool, channels_last: bool) -> Transform:
    to_theirs, to_ours = ((0, 2, 3, 1), (0, 3, 1, 2)) if channels_last else ((0, 1, 2, 3), (0, 1, 2, 3))

    def through(x: Images) -> Images:
        return np.asarray(processor(x.transpose(to_theirs).copy())[0], np.float32).transpose(to_ours)

    def alone(x: Images, coins: Coins, row: int) -> Images:
        with _seeded(coins(row)):
            return through(x[row : row + 1])

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        if not len(x):
            return x, lambda g: g
        boxed = np.clip(x, 0, 1)
        transformed = np.concatenate([alone(boxed, coins, row) for row in range(len(x))]) if random else through(boxed)

        def pull(gradient: Images) -> Images:
            estimated = processor.estimate_gradient(
                boxed.transpose(to_theirs).copy(), gradient.transpose(to_theirs).copy()
            )
            return np.asarray(estimated, np.float32).transpose(to_ours)

        return np.clip(transformed, 0, 1), pull

    return transform


class Postprocessed:
    """A classifier behind a postprocessor of ART's: the logarithms of the processed probabilities are its logits."""

    framework = "defended"
    gradients = "none"

    def __init__(self, inner: Classifier, processor: Any, seed: int, lacks: Mapping[str, str]) -> None:
        self.inner, self.processor, self.seed, self.lacks = inner, processor, seed, lacks
        self.input_shape, self.classes = inner.input_shape, inner.classes

    def logits(self, x: Images) -> Logits:
        """(N, classes), float32: logarithms of the processed softmax, of 1e-30 at least."""
        check_images(x, self.input_shape)
        probabilities, coin = softmax(self.inner.logits(x).astype(np.float64), axis=1), coins(self.seed, x, 0)
        processed = np.zeros_like(probabilities)
        for row in range(len(x)):
            with _seeded(coin(row)):
                processed[row] = self.processor(probabilities[row : row + 1].copy())[0]
        logits: Logits = np.log(np.maximum(processed, LEAST_PROBABILITY)).astype(np.float32)
        return logits


class PostprocessedDifferentiable(Postprocessed):
    """A ``Postprocessed`` whose gradients pass straight through the postprocessor, as they do in ART."""

    inner: Differentiable
    gradients = "straight-through"

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The gradient of the logarithm of the inner classifier's softmax. Raises as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        share = softmax(self.inner.logits(x).astype(np.float64), axis=1) * cotangent.sum(axis=1, keepdims=True)
        return self.inner.vjp(x, np.asarray(cotangent - share, np.float32))


def postprocessed(
    classifier: Classifier, *, name: str, seed: int, gradients: str = "none", **params: Any
) -> Classifier:
    """The classifier behind a postprocessor of ART's."""
    processor = build(name, params)
    reasons = lacks(classifier)
    if gradients != "none" and isinstance(classifier, Differentiable):
        return PostprocessedDifferentiable(classifier, processor, seed, reasons)
    if name in DECIDES:
        reasons |= {"gradients": "needs gradients, and class labels have none", "logits": HIDES}
    reasons.setdefault("gradients", "needs gradients, and none pass through the defense")
    return Postprocessed(classifier, processor, seed, reasons)


HIDES = "needs logits, and the defense gives class labels only"


def _seeded(coin: np.random.Generator) -> AbstractContextManager[None]:
    """Within the context the global generators start from a seed of the coin's; afterwards they are as before."""
    return seeded(int(coin.integers(2**32)), of_tensorflow=False)


TYPES = {"int": int, "float": float, "bool": bool, "str": str}


def _raw(name: str, cls: Any, post: bool) -> RawDefense:
    descriptions = dict(re.findall(r":param (\w+):\s*(.+)", inspect.getdoc(cls.__init__) or ""))
    lines = (inspect.getdoc(cls) or name).splitlines()
    parameters = {
        key: Parameter(
            TYPES.get(str(parameter.annotation).partition(" ")[0], str),
            descriptions.get(key, "").rstrip("."),
            REQUIRED if parameter.default is parameter.empty else parameter.default,
        )
        for key, parameter in inspect.signature(cls).parameters.items()
        if key not in PINNED and key not in IGNORED.get(name, ())
    }
    return RawDefense(name, post, lines[0].rstrip("."), parameters, name in RANDOM, UNSUPPORTED.get(name))
