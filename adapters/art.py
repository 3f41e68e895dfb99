"""The Adversarial Robustness Toolbox: what each attack is called there, and how it is run."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr
from functools import lru_cache
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from sparring.adapters import art_patches
from sparring.adapters.art_autoattack import RECONCILIATIONS as AUTOATTACK
from sparring.adapters.art_reconciliations import RECONCILIATIONS as GRADIENT
from sparring.adapters.art_search_reconciliations import RECONCILIATIONS as SEARCH
from sparring.adapters.attacks import Needs
from sparring.adapters.coexistence import guard
from sparring.adapters.errors import NotSupported
from sparring.adapters.library import (
    AttackMapping,
    Call,
    Context,
    Crafted,
    Frameworks,
    Library,
    RawAttack,
    Route,
    Run,
    To,
    Unsupported,
    blaming,
    maps,
)
from sparring.adapters.protocol import Classifier, Counter, Images, TensorflowNative, TorchNative, counted
from sparring.adapters.rewriting import attribute
from sparring.adapters.starts import find_starts

BATCH: dict[str, Any] = {"batch_size": lambda c: max(c.n, 1)}
QUIET: dict[str, Any] = {"verbose": False}
AIM: dict[str, Any] = {"targeted": lambda c: c.targeted}
ITERATED: dict[str, Any] = {"eps": "eps", "steps": "max_iter", "eps_step": "eps_step"}
NO_SUMMARY: dict[str, Any] = {"summary_writer": False}


def _pgd(norm: float) -> AttackMapping:
    return maps(
        "ProjectedGradientDescent",
        **ITERATED,
        # its number of random starts; none of them is one start at the image itself
        random_start=To("num_random_init", lambda value, c: c.params["restarts"] if value else 0),
        restarts=To("num_random_init", lambda value, c: value if c.params["random_start"] else 0),
        pinned={"norm": norm, "decay": None, "random_eps": False, **AIM, **BATCH, **NO_SUMMARY, **QUIET},
    )


def _square(norm: float, note: str | None = None) -> AttackMapping:
    return maps(
        "SquareAttack",
        eps="eps",
        queries="max_iter",
        p_init=To("p_init", lambda value, c: min(value, math.nextafter(1, 0))),  # it wants less than 1
        restarts="nb_restarts",
        pinned={"norm": norm, "adv_criterion": None, "loss": None, **BATCH, **QUIET},
        targeted=Unsupported("its SquareAttack has no targeted version"),
        note=note,
    )


def _apgd(norm: float) -> AttackMapping:
    return maps(
        "AutoProjectedGradientDescent",
        eps="eps",
        steps="max_iter",
        restarts="nb_random_init",
        loss=To("loss_type", lambda value, c: {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}[value]),
        rho=Unsupported("its rho is always .75", unless=lambda value, context: value == 0.75),
        # algorithm 1 begins with steps of twice eps
        pinned={"norm": norm, "eps_step": lambda c: 2 * c.params["eps"], **AIM, **BATCH, **QUIET},
        targeted=Unsupported("its APGD raises a targeted loss in the first step that it lowers afterwards"),
    )


def _autoattack(norm: float) -> AttackMapping:
    return maps(
        "AutoAttack",
        eps="eps",
        steps="max_iter",
        queries="queries",
        targets=Unsupported("its stages aim at no class"),
        pinned={
            "norm": norm,
            "eps_step": lambda c: 2 * c.params["eps"],
            "attacks": None,
            "estimator_orig": None,
            "targeted": False,
            "parallel_pool_size": 0,
            **BATCH,
        },
        targeted=Unsupported("its AutoAttack has no targeted version"),
        note="runs APGD-CE, untargeted APGD-DLR, DeepFool and Square, five starts each but DeepFool's",
    )


def _hopskipjump(norm: float) -> AttackMapping:
    return maps(
        "HopSkipJump",
        steps="max_iter",
        initial_evaluations="init_eval",
        max_evaluations="max_eval",
        start_draws="init_size",
        pinned={"norm": norm, "batch_size": PROBES, **AIM, **QUIET},
    )


def _deepfool_batch(c: Context) -> int:
    """As many images as fit into 2 GB with the gradients of all classes."""
    return max(1, min(c.n, 2**31 // (4 * c.classes * math.prod(c.input_shape))))


PROBES = 256
"""Images a call, for attacks that take one image at a time and probe around it."""
NO_MIXTURE = Unsupported("ART mixes its own attacks only: sparring's worst-of takes any library's")
NO_NESTEROV = Unsupported("ART has no Nesterov attack")
NO_TUNING = Unsupported("ART has no variance tuning")

ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    ("fgsm", "linf"): maps(
        "FastGradientMethod",
        eps="eps",
        pinned={
            "norm": math.inf,
            "eps_step": lambda c: c.params["eps"],  # of `minimal` only
            "minimal": False,
            "num_random_init": 0,
            **AIM,
            **BATCH,
            **NO_SUMMARY,
        },
    ),
    ("bim", "linf"): maps("BasicIterativeMethod", **ITERATED, pinned={**AIM, **BATCH, **QUIET}),
    ("pgd", "linf"): _pgd(math.inf),
    ("pgd", "l2"): _pgd(2),
    ("mi-fgsm", "linf"): maps(
        "MomentumIterativeMethod", **ITERATED, decay="decay", pinned={"norm": math.inf, **AIM, **BATCH, **QUIET}
    ),
    ("ni-fgsm", "linf"): NO_NESTEROV,
    ("si-ni-fgsm", "linf"): NO_NESTEROV,
    ("vmi-fgsm", "linf"): NO_TUNING,
    ("vni-fgsm", "linf"): NO_TUNING,
    ("deepfool", "l2"): maps(
        "DeepFool",
        steps="max_iter",
        overshoot="epsilon",
        candidates="nb_grads",
        pinned={"batch_size": _deepfool_batch, **QUIET},
        targeted=Unsupported("its DeepFool has no targeted version"),
    ),
    ("cw", "l2"): maps(
        "CarliniL2Method",
        steps="max_iter",
        learning_rate="learning_rate",
        confidence="confidence",
        initial_const="initial_const",
        search_steps="binary_search_steps",
        abort_early=Unsupported(
            "it always ends for an image whose line search finds nothing lower", unless=lambda value, context: value
        ),
        pinned={"max_halving": 5, "max_doubling": 5, **AIM, **BATCH, **QUIET},
        note="descends with a line search, where the source uses Adam; c doubles where the source takes tenfold",
    ),
    ("jsma", "l0"): maps(
        "SaliencyMapMethod",
        theta="theta",
        gamma="gamma",
        pinned={**BATCH, **QUIET},
        note="takes the two steepest features, where the source looks for the best pair",
    ),
    ("square", "linf"): _square(math.inf),
    ("square", "l2"): _square(2, "divides a new window by the length that the source multiplies it with"),
    ("apgd", "linf"): _apgd(math.inf),
    ("apgd", "l2"): _apgd(2),
    ("autoattack", "linf"): _autoattack(math.inf),
    ("autoattack", "l2"): _autoattack(2),
    ("worst-of", "linf"): NO_MIXTURE,
    ("worst-of", "l2"): NO_MIXTURE,
    ("pixle", "l0"): Unsupported("ART has no Pixle"),
    ("one-pixel", "l0"): maps(
        "PixelAttack",
        pixels="th",
        steps="max_iter",
        population=Unsupported("its population is always about 400", unless=lambda value, context: value == 400),
        pinned={"es": 1, **AIM, **QUIET},
        note="takes new values of pixels from the 256 of a byte",
    ),
    ("hopskipjump", "l2"): _hopskipjump(2),
    ("hopskipjump", "linf"): _hopskipjump(math.inf),
    ("boundary", "l2"): maps(
        "BoundaryAttack",
        steps="max_iter",
        spherical_step="delta",
        source_step="epsilon",
        step_adaptation=To("step_adapt", lambda value, c: 1 / value),
        start_draws="init_size",
        # the source step below which an image is done is Foolbox's, where the attack comes from
        pinned={"batch_size": PROBES, "num_trial": 25, "sample_size": 20, "min_epsilon": 1e-7, **AIM, **QUIET},
        note="one of its steps is up to 25 times 20 proposals, where the source's is one",
    ),
    ("salt-and-pepper", "l2"): Unsupported("ART has no salt-and-pepper noise"),
    ("pixel-swap", "l0"): Unsupported("ART has no pixel swap"),
    ("patch", "l0"): art_patches.MAPPING,
    ("none", "linf"): Unsupported("ART has no attack that changes nothing: it is sparring's own"),
    ("uniform-noise", "linf"): Unsupported("ART has no noise attacks"),
    ("gaussian-noise", "l2"): Unsupported("ART has no noise attacks"),
}

OWN_ESTIMATORS = ("AutoAttack", "AutoProjectedGradientDescent", "ShadowAttack")
"""What runs on ART's own estimators only, beside what has its framework in its name; bridged on one of a torch view."""
BROKEN_ON_TENSORFLOW = ("AutoAttack", "AutoProjectedGradientDescent")
"""Their losses want what Keras 3 no longer has (ART 1.20: losses.Reduction)."""
ONE_IMAGE = ("ShadowAttack",)
WANT_PROBABILITIES = ("SimBA", "VirtualAdversarialMethod")
"""Black-box attacks that refuse logits."""
AT_A_CLASS = ("SaliencyMapMethod", "TargetedUniversalPerturbation")
"""Their ``y`` is the class to reach, always."""
NOT_AT_A_CLASS = ("AutoAttack", "SignOPTAttack")
"""Their ``targeted`` means more attacks away from the label, or wants an image of the target."""
ON_THEIR_OWN_PREDICTION = ("DeepFool",)
"""Untargeted they leave the predicted class, not the label: an image already wrong would be moved to its true class."""
FROM_A_START = ("BoundaryAttack", "BrendelBethgeAttack", "HopSkipJump")
"""Their own starts come from a fresh ``RandomState()``, which no seed reaches."""
OF_THE_STAGES = ("max_iter", "queries")
"""What AutoAttack's constructor doesn't take, though the attacks that it is made of have it."""
IN_BYTES = ("PixelAttack", "ThresholdAttack")


@contextmanager
def session(classifier: Classifier, route: Route, counter: Counter) -> Iterator[Run]:
    """ART on its own estimator of the classifier's framework, or on ours over the protocol."""
    guard()
    seen = counted(classifier, counter)

    def decide(x: Images) -> Any:
        return seen.logits(x).argmax(axis=1)

    with ExitStack() as stack:
        if route == "bridged":
            from sparring.adapters.art_estimator import estimator as bridge

            estimator: Any = bridge(seen)
        elif isinstance(classifier, TorchNative):
            estimator = _torch_estimator(stack.enter_context(classifier.torch_module(counter)), classifier)
        elif isinstance(classifier, TensorflowNative):
            estimator = _tensorflow_estimator(classifier.tensorflow_function(counter), classifier)
        else:
            raise NotSupported(f"ART has no native route to a {type(classifier).__name__}")

        def of_torch() -> Any:
            """ART's estimator for torch, over a view of whatever is no torch network."""
            if route == "native" and isinstance(classifier, TorchNative):
                return estimator
            from sparring.adapters.art_estimator import AnswersNaN
            from sparring.adapters.torch_view import TorchView

            return _torch_estimator(TorchView(AnswersNaN(seen)), classifier)

        patch = art_patches.session(lambda call: _build(of_torch(), call), classifier.classes)

        def run(call: Call) -> Images | Crafted:
            if call.target == art_patches.TARGET:
                with blaming("ART", call.target):
                    return patch(call)
            if route == "bridged" and call.target.endswith("TensorFlowV2"):
                raise NotSupported(f"ART's {call.target} runs on ART's own estimators only, which is the native route")
            chosen = estimator
            if call.target in WANT_PROBABILITIES:
                chosen = _probable(seen)
            elif _of_torch(call.target, route, classifier):
                chosen = of_torch()
            with blaming("ART", call.target):
                return _run(chosen, decide, call)

        yield run


def _of_torch(target: str, route: Route, classifier: Classifier) -> bool:
    """Whether it runs on a torch view of the classifier."""
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
    # without labels JSMA draws its targets, and the shadow attack isn't made a targeted one
    labelled = call.targeted or call.target not in (*AT_A_CLASS, *ONE_IMAGE)
    # standard error gets the progress bars of attacks within attacks
    with redirect_stderr(StringIO()), _mended(attack, call.target):
        for part in rows[:, None] if _singly(attack, call) else [rows]:
            if len(part):
                result[part] = attack.generate(call.x[part], one_hot[part] if labelled else None, **more)
    if call.target in IN_BYTES:
        # it multiplies by 255 and divides again, which moves every pixel by a rounding error
        result = np.where(np.abs(result - call.x) < 1e-6, call.x, result)
    return result


def _singly(attack: Any, call: Call) -> bool:
    # its DeepFool considers the candidates of all images for each of them
    united = call.target == "DeepFool" and attack.nb_grads < attack.estimator.nb_classes
    return call.singly or call.target in ONE_IMAGE or (call.canonical is not None and united)


@contextmanager
def _mended_numpy() -> Iterator[None]:
    """GeoDA asks for what NumPy 2 dropped, and leaves a file in the working directory."""
    with attribute(np, "mat", np.asmatrix), attribute(np, "save", lambda *args, **kwargs: None):
        yield


@contextmanager
def _without_multiprocess() -> Iterator[None]:
    """AutoAttack imports multiprocess, which it needs only for several processes."""
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
        return _mended_numpy()
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
            f"ART's {call.target}: its loss (DLR) wants more logits than {estimator.nb_classes} classes give"
        )
    try:
        with attribute(estimator, "all_framework_preprocessing", False) if momentum else nullcontext():
            attack = cls(estimator, **kwargs)
    except EstimatorError as error:
        raise NotSupported(f"ART's {call.target} needs more than this classifier has: {error}") from error
    for stage in attack.attacks if call.target == "AutoAttack" else ():
        if hasattr(stage, "verbose"):
            stage.verbose = False
        told = "queries" if type(stage).__name__ == "SquareAttack" else "max_iter"
        if hasattr(stage, "max_iter"):
            stage.max_iter = of_the_stages.get(told, stage.max_iter)
    return attack


def _probable(classifier: Classifier) -> Any:
    from sparring.adapters.art_estimator import ProbabilitiesEstimator

    return ProbabilitiesEstimator(classifier)


def _torch_estimator(module: Any, classifier: Classifier) -> Any:
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    class Single(nn.Module):
        """Several of its attacks compute in float64, and hand that on."""

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
    # its own compiles the call, and what is compiled is counted once
    estimator._forward_pass = lambda model, x, training: model(x)
    return estimator


NEEDS: dict[str, Needs] = {
    "AutoAttack": "gradients",
    "BrendelBethgeAttack": "gradients",
    "TargetedUniversalPerturbation": "gradients",
    "UniversalPerturbation": "gradients",
    "BoundaryAttack": "decisions",
    "GeoDA": "decisions",
    "HopSkipJump": "decisions",
    "SignOPTAttack": "decisions",
    "SpatialTransformation": "decisions",
}
"""What ``_estimator_requirements`` doesn't tell; all others need gradients where they say so, else logits."""

PATCH = "it makes one patch for all images, from others than it is tested on: the attack patch gives it these"
FEATURES = "it moves towards the inner features of another image, not from a class or towards one"
UNSUPPORTED = {
    "AdversarialPatch": PATCH,
    "AdversarialPatchNumpy": PATCH,
    "AdversarialPatchPyTorch": PATCH,
    "AdversarialPatchTensorFlowV2": PATCH,
    "FeatureAdversariesNumpy": FEATURES,
    "FeatureAdversariesPyTorch": FEATURES,
    "FeatureAdversariesTensorFlowV2": FEATURES,
    "FrameSaliencyAttack": "it attacks videos",
    "OverTheAirFlickeringPyTorch": "it attacks videos",
    "GRAPHITEBlackbox": "it needs a mask and a target image beside every image",
    "GRAPHITEWhiteboxPyTorch": "it needs a mask and a target image beside every image",
    "LaserAttack": "it needs a generator of laser beams",
    "LowProFool": "it attacks tables of features",
    "MalwareGDTensorFlow": "it attacks malware detectors",
    "OverloadPyTorch": "it attacks object detectors",
    "SNAL": "it attacks object detectors",
}
OTHER_ESTIMATORS = {
    "ObjectDetectorMixin": "it attacks object detectors",
    "ObjectTrackerMixin": "it attacks object trackers",
    "SpeechRecognizerMixin": "it attacks speech recognisers",
    "ScikitlearnDecisionTreeClassifier": "it attacks decision trees",
    "GPyGaussianProcessClassifier": "it attacks Gaussian processes",
}


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every evasion attack class of the installed ART."""
    guard()
    from art.attacks import evasion
    from art.attacks.attack import EvasionAttack

    found = {
        name: _raw(name, cls)
        for name, cls in sorted(vars(evasion).items())
        if inspect.isclass(cls) and issubclass(cls, EvasionAttack)
    }
    found.setdefault(  # ART leaves it out where its package is missing
        "BrendelBethgeAttack",
        RawAttack(
            "BrendelBethgeAttack",
            "gradients",
            inspect.Signature(),
            unsupported="needs the package numba, which is not installed: pip install 'sparring[extras]'",
        ),
    )
    return found


def _raw(name: str, cls: Any) -> RawAttack:
    required = {getattr(one, "__name__", "") for one in cls._estimator_requirements}
    needs: Needs = "gradients" if required & {"LossGradientsMixin", "ClassGradientsMixin"} else "logits"
    signature = inspect.signature(cls)
    runs_on: tuple[str, ...] = Frameworks
    if name.endswith("PyTorch"):
        # the route to Keras on TensorFlow is another of ART's own estimators
        runs_on = tuple(framework for framework in Frameworks if framework != "keras-tensorflow")
    elif name.endswith("TensorFlowV2"):
        runs_on = ("keras-tensorflow",)
    others = [reason for mixin, reason in OTHER_ESTIMATORS.items() if mixin in required]
    return RawAttack(
        name=name,
        needs=NEEDS.get(name, needs),
        signature=signature,
        runs_on=runs_on,
        unsupported=UNSUPPORTED.get(name, others[0] if others else None),
        call_keywords=OF_THE_STAGES if name == "AutoAttack" else (),
        targeted=name in AT_A_CLASS or ("targeted" in signature.parameters and name not in NOT_AT_A_CLASS),
    )


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
