"""A Keras model on the torch backend as a classifier: a torch module that takes ``training=`` instead of a mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparring.adapters.frameworks.keras_shared import image_layout, images_of, require_backend, without_softmax
from sparring.adapters.frameworks.preprocessing import ChannelOrder, Layout, Output, check_output
from sparring.adapters.frameworks.pytorch import TorchClassifier

import keras  # isort: skip
from torch import Tensor, nn


class KerasTorchClassifier(TorchClassifier):
    """A Keras model on the torch backend as a ``Differentiable`` and ``TorchNative`` classifier.

    ``input_shape``, ``classes``, ``layout`` and the removal of a softmax are as for ``KerasTensorflowClassifier``, all
    else as for ``TorchClassifier``.
    """

    framework = "keras-torch"

    def __init__(
        self,
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
    ) -> None:
        require_backend("torch")
        check_output(output)
        layout = layout or image_layout()
        shape = images_of(model, input_shape, layout)
        model, log = without_softmax(model) if output == "probabilities" else (model, False)
        super().__init__(
            _Inference(model),
            input_shape=shape,
            classes=classes,
            input_range=input_range,
            mean=mean,
            std=std,
            channel_order=channel_order,
            layout=layout,
            output="probabilities" if log else "logits",
            device=device,
        )


class _Inference(nn.Module):
    """Keras listens to ``training=``, not to ``.eval()``, and puts what it makes on a device of its own choice."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with keras.device(str(x.device)):
            scores: Tensor = self.model(x, training=False)
        return scores
