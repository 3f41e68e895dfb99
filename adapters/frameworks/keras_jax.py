"""A Keras model on the JAX backend as a classifier: pure functions of its weights, compiled for few sizes of batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, NotSupported, first_line
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
from sparring.adapters.protocol import Images, Logits, check_cotangent, check_images

import keras  # isort: skip

CPU_SIZES = (1, 8, 32)
"""The sizes of a batch. In larger ones the gradient of pooling takes twice as long for each image."""
OTHER_SIZES = (1, 32, 256)


class KerasJaxClassifier:
    """A Keras model on the JAX backend as a ``Differentiable`` classifier.

    ``input_shape``, ``classes``, ``layout`` and the removal of a softmax are as for ``KerasTensorflowClassifier``, all
    else as for ``TorchClassifier``. Weights are read at every call: after more training, attacks meet the trained
    model. What a layer draws or updates while it is called with ``training=False`` is lost.

    XLA compiles a program for each size of batch, and that takes longer than most batches run. So images go through in
    batches of three sizes. Copies of the last image fill up the last batch.
    """

    framework = "keras-jax"

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
        require_backend("jax")
        check_output(output)
        layout = layout or image_layout()
        self.input_shape = images_of(model, input_shape, layout)
        before = preprocessing(
            self.input_shape, input_range=input_range, mean=mean, std=std, channel_order=channel_order, layout=layout
        )
        self._device = _choose_device(device)
        kind = "cuda" if self._device.platform == "gpu" else self._device.platform
        self.device = kind if kind == "cpu" else f"{kind}:{self._device.id}"
        self._sizes = CPU_SIZES if kind == "cpu" else OTHER_SIZES
        model, log = without_softmax(model) if output == "probabilities" else (model, False)

        def first(x: Images) -> Logits:
            if not model.built:  # a subclassed model makes its variables when it is first called
                model(before.apply(x), training=False)
            self._variables = list(model.variables)
            self._forward, self._backward = _functions(model, self._variables, before, log)
            return self._call(self._forward, x)

        self.classes = probe(first, self.input_shape, classes)

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        return self._call(self._forward, x) if len(x) else np.zeros((0, self.classes), np.float32)

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``.

        Raises ``InputError`` as the protocol says, and ``NotSupported`` for a model that JAX can't differentiate.
        """
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        if not len(x):
            return np.zeros_like(x)
        try:
            return self._call(self._backward, x, cotangent)
        except (ValueError, NotImplementedError) as exc:  # JAX refuses a loop of unknown length, a callback and others
            raise NotSupported(f"needs gradients; JAX can't differentiate the Keras model: {first_line(exc)}") from exc

    def _call(self, function: Callable[..., Any], *arrays: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import jax

        weights = jax.device_put([variable.value for variable in self._variables], self._device)
        parts = []
        for start in range(0, len(arrays[0]), self._sizes[-1]):
            part = [array[start : start + self._sizes[-1]] for array in arrays]
            n = len(part[0])
            size = next(size for size in self._sizes if size >= n)
            inputs = jax.device_put([_filled_up(array, size) for array in part], self._device)
            parts.append(np.asarray(function(weights, *inputs))[:n])
        return np.concatenate(parts)  # a copy: JAX's own arrays are read-only


def _functions(
    model: Any, variables: Sequence[Any], before: Preprocessing, log: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The model and its vjp as two compiled functions of the variables' values and of images (N, C, H, W)."""
    import jax
    import jax.numpy as jnp

    def scores(values: Sequence[Any], x: Any) -> Any:
        if before.reverse:
            x = x[:, ::-1]
        if before.affine is not None:
            x = x * before.affine[0] + before.affine[1]
        if before.channels_last:
            x = x.transpose(0, 2, 3, 1)
        # in float32: on an accelerator JAX would take TF32 or bfloat16, less than the protocol promises
        with jax.default_matmul_precision("highest"), keras.StatelessScope(zip(variables, values, strict=True)):
            y = model(x, training=False).astype(jnp.float32)
        return jnp.log(jnp.maximum(y, LEAST_PROBABILITY)) if log else y

    def vjp(values: Sequence[Any], x: Any, cotangent: Any) -> Any:
        return jax.vjp(partial(scores, values), x)[1](cotangent)[0]

    return jax.jit(scores), jax.jit(vjp)


def _filled_up(x: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    return np.pad(x, [(0, n - len(x)), *[(0, 0)] * (x.ndim - 1)], mode="edge")


def _choose_device(device: str) -> Any:
    """JAX's device of that name. Raises ``InputError`` if it is absent."""
    import jax

    kind, _, index = device.partition(":")
    if device == "auto":
        return jax.devices()[0]
    if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
        raise InputError(f"unknown device {device!r}; valid: auto, cpu, cuda")
    try:
        devices = jax.devices(kind)
    except RuntimeError:  # JAX has no such platform
        devices = []
    if int(index or 0) >= len(devices):
        raise InputError(f"device {device!r} is not there: JAX sees {len(devices)} {kind.upper()} devices")
    return devices[int(index or 0)]
