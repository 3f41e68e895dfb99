"""A Keras model on the TensorFlow backend as a classifier: its function and its gradient, traced once for any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.frameworks.keras_shared import image_layout, images_of, probe, require_backend, without_softmax
from sparring.adapters.frameworks.preprocessing import (
    LEAST_PROBABILITY,
    ChannelOrder,
    Layout,
    Output,
    Preprocessing,
    check_output,
    preprocessing,
)
from sparring.adapters.protocol import Counter, Images, Logits, check_cotangent, check_images


class KerasTensorflowClassifier:
    """A Keras model on the TensorFlow backend as a ``Differentiable`` and ``TensorflowNative`` classifier.

    ``input_shape`` (channels, height, width) and ``classes`` come from the model when they are None, ``layout`` from
    Keras' own image data format. With ``output='probabilities'`` the model is copied, and the copy's final softmax (the
    last layer, or its activation) is linear. Where no copy can be made, as of a subclassed model, the logarithm of the
    probabilities is taken, clipped at 1e-30. The rest is as for ``TorchClassifier``. The model is always called with
    ``training=False``.
    """

    framework = "keras-tensorflow"

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
        require_backend("tensorflow")
        check_output(output)
        layout = layout or image_layout()
        self.input_shape = images_of(model, input_shape, layout)
        before = preprocessing(
            self.input_shape, input_range=input_range, mean=mean, std=std, channel_order=channel_order, layout=layout
        )
        self.device = _choose_device(device)
        model, log = without_softmax(model) if output == "probabilities" else (model, False)
        self._forward, self._backward = _functions(model, self.input_shape, before, log)
        self.classes = probe(lambda x: self._call(self._forward, x), self.input_shape, classes)

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        return self._call(self._forward, x) if len(x) else np.zeros((0, self.classes), np.float32)

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``.

        Raises ``InputError`` as the protocol says, and ``NotSupported`` for a model that cuts the gradient off.
        """
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        return self._call(self._backward, x, cotangent) if len(x) else np.zeros_like(x)

    def tensorflow_function(self, counter: Counter) -> Callable[..., Any]:
        """The native door: a function of tensors, [0, 1] images (N, C, H, W) -> logits, differentiable in the images.

        Every image that passes forwards or backwards is added to ``counter``, also inside a ``tf.function``, which ART
        makes of it to predict. ART passes ``training=``, which is ignored.
        """
        import tensorflow as tf

        def forwards(n: int) -> None:
            counter.forwards += int(n)

        def backwards(n: int) -> None:
            counter.backwards += int(n)

        def count(what: Callable[[int], None], x: Any) -> None:
            if tf.executing_eagerly():
                what(len(x))
            else:  # Python runs while the graph is built, and this when it runs
                tf.numpy_function(what, [tf.shape(x)[0]], [])

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def logits(x: Any) -> tuple[Any, Callable[..., Any]]:
            # TensorFlow hands over the model's variables here, and wants a gradient of each: no attack needs one
            def gradient(cotangent: Any, variables: Sequence[Any] = ()) -> tuple[Any, list[None]]:
                count(backwards, x)
                with _exactly_on(self.device):
                    return self._backward(x, cotangent), [None] * len(variables)

            count(forwards, x)
            with _exactly_on(self.device):
                return self._forward(x), gradient

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def function(x: Any, training: bool = False) -> Any:
            return logits(tf.cast(x, tf.float32))

        return function  # type: ignore[no-any-return]

    def _call(self, function: Callable[..., Any], *arrays: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import tensorflow as tf

        with _exactly_on(self.device):
            result: npt.NDArray[np.float32] = function(*map(tf.constant, arrays)).numpy()
        return result


def _functions(
    model: Any, input_shape: tuple[int, int, int], before: Preprocessing, log: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The model and its vjp as two TensorFlow functions of images (N, C, H, W), each traced once for every N."""
    import tensorflow as tf

    def scores(x: Any) -> Any:
        if before.reverse:
            x = tf.reverse(x, [1])
        if before.affine is not None:
            x = x * before.affine[0] + before.affine[1]
        if before.channels_last:
            x = tf.transpose(x, (0, 2, 3, 1))
        y = tf.cast(model(x, training=False), tf.float32)
        return tf.math.log(tf.maximum(y, LEAST_PROBABILITY)) if log else y

    def vjp(x: Any, cotangent: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y = scores(x)
        gradient = tape.gradient(y, x, output_gradients=cotangent)
        if gradient is None:
            raise NotSupported("needs gradients; the Keras model gives none with respect to its input")
        return gradient

    images = tf.TensorSpec((None, *input_shape), tf.float32)
    cotangents = tf.TensorSpec((None, None), tf.float32)
    return tf.function(scores, input_signature=[images]), tf.function(vjp, input_signature=[images, cotangents])


@contextmanager
def _exactly_on(device: str) -> Iterator[None]:
    """Compute on the device in float32: on a GPU TensorFlow would take TF32, which has three digits less."""
    import tensorflow as tf

    math = tf.config.experimental
    before = math.tensor_float_32_execution_enabled()
    math.enable_tensor_float_32_execution(False)
    try:
        with tf.device(device):
            yield
    finally:
        math.enable_tensor_float_32_execution(before)


def _choose_device(device: str) -> str:
    """TensorFlow's name for the device. Raises ``InputError`` if it is absent."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    kind, _, index = device.partition(":")
    if device == "auto":
        return "/GPU:0" if gpus else "/CPU:0"
    if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
        raise InputError(f"unknown device {device!r}; valid: auto, cpu, cuda")
    if kind == "cuda" and int(index or 0) >= len(gpus):
        raise InputError(f"device {device!r} is not there: TensorFlow sees {len(gpus)} CUDA devices")
    return f"/{'GPU' if kind == 'cuda' else 'CPU'}:{index or 0}"
