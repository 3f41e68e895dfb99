"""Foolbox: its names of the attacks, and how it runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from sparring.adapters.attacks.catalogue import START_DRAWS
from sparring.adapters.attacks.library import (
    AttackMapping,
    Call,
    Library,
    RawAttack,
    Route,
    Run,
    Unsupported,
    blaming,
    maps,
)
from sparring.adapters.attacks.starts import find_starts
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.libraries.foolbox.reconcile_gradient import RECONCILIATIONS as GRADIENT
from sparring.adapters.libraries.foolbox.reconcile_search import RECONCILIATIONS as SEARCH
from sparring.adapters.protocol import Classifier, Counter, Images, TensorflowNative, TorchNative, counted

CALL_KEYWORDS = ("eps", "restarts", "start_draws")
"""Keywords of the call, or of what wraps the attack, not of its constructor."""

ITERATED: dict[str, Any] = {"eps": "eps", "steps": "steps", "eps_step": "abs_stepsize"}
# abs_stepsize has precedence; the relative one is set to the same
STEP: dict[str, Any] = {"rel_stepsize": lambda c: c.params["eps_step"] / c.params["eps"]}


def _pgd(target: str) -> AttackMapping:
    return maps(target, **ITERATED, random_start="random_start", restarts="restarts", pinned=STEP)


def _hopskipjump(norm: str) -> AttackMapping:
    return maps(
        "HopSkipJumpAttack",
        steps="steps",
        initial_evaluations="initial_gradient_eval_steps",
        max_evaluations="max_gradient_eval_steps",
        start_draws="start_draws",
        pinned={
            "init_attack": None,  # it gets its starting points from us
            "stepsize_search": "geometric_progression",
            "gamma": 1.0,
            "tensorboard": False,
            "constraint": norm,
        },
    )


NO_TARGET = Unsupported("noise aims at no class")
NO_APGD = Unsupported("Foolbox has no APGD")
NO_MIXTURE = Unsupported("Foolbox mixes its own attacks only: sparring's worst-of takes any library's")

ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    ("fgsm", "linf"): maps(
        "LinfFastGradientAttack",
        eps="eps",
        pinned={"random_start": False},
        targeted=Unsupported("its LinfFastGradientAttack takes no target"),
    ),
    ("bim", "linf"): maps("LinfBasicIterativeAttack", **ITERATED, pinned={**STEP, "random_start": False}),
    ("pgd", "linf"): _pgd("LinfProjectedGradientDescentAttack"),
    ("pgd", "l2"): _pgd("L2ProjectedGradientDescentAttack"),
    ("mi-fgsm", "linf"): maps(
        "LinfMomentumIterativeFastGradientMethod",
        **ITERATED,
        decay="momentum",
        pinned={**STEP, "random_start": False},
        note="sums the signs of the gradients, where the source sums the gradients by their L1 length",
    ),
    ("ni-fgsm", "linf"): Unsupported("Foolbox has no Nesterov attack"),
    ("si-ni-fgsm", "linf"): Unsupported("Foolbox has no Nesterov attack"),
    ("vmi-fgsm", "linf"): Unsupported("Foolbox has no variance tuning"),
    ("vni-fgsm", "linf"): Unsupported("Foolbox has no variance tuning"),
    ("deepfool", "l2"): maps(
        "L2DeepFoolAttack",
        steps="steps",
        overshoot="overshoot",
        candidates="candidates",
        pinned={"loss": "logits"},
        targeted=Unsupported("its DeepFool moves to the nearest class, whatever the target"),
    ),
    ("cw", "l2"): maps(
        "L2CarliniWagnerAttack",
        steps="steps",
        learning_rate="stepsize",
        confidence="confidence",
        initial_const="initial_const",
        search_steps="binary_search_steps",
        abort_early="abort_early",
    ),
    ("jsma", "l0"): Unsupported("Foolbox has no JSMA"),
    ("square", "linf"): Unsupported("Foolbox has no Square attack"),
    ("square", "l2"): Unsupported("Foolbox has no Square attack"),
    ("pixle", "l0"): Unsupported("Foolbox has no Pixle"),
    ("one-pixel", "l0"): Unsupported("Foolbox has no one-pixel attack"),
    ("hopskipjump", "l2"): _hopskipjump("l2"),
    ("hopskipjump", "linf"): _hopskipjump("linf"),
    ("boundary", "l2"): maps(
        "BoundaryAttack",
        steps="steps",
        spherical_step="spherical_step",
        source_step="source_step",
        step_adaptation="step_adaptation",
        start_draws="start_draws",
        pinned={
            "init_attack": None,
            "source_step_convergance": 1e-7,
            "tensorboard": False,
            "update_stats_every_k": 10,
        },
    ),
    ("salt-and-pepper", "l2"): maps(
        "SaltAndPepperNoiseAttack", steps="steps", across_channels="across_channels", pinned={"channel_axis": 1}
    ),
    ("apgd", "linf"): NO_APGD,
    ("apgd", "l2"): NO_APGD,
    ("autoattack", "linf"): Unsupported("Foolbox has no AutoAttack"),
    ("autoattack", "l2"): Unsupported("Foolbox has no AutoAttack"),
    ("worst-of", "linf"): NO_MIXTURE,
    ("worst-of", "l2"): NO_MIXTURE,
    ("pixel-swap", "l0"): Unsupported("Foolbox has no pixel swap"),
    ("patch", "l0"): Unsupported("Foolbox has no adversarial patches"),
    ("none", "linf"): Unsupported("Foolbox has no attack that changes nothing: it is sparring's own"),
    ("uniform-noise", "linf"): maps("LinfAdditiveUniformNoiseAttack", eps="eps", targeted=NO_TARGET),
    ("gaussian-noise", "l2"): maps("L2AdditiveGaussianNoiseAttack", eps="eps", targeted=NO_TARGET),
}

BLANK_WHEN_NOT_FOUND = ("L2CarliniWagnerAttack", "EADAttack")
FROM_A_START = (
    "BinarizationRefinementAttack",
    "BoundaryAttack",
    "HopSkipJumpAttack",
    "L0BrendelBethgeAttack",
    "L1BrendelBethgeAttack",
    "L2BrendelBethgeAttack",
    "LinfinityBrendelBethgeAttack",
    "PointwiseAttack",
)
"""What walks along the boundary, and so must begin beyond it. (FMN may too, where Foolbox 3.3.4 fails on tensors.)"""
NOISE_BYTES = 2**31
"""HopSkipJump keeps all its probes of the boundary in memory: more images at once than fit here are split up."""


@contextmanager
def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
    """Foolbox on the classifier's own module or TensorFlow function, or on a ``TorchView`` of it."""
    guard()
    import foolbox

    counted_classifier = counted(classifier, counter)

    def run(call: Call) -> Images:
        with blaming("Foolbox", call.target):
            return _run(model, decide, call)

    def decide(x: Images) -> Any:
        return counted_classifier.logits(x).argmax(axis=1)

    if route == "bridged":
        from sparring.adapters.frameworks.torch_view import TorchView

        view = TorchView(counted_classifier)
        model: Any = foolbox.PyTorchModel(view, bounds=(0, 1), device=view.dummy.device, preprocessing=None)
        yield run
    elif isinstance(classifier, TorchNative):
        with classifier.torch_module(counter) as module:
            device = next(module.parameters()).device
            model = foolbox.PyTorchModel(module, bounds=(0, 1), device=device, preprocessing=None)
            yield run
    elif isinstance(classifier, TensorflowNative):
        model = _tensorflow_model(classifier.tensorflow_function(counter))

        def run_on_tensorflow(call: Call) -> Images:
            if call.target == "PointwiseAttack":
                raise NotSupported("Foolbox's PointwiseAttack can't write to TensorFlow's tensors: take route bridged")
            return run(call)

        yield run_on_tensorflow
    else:
        raise NotSupported(f"Foolbox has no native route to a {type(classifier).__name__}")


def _run(model: Any, decide: Callable[[Images], Any], call: Call) -> Images:
    import foolbox

    kwargs = dict(call.kwargs)
    settings = {key: kwargs.pop(key) for key in CALL_KEYWORDS if key in kwargs}
    attack = getattr(foolbox.attacks, call.target)(**kwargs)
    if type(attack).__name__ not in FROM_A_START or kwargs.get("init_attack") is not None:
        return _attack(model, attack, call.x, call, settings)
    # with its own initial attack a single image without a start fails the whole batch
    starts = find_starts(decide, call.x, call.labels, call.targeted, settings.get("start_draws", START_DRAWS.default))
    result = call.x.copy()
    for part in np.array_split(np.arange(len(starts.rows)), _parts(attack, starts.points)):
        rows = starts.rows[part]
        if len(rows):
            result[rows] = _attack(model, attack, call.x[rows], call, settings, rows, starts.points[part])
    return result


def _attack(
    model: Any,
    attack: Any,
    x: Images,
    call: Call,
    settings: Mapping[str, Any],
    rows: Any = slice(None),
    starting_points: Images | None = None,
) -> Images:
    import eagerpy
    from foolbox.criteria import Misclassification, TargetedMisclassification

    if not len(x):
        return x.copy()

    def tensor(array: Any) -> Any:
        return eagerpy.from_numpy(model.dummy, array).raw

    if settings.get("restarts", 1) > 1:
        attack = attack.repeat(settings["restarts"])
    criterion = (TargetedMisclassification if call.targeted else Misclassification)(tensor(call.labels[rows]))
    more = {} if starting_points is None else {"starting_points": tensor(starting_points)}
    if hasattr(attack, "feed"):
        attack.feed(model, tensor(x))  # the data set that DatasetAttack looks through is the batch
    try:
        _, clipped, _ = attack(model, tensor(x), criterion, epsilons=settings.get("eps"), **more)
    except ValueError as error:
        if str(error) != "unsupported criterion":
            raise
        version = "targeted" if call.targeted else "untargeted"
        raise NotSupported(f"Foolbox's {call.target} has no {version} version") from error
    result = np.array(eagerpy.astensor(clipped).numpy(), np.float32)
    if call.target in BLANK_WHEN_NOT_FOUND:
        # an image that the search never found comes back all zero, and would count where the model misreads a blank
        blank = ~result.any(axis=(1, 2, 3))
        result[blank] = x[blank]
    return result


def _parts(attack: Any, points: Images) -> int:
    if type(attack).__name__ != "HopSkipJumpAttack":
        return 1
    probes = min(attack.initial_num_evals * (attack.steps + 1) ** 0.5, attack.max_num_evals)
    return max(1, int(np.ceil(points.nbytes * probes / NOISE_BYTES)))


def _tensorflow_model(function: Any) -> Any:
    import tensorflow
    from foolbox import TensorFlowModel

    class ChannelsFirst(TensorFlowModel):  # type: ignore[misc]
        data_format = "channels_first"  # Foolbox asks Keras, whose answer is about its own models

    device = "/GPU:0" if tensorflow.config.list_physical_devices("GPU") else "/CPU:0"
    return ChannelsFirst(function, bounds=(0, 1), device=tensorflow.device(device), preprocessing=None)


NEEDS: dict[str, Any] = {
    "L2ContrastReductionAttack": "nothing",
    "InversionAttack": "nothing",
    "L2AdditiveGaussianNoiseAttack": "nothing",
    "L2AdditiveUniformNoiseAttack": "nothing",
    "L2ClippingAwareAdditiveGaussianNoiseAttack": "nothing",
    "L2ClippingAwareAdditiveUniformNoiseAttack": "nothing",
    "LinfAdditiveUniformNoiseAttack": "nothing",
    "L2RepeatedAdditiveGaussianNoiseAttack": "decisions",
    "L2RepeatedAdditiveUniformNoiseAttack": "decisions",
    "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack": "decisions",
    "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack": "decisions",
    "LinfRepeatedAdditiveUniformNoiseAttack": "decisions",
    "BinarySearchContrastReductionAttack": "decisions",
    "LinearSearchContrastReductionAttack": "decisions",
    "GaussianBlurAttack": "decisions",
    "SpatialAttack": "decisions",
    "SaltAndPepperNoiseAttack": "decisions",
    "LinearSearchBlendedUniformNoiseAttack": "decisions",
    "BinarizationRefinementAttack": "decisions",
    "DatasetAttack": "decisions",
    "BoundaryAttack": "decisions",
    "HopSkipJumpAttack": "decisions",
    "PointwiseAttack": "decisions",
    "GenAttack": "logits",
}
"""Needs that a class doesn't say. All others need gradients."""

UNTARGETED = (
    "L1FastGradientAttack",
    "L2FastGradientAttack",
    "LinfFastGradientAttack",
    "L2DeepFoolAttack",
    "LinfDeepFoolAttack",
    "NewtonFoolAttack",
    "VirtualAdversarialAttack",
)


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every attack class of the installed Foolbox, under all of its names."""
    guard()
    import foolbox

    return {
        name: _raw(name, cls)
        for name, cls in sorted(vars(foolbox.attacks).items())
        if inspect.isclass(cls) and issubclass(cls, foolbox.attacks.Attack) and not inspect.isabstract(cls)
    }


def _raw(name: str, cls: Any) -> RawAttack:
    return RawAttack(
        name=name,
        needs=NEEDS.get(cls.__name__, "gradients"),
        signature=inspect.signature(cls),
        targeted=cls.__name__ not in UNTARGETED,
        call_keywords=CALL_KEYWORDS if cls.__name__ in FROM_A_START else CALL_KEYWORDS[:2],
        alias=None if cls.__name__ == name else cls.__name__,
    )


LIBRARY = Library(
    name="foolbox",
    package="foolbox",
    requires="foolbox>=3.3.4",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset({"torch", "keras-torch", "keras-tensorflow"}),
    reconciliations={**GRADIENT, **SEARCH},
)
