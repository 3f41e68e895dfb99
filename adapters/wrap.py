"""From a user's model to a classifier. A framework that the user hasn't imported is not imported here either."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparring.adapters.errors import InputError

if TYPE_CHECKING:
    from sparring.adapters.frameworks.preprocessing import ChannelOrder, Layout, Output
    from sparring.adapters.protocol import Classifier, Images, Logits


def wrap(
    model: Any,
    *,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: ChannelOrder = "rgb",
    layout: Layout | None = None,
    output: Output = "logits",
    device: str = "auto",
) -> Classifier:
    """Make a classifier of a model: float32 images (N, C, H, W) in [0, 1] -> float32 logits (N, classes).

    ``model`` is a torch module, a Keras 3 model on the TensorFlow, torch or JAX backend, or the path of an ``.onnx``
    file.

    - ``input_shape``: (channels, height, width); a torch module needs it.
    - ``input_range``: what the model takes for a pixel of 0 and of 1.
    - ``mean`` and ``std``: per channel, in units of the input range and in the model's ``channel_order``.
    - ``layout``: the framework's own when it is None.
    - ``output``: ``probabilities`` takes a final softmax off.
    - ``device``: auto, cpu or cuda.

    The result is a ``Differentiable``. Only an ONNX file may have no gradients (a quantized network, a tree, an unknown
    operator): then the result is a ``Classifier`` whose ``lacks`` says why. Raises ``InputError`` for anything else,
    and for options that don't fit the model.
    """
    options: dict[str, Any] = {
        "input_shape": input_shape,
        "classes": classes,
        "input_range": input_range,
        "mean": mean,
        "std": std,
        "channel_order": channel_order,
        "layout": layout,
        "output": output,
        "device": device,
    }
    if _is(model, "keras", "Model"):  # before torch: a Keras model on the torch backend is a torch module, too
        from sparring.adapters.frameworks.keras import keras_classifier

        return keras_classifier(model, **options)
    if _is(model, "torch.nn", "Module"):
        if input_shape is None:
            raise InputError("a torch module needs input_shape=(channels, height, width), the images that it takes")
        from sparring.adapters.frameworks.pytorch import TorchClassifier

        return TorchClassifier(model, **{**options, "layout": layout or "channels-first"})
    if isinstance(model, str | os.PathLike) and os.fspath(model).endswith(".onnx"):
        from sparring.adapters.onnx.classifier import onnx_classifier

        return onnx_classifier(model, **options)
    kind = type(model)
    name = repr(os.fspath(model)) if isinstance(model, str | os.PathLike) else f"a {kind.__module__}.{kind.__name__}"
    raise InputError(f"a model is a torch.nn.Module, a Keras 3 model or the path of an .onnx file, not {name}")


PROBABILITIES = "the model's output looks like probabilities (rows sum to 1), not logits: say `output: probabilities`"


def check_outputs(classifier: Classifier, x: Images, *, probabilities: bool = False) -> None:
    """Run a few images (N, C, H, W), best several different ones, and raise ``InputError`` unless logits come out.

    Logits are (N, classes) with two classes or more, and finite. They are not probabilities (every row in [0, 1], with
    a sum of 1), for a loss would take the softmax a second time; with ``probabilities`` these are allowed too.
    """
    import numpy as np

    scores = classifier.logits(x)
    if scores.shape != (len(x), classifier.classes) or classifier.classes < 2:
        raise InputError(
            f"the model's output must be (N, classes) with two classes or more; {len(x)} images give {scores.shape}"
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise InputError(f"the model's output is NaN or infinite for {bad} of {len(x)} images")
    if not probabilities and look_like_probabilities(scores):
        raise InputError(PROBABILITIES)


def look_like_probabilities(scores: Logits) -> bool:
    """Whether every row (N, classes) lies in [0, 1] and sums to 1."""
    return bool(len(scores) and ((scores >= 0) & (scores <= 1)).all() and (abs(scores.sum(axis=1) - 1) < 1e-3).all())


def _is(model: Any, module: str, name: str) -> bool:
    loaded = getattr(sys.modules.get(module), name, None)
    return isinstance(loaded, type) and isinstance(model, loaded)
