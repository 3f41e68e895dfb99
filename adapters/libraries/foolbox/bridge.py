"""Foolbox: how its attacks are run on a classifier, natively or over the protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from sparring.adapters.attacks.catalogue import START_DRAWS
from sparring.adapters.attacks.library import Call, Library, RawAttack, Route, Run, blaming
from sparring.adapters.attacks.starts import find_starts
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.libraries.foolbox.reconcile_gradient import RECONCILIATIONS as GRADIENT
from sparring.adapters.libraries.foolbox.reconcile_search import RECONCILIATIONS as SEARCH
from sparring.adapters.libraries.foolbox.table import ATTACKS
from sparring.adapters.protocol import Classifier, Counter, Images, TensorflowNative, TorchNative, counted

CALL_KEYWORDS = ("eps", "restarts", "start_draws")
"""Keywords of the call, or of what wraps the attack, not of its constructor."""

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
"""Attacks that walk along the boundary, and so begin beyond it. FMN may, too, but fails there in Foolbox 3.3.4."""
NOISE_BYTES = 2**31
"""HopSkipJump keeps all its probes in memory: a batch that needs more than these bytes is split."""


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
