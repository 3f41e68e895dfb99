"""The Adversarial Robustness Toolbox: how its attacks are run on a classifier, natively or over the protocol."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import (
    Call,
    Crafted,
    Library,
    Route,
    Run,
    blaming,
)
from sparring.adapters.attacks.starts import find_starts
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.libraries.art import patches
from sparring.adapters.libraries.art.raw import AT_A_CLASS, OF_THE_STAGES, raw
from sparring.adapters.libraries.art.reconcile_autoattack import RECONCILIATIONS as AUTOATTACK
from sparring.adapters.libraries.art.reconcile_gradient import RECONCILIATIONS as GRADIENT
from sparring.adapters.libraries.art.reconcile_search import RECONCILIATIONS as SEARCH
from sparring.adapters.libraries.art.table import ATTACKS
from sparring.adapters.libraries.rewriting import attribute
from sparring.adapters.protocol import Classifier, Counter, Images, TensorflowNative, TorchNative, counted

OWN_ESTIMATORS = ("AutoAttack", "AutoProjectedGradientDescent", "ShadowAttack")
"""Attacks that run on ART's own estimators only, beside those with a framework in their name.

Bridged they run on ART's estimator of a torch view.
"""
BROKEN_ON_TENSORFLOW = ("AutoAttack", "AutoProjectedGradientDescent")
"""Their losses need ``losses.Reduction`` (ART 1.20), which Keras 3 no longer has."""
ONE_IMAGE = ("ShadowAttack",)
WANT_PROBABILITIES = ("SimBA", "VirtualAdversarialMethod")
"""Black-box attacks that refuse logits."""
ON_THEIR_OWN_PREDICTION = ("DeepFool",)
"""Untargeted they leave the predicted class, not the label: they would move a misclassified image to its true class."""
FROM_A_START = ("BoundaryAttack", "BrendelBethgeAttack", "HopSkipJump")
"""Their own starts come from a fresh ``RandomState()``, which no seed reaches."""
IN_BYTES = ("PixelAttack", "ThresholdAttack")


@contextmanager
def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
    """ART on its own estimator of the classifier's framework, or on ours over the protocol."""
    guard()
    model = counted(classifier, counter)

    def decide(x: Images) -> Any:
        return model.logits(x).argmax(axis=1)

    with ExitStack() as stack:
        if route == "bridged":
            from sparring.adapters.libraries.art.estimator import estimator as bridge

            estimator: Any = bridge(model)
        elif isinstance(classifier, TorchNative):
            estimator = _torch_estimator(stack.enter_context(classifier.torch_module(counter)), classifier)
        elif isinstance(classifier, TensorflowNative):
            estimator = _tensorflow_estimator(classifier.tensorflow_function(counter), classifier)
        else:
            raise NotSupported(f"ART has no native route to a {type(classifier).__name__}")

        def of_torch() -> Any:
            """ART's estimator of a torch network, or of a torch view of any other classifier."""
            if route == "native" and isinstance(classifier, TorchNative):
                return estimator
            from sparring.adapters.frameworks.torch_view import TorchView
            from sparring.adapters.libraries.art.estimator import AnswersNaN

            return _torch_estimator(TorchView(AnswersNaN(model)), classifier)

        patch = patches.session(lambda call: _build(of_torch(), call), classifier.classes)

        def run(call: Call) -> Images | Crafted:
            if call.target == patches.TARGET:
                with blaming("ART", call.target):
                    return patch(call)
            if route == "bridged" and call.target.endswith("TensorFlowV2"):
                raise NotSupported(f"ART's {call.target} runs on ART's own estimators only, which is the native route")
            estimator_of_call = estimator
            if call.target in WANT_PROBABILITIES:
                estimator_of_call = _probable(model)
            elif _of_torch(call.target, route, classifier):
                estimator_of_call = of_torch()
            with blaming("ART", call.target):
                return _run(estimator_of_call, decide, call)

        yield run


def _of_torch(target: str, route: Route, classifier: Classifier) -> bool:
    """Whether the attack runs on a torch view of the classifier."""
    if isinstance(classifier, TensorflowNative) and target in BROKEN_ON_TENSORFLOW:
        return True
    return route == "bridged" and (target in OWN_ESTIMATORS or target.endswith("PyTorch"))


def _run(estimator: Any, decide: Callable[[Images], Any], call: Call) -> Images:
    result = call.x.copy()
    if not len(call.x):
        return result
    attack = _build(estimator, call)
    if call.target in FROM_A_START:
        starts = find_starts(decide, call.x, call.labels, call.targeted, attack.init_size)
        rows, more = starts.rows, {"x_adv_init": starts.points}
    elif call.canonical and call.target in ON_THEIR_OWN_PREDICTION:
        rows, more = np.flatnonzero(decide(call.x) == call.labels), {}
    else:
        rows, more = np.arange(len(call.x)), {}
    one_hot = np.eye(estimator.nb_classes, dtype=np.float32)[call.labels]
    # without labels JSMA draws its targets, and the shadow attack stays untargeted
    labelled = call.targeted or call.target not in (*AT_A_CLASS, *ONE_IMAGE)
    # attacks within attacks write their progress bars to standard error
    with redirect_stderr(StringIO()), _mended(attack, call.target):
        for part in rows[:, None] if _singly(attack, call) else [rows]:
            if len(part):
                result[part] = attack.generate(call.x[part], one_hot[part] if labelled else None, **more)
    if call.target in IN_BYTES:
        # these attacks multiply by 255 and divide again, which moves every pixel by a rounding error
        result = np.where(np.abs(result - call.x) < 1e-6, call.x, result)
    return result


def _singly(attack: Any, call: Call) -> bool:
    # ART's DeepFool considers the candidates of all images for each image
    united = call.target == "DeepFool" and attack.nb_grads < attack.estimator.nb_classes
    return call.singly or call.target in ONE_IMAGE or (call.canonical is not None and united)


@contextmanager
def _numpy_as_geoda_needs_it() -> Iterator[None]:
    """GeoDA uses what NumPy 2 no longer has, and writes a file into the working directory."""
    with attribute(np, "mat", np.asmatrix), attribute(np, "save", lambda *args, **kwargs: None):
        yield


@contextmanager
def _without_multiprocess() -> Iterator[None]:
    """AutoAttack imports multiprocess always, and needs it for several processes only."""
    if find_spec("multiprocess"):
        yield
        return
    sys.modules["multiprocess"] = ModuleType("multiprocess")
    try:
        yield
    finally:
        del sys.modules["multiprocess"]


def _mended(attack: Any, target: str) -> AbstractContextManager[None]:
    if target == "GeoDA":
        return _numpy_as_geoda_needs_it()
    return _without_multiprocess() if target == "AutoAttack" and not attack.parallel_pool_size else nullcontext()


def _build(estimator: Any, call: Call) -> Any:
    from art.attacks import evasion
    from art.exceptions import EstimatorError

    if call.targeted and not raw()[call.target].targeted:
        raise NotSupported(f"ART's {call.target} has no targeted version")
    if call.target == "TargetedUniversalPerturbation" and not call.targeted:
        raise NotSupported("ART's TargetedUniversalPerturbation has no untargeted version")
    cls = getattr(evasion, call.target)
    kwargs = dict(call.kwargs)
    valid = inspect.signature(cls).parameters
    if "targeted" in valid:
        kwargs.setdefault("targeted", call.targeted)  # the Boundary Attack's default is True
    if "verbose" in valid:
        kwargs.setdefault("verbose", False)
    # momentum is switched off in its TensorFlow implementation (ART's issue 2439), not in its NumPy one
    momentum = call.target == "MomentumIterativeMethod" and type(estimator).__name__ == "TensorFlowV2Classifier"
    of_the_stages = {
        keyword: kwargs.pop(keyword) for keyword in OF_THE_STAGES if call.target == "AutoAttack" and keyword in kwargs
    }
    if estimator.nb_classes < 3 and (
        call.target == "AutoAttack" or kwargs.get("loss_type") == "difference_logits_ratio"
    ):
        raise NotSupported(
            f"ART's {call.target}: its loss (DLR) needs more logits than {estimator.nb_classes} classes have"
        )
    try:
        with attribute(estimator, "all_framework_preprocessing", False) if momentum else nullcontext():
            attack = cls(estimator, **kwargs)
    except EstimatorError as error:
        raise NotSupported(f"ART's {call.target} needs more than this classifier has: {error}") from error
    for stage in attack.attacks if call.target == "AutoAttack" else ():
        if hasattr(stage, "verbose"):
            stage.verbose = False
        keyword_of_stage = "queries" if type(stage).__name__ == "SquareAttack" else "max_iter"
        if hasattr(stage, "max_iter"):
            stage.max_iter = of_the_stages.get(keyword_of_stage, stage.max_iter)
    return attack


def _probable(classifier: Classifier) -> Any:
    from sparring.adapters.libraries.art.estimator import ProbabilitiesEstimator

    return ProbabilitiesEstimator(classifier)


def _torch_estimator(module: Any, classifier: Classifier) -> Any:
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    class Single(nn.Module):
        """Several of ART's attacks pass images of float64."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(x.float())

    estimator = PyTorchClassifier(
        model=Single().eval(),
        loss=nn.CrossEntropyLoss(reduction="sum"),  # a mean lets an image's gradient shrink with its batch
        input_shape=classifier.input_shape,
        nb_classes=classifier.classes,
        clip_values=(0.0, 1.0),
        preprocessing=None,  # its default subtracts 0 and divides by 1 in every pass
        device_type="gpu" if next(module.parameters()).device.type == "cuda" else "cpu",
    )
    estimator.is_rnn = False  # else it would put the model into training mode
    return estimator


def _tensorflow_estimator(function: Callable[[Any], Any], classifier: Classifier) -> Any:
    import tensorflow
    from art.estimators.classification import TensorFlowV2Classifier

    def model(x: Any, training: bool = False) -> Any:
        return function(tensorflow.convert_to_tensor(x, tensorflow.float32))

    estimator = TensorFlowV2Classifier(
        model=model,
        nb_classes=classifier.classes,
        input_shape=classifier.input_shape,
        loss_object=tensorflow.keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum"),
        channels_first=True,
        clip_values=(0.0, 1.0),
        preprocessing=None,
    )
    # ART compiles this call, and the passes of a compiled call would be counted once
    estimator._forward_pass = lambda model, x, training: model(x)
    return estimator


LIBRARY = Library(
    name="art",
    package="adversarial-robustness-toolbox",
    requires="adversarial-robustness-toolbox>=1.20",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset({"torch", "keras-torch", "keras-tensorflow"}),
    reconciliations={**GRADIENT, **SEARCH, **AUTOATTACK},
)
