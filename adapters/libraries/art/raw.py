"""Every attack class of the installed ART: what it needs of a classifier, and why some can't attack one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sparring.adapters.attacks.catalogue import Needs
from sparring.adapters.attacks.library import Frameworks, RawAttack
from sparring.adapters.frameworks.coexistence import guard

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
"""Classes whose needs ``_estimator_requirements`` doesn't say. All others need gradients if it says so, else logits."""

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
    "SpeechRecognizerMixin": "it attacks speech recognizers",
    "ScikitlearnDecisionTreeClassifier": "it attacks decision trees",
    "GPyGaussianProcessClassifier": "it attacks Gaussian processes",
}
AT_A_CLASS = ("SaliencyMapMethod", "TargetedUniversalPerturbation")
"""Their ``y`` is always the class to reach."""
NOT_AT_A_CLASS = ("AutoAttack", "SignOPTAttack")
"""Their ``targeted`` is something else: more attacks away from the label, or an image of the target."""
OF_THE_STAGES = ("max_iter", "queries")
"""Parameters that the attacks within AutoAttack have, and its constructor doesn't take."""


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every evasion attack class of the installed ART."""
    guard()
    from art.attacks import evasion
    from art.attacks.attack import EvasionAttack

    classes = {
        name: _raw(name, cls)
        for name, cls in sorted(vars(evasion).items())
        if inspect.isclass(cls) and issubclass(cls, EvasionAttack)
    }
    classes.setdefault(  # ART leaves it out where its package is missing
        "BrendelBethgeAttack",
        RawAttack(
            "BrendelBethgeAttack",
            "gradients",
            inspect.Signature(),
            unsupported="needs the package numba, which is not installed: pip install 'sparring[extras]'",
        ),
    )
    return classes


def _raw(name: str, cls: Any) -> RawAttack:
    required = {getattr(one, "__name__", "") for one in cls._estimator_requirements}
    needs: Needs = "gradients" if required & {"LossGradientsMixin", "ClassGradientsMixin"} else "logits"
    signature = inspect.signature(cls)
    runs_on: tuple[str, ...] = Frameworks
    if name.endswith("PyTorch"):
        # Keras on TensorFlow has another of ART's estimators
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
