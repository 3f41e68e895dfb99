"""A Keras model that is trained, on the backend that this process has: TensorFlow, torch or JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.keras import keras_classifier
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.models.spec import TrainSpec
from sparring.models.training.learner import Targets, Weights
from sparring.models.training.loop import probabilities

import keras  # isort: skip

KERNELS = ("kernel", "depthwise_kernel")


class KerasLearner:
    """A ``Learner`` of a Keras model, trained in place by Keras' own ``train_on_batch``; see ``TorchLearner``."""

    def __init__(
        self,
        network: Any,
        spec: TrainSpec,
        input_shape: tuple[int, ...],
        before: Preprocessing,
        options: Mapping[str, Any],
        device: str,
    ) -> None:
        self.network, self._spec, self.before = network, spec, before
        self._options = {**options, "input_shape": tuple(input_shape), "device": device}
        self.kernels = [variable for variable in network.trainable_variables if variable.name in KERNELS]
        self._compiled: tuple[bool, float, bool] | None = None
        self._lr = spec.lr
        self._gradient: Any = None
        self._draws = keras.random.SeedGenerator(spec.seed)
        self._view: Differentiable | None = None

    def classifier(self) -> Differentiable:
        """A live view of the weights, in evaluation mode."""
        if self._view is None:
            view = keras_classifier(self.network, **self._options)
            assert isinstance(view, Differentiable)
            self._view = view
        return self._view

    def step(
        self,
        x: Images,
        targets: Targets,
        *,
        lr: float,
        temperature: float = 1.0,
        gradient_noise: float = 0.0,
        weight_noise: float = 0.0,
    ) -> tuple[float, float]:
        """One update; see ``Learner``. Raises ``InputError`` for noisy gradients on JAX."""
        self._compile((targets.ndim == 2, temperature, gradient_noise > 0))
        optimizer = self.network.optimizer
        if lr != self._lr:
            optimizer.learning_rate = self._lr = lr
        if gradient_noise:
            optimizer.deviation.assign(gradient_noise)
        noise = self._noise(weight_noise)
        for variable, values in noise:
            variable.assign_add(values)
        self.network.reset_metrics()  # else Keras gives the mean since the first batch
        metrics = self.network.train_on_batch(self.before.apply(x), targets)
        for variable, values in noise:
            variable.assign_sub(values)
        return float(metrics[-1] if self._spec.l2 else metrics[0]), float(metrics[1])

    def gradient(self, x: Images, y: Labels) -> Images:
        """Of the cross-entropy with respect to the images, in evaluation mode; see ``Learner``."""
        if keras.backend.backend() == "tensorflow":
            self._gradient = self._gradient or _tensorflow_gradient(self.network)
            return self.before.transposed(self._gradient(self.before.apply(x), y).numpy())
        view = self.classifier()
        return view.vjp(x, probabilities(view.logits(x)) - np.eye(view.classes, dtype=np.float32)[y])

    def weights(self) -> Weights:
        """A copy of the model's arrays."""
        return [np.array(value) for value in self.network.get_weights()]

    def set_weights(self, weights: Weights) -> None:
        """Put them back."""
        self.network.set_weights(weights)

    def finish(self) -> Any:
        """The model, with the penalties taken off that it was trained with."""
        for kernel in self.kernels:
            kernel.regularizer = None
        return self.network

    def _compile(self, wanted: tuple[bool, float, bool]) -> None:
        """Make Keras ready for a kind of step; all steps of a training are of one kind."""
        if self._compiled == wanted:
            return
        self._compiled = wanted
        soft, temperature, noisy = wanted
        spec, backend = self._spec, keras.backend.backend()
        if noisy and backend == "jax":
            raise InputError("noisy gradients need torch, or Keras on TensorFlow or torch")
        optimizer: Any
        if spec.optimizer == "adam":
            adam = _noisy(keras.optimizers.Adam, spec.seed) if noisy else keras.optimizers.Adam
            optimizer = adam(spec.lr, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
        else:
            sgd = _noisy(keras.optimizers.SGD, spec.seed) if noisy else keras.optimizers.SGD
            optimizer = sgd(spec.lr, momentum=0.9)
        kind = keras.losses.CategoricalCrossentropy if soft else keras.losses.SparseCategoricalCrossentropy
        loss: Any = kind(from_logits=True)
        if temperature != 1:
            plain, loss = loss, lambda y, logits: plain(y, logits / temperature)
        metrics: list[Any] = ["categorical_accuracy" if soft else "sparse_categorical_accuracy"]
        if spec.l2:
            for kernel in self.kernels:
                kernel.regularizer = keras.regularizers.L2(spec.l2)
            # Keras' loss has the penalty in it: what is reported is the cross-entropy
            metrics.append(keras.metrics.MeanMetricWrapper(loss, name="cross_entropy"))
        # XLA would compile for longer than most of these networks train; on JAX, where every operation is compiled, a
        # whole step takes it 2 s and its single operations 20 s
        self.network.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=backend == "jax")

    def _noise(self, std: float) -> list[tuple[Any, Any]]:
        if not std:
            return []
        every = self.network.trainable_variables
        return [(v, keras.random.normal(v.shape, stddev=std, dtype=v.dtype, seed=self._draws)) for v in every]


def _tensorflow_gradient(network: Any) -> Any:
    """A forward and a backward pass in one; the protocol's ``logits`` and ``vjp`` make two forwards."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x, training=False))
        return tape.gradient(loss, x)

    return lambda x, y: gradient(tf.constant(x), tf.constant(y))


def _noisy(kind: Any, seed: int) -> Any:
    """The optimizer with Gaussian noise on every gradient; Keras 3 has no hook for gradients but ``apply``."""

    class Noisy(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.draws = keras.random.SeedGenerator(seed)
            self.deviation = keras.Variable(0.0, trainable=False, name="deviation")

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            noisy = [
                None if g is None else g + self.deviation * keras.random.normal(g.shape, dtype=g.dtype, seed=self.draws)
                for g in grads
            ]
            super().apply(noisy, trainable_variables)

    return Noisy
