"""ART's own trainers, on the network of a classifier, through ART's estimator of the network's framework."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, LibraryError, first_line, unknown
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import Preprocessing
from sparring.adapters.parameters import Parameter
from sparring.adapters.protocol import Images, Labels

_EPS = "largest change of a pixel, in units of [0, 1]; ART's own default, 8, is of pixels up to 255"
_OF_AN_ATTACK = {
    "attack": Parameter(str, "a class of art.attacks.evasion", "ProjectedGradientDescent"),
    "params": Parameter(dict, "its keyword arguments", None),
}
_BETA = Parameter(float, "weight of the distance between clean and adversarial predictions", 6.0, low=0)


@dataclass(frozen=True)
class RawTrainer:
    """A class of ``art.defences.trainer``: its parameters, and the frameworks whose networks it trains."""

    name: str
    description: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    frameworks: tuple[str, ...] = ("torch", "keras-tensorflow")
    unsupported: str = ""
    """why it can't train a classifier here, if it can't"""


_BASES = "a base class, without a loop of its own"
TRAINERS: dict[str, RawTrainer] = {
    trainer.name: trainer
    for trainer in (
        RawTrainer(
            "AdversarialTrainer",
            "a share of every batch is attacked, by one attack of ART",
            "Szegedy et al. 2014, Intriguing properties of neural networks",
            {
                "attack": Parameter(str, "a class of art.attacks.evasion", "FastGradientMethod"),
                "params": Parameter(dict, "its keyword arguments", None),
                "ratio": Parameter(float, "share of adversarial images", 0.5, above=0, high=1),
            },
        ),
        RawTrainer(
            "AdversarialTrainerMadryPGD",
            "every batch is attacked by ART's PGD",
            "Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks",
            {
                "eps": Parameter(float, _EPS, 8 / 255, above=0),
                "eps_step": Parameter(float, "step, in units of [0, 1]", 2 / 255, above=0),
                "max_iter": Parameter(int, "steps", 7, low=1),
                "num_random_init": Parameter(int, "random starts", 1, low=0),
            },
        ),
        RawTrainer(
            "AdversarialTrainerFBFPyTorch",
            "one step from a random start, for every batch; the learning rate is its own, up to .21, then down to 0",
            "Wong, Rice, Kolter 2020, Fast is better than free: Revisiting adversarial training",
            {"eps": Parameter(float, _EPS, 8 / 255, above=0)},
            frameworks=("torch",),
        ),
        RawTrainer(
            "AdversarialTrainerTRADESPyTorch",
            "the clean loss, and the distance of adversarial predictions from clean ones",
            "Zhang et al. 2019, Theoretically Principled Trade-off between Robustness and Accuracy",
            {**_OF_AN_ATTACK, "beta": _BETA},
            frameworks=("torch",),
        ),
        RawTrainer(
            "AdversarialTrainerAWPPyTorch",
            "the weights are moved against the loss, too, while it is computed",
            "Wu, Xia, Wang 2020, Adversarial Weight Perturbation Helps Robust Generalization",
            {
                **_OF_AN_ATTACK,
                "mode": Parameter(str, "the loss", "PGD", choices=("PGD", "TRADES")),
                "gamma": Parameter(float, "length of the move, share of the weights' own", 0.01, low=0),
                "beta": _BETA,
                "warmup": Parameter(int, "epochs without", 0, low=0),
            },
            frameworks=("torch",),
        ),
        RawTrainer("AdversarialTrainerAWP", "", "", unsupported=_BASES),
        RawTrainer("AdversarialTrainerFBF", "", "", unsupported=_BASES),
        RawTrainer("AdversarialTrainerOAAT", "", "", unsupported=_BASES),
        RawTrainer("AdversarialTrainerTRADES", "", "", unsupported=_BASES),
        RawTrainer("Trainer", "", "", unsupported=_BASES),
        RawTrainer(
            "AdversarialTrainerOAATPyTorch", "", "", unsupported="it needs a perceptual network (LPIPS) as well"
        ),
        RawTrainer("AdversarialTrainerCertifiedPytorch", "", "", unsupported="it trains ART's zonotope networks only"),
        RawTrainer(
            "AdversarialTrainerCertifiedIBPPyTorch", "", "", unsupported="it trains ART's interval networks only"
        ),
        RawTrainer("DPInstaHideTrainer", "", "", unsupported="it is for private data, not against adversarial images"),
    )
}


@dataclass(frozen=True)
class Fit:
    """The settings of a training."""

    epochs: int
    batch_size: int
    optimizer: str
    """adam (betas .9, .999) or sgd (momentum .9)"""
    lr: float
    l2: float
    """times the sum of the squared kernels, added to the loss"""


def fit(
    name: str,
    classifier: Any,
    network: Any,
    kernels: Sequence[Any],
    before: Preprocessing,
    x: Images,
    y: Labels,
    settings: Fit,
    **params: Any,
) -> None:
    """Train the network of a classifier in place by ART's trainer of that name.

    ``classifier`` is a live view of ``network``, a torch module or a Keras model on TensorFlow. ``before`` is the
    preprocessing that the network needs of images of the box. ``x`` (N, C, H, W) and ``y`` (N,) are the training data.
    Random numbers come from the global generators.

    Raises ``InputError`` for a framework that the trainer doesn't know, and ``LibraryError`` where ART fails.
    """
    trainer = TRAINERS[name]
    framework = getattr(classifier, "framework", "")
    if framework not in trainer.frameworks:
        raise InputError(f"art:{name} trains networks of {', '.join(trainer.frameworks)}, not of {framework}")
    guard()
    import art.defences.trainer as home

    if name == "AdversarialTrainerFBFPyTorch" and settings.optimizer == "adam":
        raise InputError(f"art:{name} sets learning rates up to .21, which are for `optimizer: sgd`")
    params = dict(params)
    try:
        if framework == "torch":
            estimator = _on_torch(classifier, classifier.network, kernels, settings)
        else:
            estimator = _on_tensorflow(classifier, network, kernels, before, settings)
        if "attack" in params:
            params["attack"] = attack_of(params.pop("attack"), params.pop("params"))(estimator)
        if name == "AdversarialTrainer":
            params["attacks"] = params.pop("attack")
        if name == "AdversarialTrainerAWPPyTorch":
            params["proxy_classifier"] = _on_torch(classifier, copy.deepcopy(classifier.network), [], settings)
        one_hot = np.eye(classifier.classes, dtype=np.float32)[y]
        getattr(home, name)(estimator, **params).fit(
            x, one_hot, batch_size=settings.batch_size, nb_epochs=settings.epochs
        )
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever ART raises
        raise LibraryError(f"art:{name} raised {type(error).__name__}: {first_line(error)}") from error


def attack_of(name: str, params: Mapping[str, Any] | None) -> Callable[[Any], Any]:
    """Estimator -> ART's attack of that class. Raises ``InputError`` for an unknown class."""
    guard()
    from art.attacks import evasion

    kind = getattr(evasion, name, None)
    if kind is None:
        raise InputError(unknown("attack class of art", name, [n for n in dir(evasion) if n[0].isupper()]))
    quiet = {"verbose": False} if "verbose" in kind.attack_params else {}
    return lambda estimator: kind(estimator, **{**quiet, **(params or {})})


def _on_torch(classifier: Any, module: Any, kernels: Sequence[Any], settings: Fit) -> Any:
    """``module`` takes images of the box, as that of the classifier does."""
    import torch
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    class Whole(nn.Module):
        """ART takes a Sequential apart, and would read the output of its first part as the last one's."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            return self.inner(x.float())

    class Loss(nn.CrossEntropyLoss):
        def forward(self, logits: Any, targets: Any) -> Any:
            loss = super().forward(logits, targets)
            return loss + settings.l2 * sum(kernel.square().sum() for kernel in kernels) if settings.l2 else loss

    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.SGD
    more: dict[str, Any] = {} if settings.optimizer == "adam" else {"momentum": 0.9}
    return PyTorchClassifier(
        model=Whole(),
        loss=Loss(),
        optimizer=kind(module.parameters(), lr=settings.lr, **more),
        input_shape=classifier.input_shape,
        nb_classes=classifier.classes,
        clip_values=(0.0, 1.0),
        preprocessing=None,
        device_type="gpu" if classifier.device.type == "cuda" else "cpu",
    )


def _on_tensorflow(classifier: Any, network: Any, kernels: Sequence[Any], before: Preprocessing, settings: Fit) -> Any:
    import keras
    import tensorflow as tf
    from art.estimators.classification import TensorFlowV2Classifier

    def model(x: Any, training: bool = False) -> Any:
        x = tf.cast(x, tf.float32)
        if before.reverse:
            x = tf.reverse(x, [1])
        if before.affine is not None:
            x = x * before.affine[0] + before.affine[1]
        return network(tf.transpose(x, (0, 2, 3, 1)) if before.channels_last else x, training=training)

    adam = settings.optimizer == "adam"
    optimizer = (
        keras.optimizers.Adam(settings.lr, epsilon=1e-8) if adam else keras.optimizers.SGD(settings.lr, momentum=0.9)
    )
    optimizer.build(network.trainable_variables)
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> None:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
            if settings.l2:
                value += settings.l2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
        optimizer.apply(tape.gradient(value, network.trainable_variables), network.trainable_variables)

    return TensorFlowV2Classifier(
        model=model,
        nb_classes=classifier.classes,
        input_shape=classifier.input_shape,
        loss_object=loss,
        # ART's own is compiled anew for every batch
        train_step=lambda _, images, labels: step(images, labels),
        channels_first=True,
        clip_values=(0.0, 1.0),
        preprocessing=None,
    )
