"""The canonical attacks: each has one name, in the field's terms, every parameter explicit, and its source.

A library's own defaults are never inherited. What a suite leaves out is filled in from here, and becomes part of the
cell. ``eps`` and ``eps_step`` are in units of images in [0, 1]; ``eps`` has no default.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.parameters import REQUIRED, Parameter, Params, resolved

Norm = Literal["linf", "l2", "l0"]
Goal = Literal["budget", "minimal"]
Needs = Literal["gradients", "logits", "decisions", "nothing"]


@dataclass(frozen=True)
class Attack:
    """A canonical attack under one norm.

    - ``goal``: ``budget`` looks for the worst image within ``eps``, ``minimal`` for the nearest misclassified image.
    - ``needs``: what it asks of the classifier.
    - ``aims``: it always moves towards a class. An untargeted run gives it the next one, (y + 1) mod classes.
    - ``fits``: it is first trained on other images, as a patch is.
    - ``ensemble``: it is made of several attacks. What counts is which images it fools, not the images that it leaves.
    """

    name: str
    norm: Norm
    goal: Goal
    needs: Needs
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    aims: bool = False
    fits: bool = False
    ensemble: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """The parameters without a default."""
        return tuple(key for key, parameter in self.parameters.items() if parameter.default is REQUIRED)

    @property
    def example(self) -> Params:
        """Values for the parameters without a default, for a listing: 1 where it is a count, else 0.1."""
        return {key: 1 if self.parameters[key].type is int else 0.1 for key in self.required}

    def resolve(self, arguments: Mapping[str, Any]) -> Params:
        """Every parameter with its value: those given, checked, and the defaults. Raises ``InputError``."""
        return resolved(self.name, self.parameters, arguments)


def shortest(attack: Attack, params: Params) -> Params:
    """The fewest parameters from which ``attack.resolve`` makes these."""
    least = {key: params[key] for key in attack.required}
    for key in attack.parameters:
        if attack.resolve(least)[key] != params[key]:
            least[key] = params[key]
    return least


def in_words(value: Any) -> str:
    """A parameter's value for a table. A part of a ``worst-of`` is its library, its name, and what is no default."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(in_words, value))}]"
    if not isinstance(value, Mapping) or "attack" not in value:
        return str(value)
    params = {key: parameter for key, parameter in value.items() if key not in ("attack", "library", "norm")}
    canonical = catalogue().get((value["attack"], value.get("norm", "")))
    least = shortest(canonical, canonical.resolve(params)) if canonical else params
    names = [value["attack"]] if ":" in value["attack"] else [value.get("library", ""), value["attack"]]
    return " ".join([*names, *(f"{key}={in_words(parameter)}" for key, parameter in least.items() if key != "eps")])


EPS_LINF = Parameter(float, "largest change of a pixel, in units of [0, 1]", above=0, high=1)
EPS_L2 = Parameter(float, "largest Euclidean length of the change, in units of [0, 1]", above=0)


def _count(help: str, default: Any, low: int = 1) -> Parameter:
    return Parameter(int, help, default, low=low)


def _step(share: Callable[[Params], float]) -> Parameter:
    return Parameter(float, "length of one step, in the units of eps", lambda p: share(p), above=0)


MADRY_STEP = _step(lambda p: min(2.5 * p["eps"] / p.get("steps", 40), p["eps"]))
"""2.5 eps / steps, at most eps: every start can reach the ball's border (Madry et al. 2018, section 5)."""
EVEN_STEP = _step(lambda p: p["eps"] / p.get("steps", 10))
"""eps / steps: Dong et al. 2018, algorithm 1."""

MOMENTUM = {
    "eps": EPS_LINF,
    "steps": _count("number of steps", 10),
    "eps_step": EVEN_STEP,
    "decay": Parameter(float, "decay factor of the momentum", 1.0, low=0),
}


def _pgd(norm: Norm, eps: Parameter) -> Attack:
    return Attack(
        name="pgd",
        norm=norm,
        goal="budget",
        needs="gradients",
        source="Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, section 2.1",
        parameters={
            "eps": eps,
            "steps": _count("number of steps", 40),
            "eps_step": MADRY_STEP,
            "random_start": Parameter(bool, "start from a random point of the ball", True),
            "restarts": _count("number of starts; the best counts", 1),
        },
    )


def _square(norm: Norm, eps: Parameter) -> Attack:
    return Attack(
        name="square",
        norm=norm,
        goal="budget",
        needs="logits",
        source="Andriushchenko et al. 2020, Square Attack, algorithms 1 to 3",
        parameters={
            "eps": eps,
            "queries": _count("number of queries an image", 5000),
            "p_init": Parameter(float, "share of the pixels that the first square covers", 0.8, above=0, high=1),
            "restarts": _count("number of starts; the best counts", 1),
        },
    )


APGD = (
    "Croce, Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
)


def _apgd(norm: Norm, eps: Parameter) -> Attack:
    return Attack(
        name="apgd",
        norm=norm,
        goal="budget",
        needs="gradients",
        source=f"{APGD}, algorithm 1",
        parameters={
            "eps": eps,
            "steps": _count("number of steps", 100),
            "restarts": _count("number of starts; the first that succeeds counts", 1),
            "loss": Parameter(
                str,
                "ce: the cross-entropy; dlr: the difference of logits ratio (section 4)",
                "ce",
                choices=("ce", "dlr"),
            ),
            "rho": Parameter(float, "share of rising steps below which the step is halved", 0.75, low=0, high=1),
        },
    )


def _autoattack(norm: Norm, eps: Parameter) -> Attack:
    return Attack(
        name="autoattack",
        norm=norm,
        goal="budget",
        needs="gradients",
        source=(
            f"{APGD}, section 5: APGD-CE, targeted APGD-DLR, targeted FAB, Square, each on what the ones before left"
        ),
        parameters={
            "eps": eps,
            "steps": _count("steps of each APGD, and iterations of FAB", 100),
            "queries": _count("queries of Square", 5000),
            "targets": _count("classes that the targeted attacks aim at, the most probable first", 9),
        },
        ensemble=True,
    )


WORST_OF = ({"attack": "pgd", "library": "torchattacks"}, {"attack": "square", "library": "torchattacks"})
"""One attack with gradients and one without."""


def _worst_of(norm: Norm, eps: Parameter) -> Attack:
    return Attack(
        name="worst-of",
        norm=norm,
        goal="budget",
        needs="logits",
        source=(
            "Carlini et al. 2019, On Evaluating Adversarial Robustness, section 4: "
            "the per-image worst of several attacks"
        ),
        parameters={
            "eps": eps,
            "attacks": Parameter(
                list,
                "attacks in their order, each {attack, library, and its parameters}; norm and eps are filled in",
                WORST_OF,
            ),
            "survivors": Parameter(bool, "each attack only on the images that the ones before left", True),
        },
        ensemble=True,
    )


START_DRAWS = _count("images of uniform noise that are tried as a starting point", 100, low=0)


def _hopskipjump(norm: Norm) -> Attack:
    return Attack(
        name="hopskipjump",
        norm=norm,
        goal="minimal",
        needs="decisions",
        source="Chen, Jordan, Wainwright 2020, HopSkipJumpAttack, algorithm 2",
        parameters={
            "steps": _count("number of iterations", 50),
            "initial_evaluations": _count("queries for the first estimate of the gradient", 100),
            "max_evaluations": _count("most queries for one estimate of the gradient", 10000),
            "start_draws": START_DRAWS,
        },
    )


_ALL = (
    Attack(
        name="fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Goodfellow, Shlens, Szegedy 2015, Explaining and Harnessing Adversarial Examples, section 4",
        parameters={"eps": EPS_LINF},
    ),
    Attack(
        name="bim",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Kurakin, Goodfellow, Bengio 2017, Adversarial Examples in the Physical World, section 2.2",
        parameters={"eps": EPS_LINF, "steps": _count("number of steps", 10), "eps_step": MADRY_STEP},
    ),
    _pgd("linf", EPS_LINF),
    _pgd("l2", EPS_L2),
    Attack(
        name="mi-fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Dong et al. 2018, Boosting Adversarial Attacks with Momentum, algorithm 1",
        parameters=MOMENTUM,
    ),
    Attack(
        name="ni-fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Lin et al. 2020, Nesterov Accelerated Gradient and Scale Invariance, section 3.2",
        parameters=MOMENTUM,
    ),
    Attack(
        name="si-ni-fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Lin et al. 2020, Nesterov Accelerated Gradient and Scale Invariance, algorithm 1",
        parameters={**MOMENTUM, "scales": _count("copies of the image, each at half the scale of the one before", 5)},
    ),
    Attack(
        name="vmi-fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source="Wang, He 2021, Enhancing the Transferability through Variance Tuning, algorithm 1",
        parameters={
            **MOMENTUM,
            "samples": _count("neighbors for the variance of the gradient", 20),
            "beta": Parameter(float, "radius of the neighborhood, in units of eps", 1.5, above=0),
        },
    ),
    Attack(
        name="vni-fgsm",
        norm="linf",
        goal="budget",
        needs="gradients",
        source=(
            "Wang, He 2021, Enhancing the Transferability through Variance Tuning, algorithm 1, "
            "with NI-FGSM's look-ahead"
        ),
        parameters={
            **MOMENTUM,
            "samples": _count("neighbors for the variance of the gradient", 20),
            "beta": Parameter(float, "radius of the neighborhood, in units of eps", 1.5, above=0),
        },
    ),
    Attack(
        name="deepfool",
        norm="l2",
        goal="minimal",
        needs="gradients",
        source="Moosavi-Dezfooli, Fawzi, Frossard 2016, DeepFool, algorithm 2",
        parameters={
            "steps": _count("most iterations", 50),
            "overshoot": Parameter(float, "how far past the boundary, as a share of the distance", 0.02, low=0),
            "candidates": _count("classes considered, the most probable first", 10, low=2),
        },
    ),
    Attack(
        name="cw",
        norm="l2",
        goal="minimal",
        needs="gradients",
        source="Carlini, Wagner 2017, Towards Evaluating the Robustness of Neural Networks, section VI.A",
        parameters={
            "steps": _count("steps of the optimizer for one c", 1000),
            "learning_rate": Parameter(float, "of the optimizer", 0.01, above=0),
            "confidence": Parameter(float, "margin between the logits (kappa)", 0.0, low=0),
            # figure 2: below .1 the attack rarely succeeds, from 1 on it always does
            "initial_const": Parameter(float, "first value of c", 1.0, above=0),
            "search_steps": _count("steps of the binary search for c", 9),
            "abort_early": Parameter(bool, "end a search step when the loss no longer falls", True),
        },
    ),
    Attack(
        name="jsma",
        norm="l0",
        goal="minimal",
        needs="gradients",
        source="Papernot et al. 2016, The Limitations of Deep Learning in Adversarial Settings, algorithms 2 and 3",
        parameters={
            "theta": Parameter(float, "change of a feature in one step", 1.0, low=-1, high=1),
            "gamma": Parameter(float, "largest share of the features that is changed", 0.1, above=0, high=1),
        },
        aims=True,
    ),
    _square("linf", EPS_LINF),
    _square("l2", EPS_L2),
    _apgd("linf", EPS_LINF),
    _apgd("l2", EPS_L2),
    _autoattack("linf", EPS_LINF),
    _autoattack("l2", EPS_L2),
    _worst_of("linf", EPS_LINF),
    _worst_of("l2", EPS_L2),
    Attack(
        name="pixle",
        norm="l0",
        goal="minimal",
        needs="logits",
        source="Pomponi, Scardapane, Uncini 2022, Pixle: a fast and effective black-box attack, section III",
        parameters={
            "x_dimensions": Parameter(tuple, "least and greatest width of the patch, pixels", (2, 10), low=1),
            "y_dimensions": Parameter(tuple, "least and greatest height of the patch, pixels", (2, 10), low=1),
            "pixel_mapping": Parameter(
                str,
                "where the pixels of the patch go",
                "random",
                choices=("random", "similarity", "similarity_random", "distance", "distance_random"),
            ),
            "restarts": _count("number of rounds", 20),
            "iterations": _count("patches tried in a round", 10),
            "update_each_iteration": Parameter(bool, "keep the best after each patch, not each round", False),
        },
    ),
    Attack(
        name="one-pixel",
        norm="l0",
        goal="minimal",
        needs="logits",
        source="Su, Vargas, Sakurai 2019, One Pixel Attack for Fooling Deep Neural Networks, section III",
        parameters={
            "pixels": _count("how many pixels may change", 1),
            "steps": _count("generations of the differential evolution", 100),
            "population": _count("size of a generation", 400),
        },
    ),
    _hopskipjump("l2"),
    _hopskipjump("linf"),
    Attack(
        name="boundary",
        norm="l2",
        goal="minimal",
        needs="decisions",
        source="Brendel, Rauber, Bethge 2018, Decision-Based Adversarial Attacks, algorithm 1",
        parameters={
            "steps": _count("number of steps", 5000),
            "spherical_step": Parameter(float, "first step along the sphere, share of the distance", 0.01, above=0),
            "source_step": Parameter(float, "first step towards the image, share of the distance", 0.01, above=0),
            "step_adaptation": Parameter(float, "factor by which the steps grow or shrink", 1.5, above=1),
            "start_draws": START_DRAWS,
        },
    ),
    Attack(
        name="salt-and-pepper",
        norm="l2",
        goal="minimal",
        needs="decisions",
        source="Rauber, Brendel, Bethge 2017, Foolbox: SaltAndPepperNoiseAttack",
        parameters={
            "steps": _count("amounts of noise that are tried", 100),
            "across_channels": Parameter(bool, "the same noise in all channels", True),
        },
    ),
    Attack(
        name="pixel-swap",
        norm="l0",
        goal="minimal",
        needs="decisions",
        source="Campbell, Lasselle, Enhancing the Robustness of Deep Neural Networks, iterative pixel swap",
        parameters={"steps": _count("most pairs of pixels that change places; 0: all", 0, low=0)},
    ),
    Attack(
        name="patch",
        norm="l0",
        goal="minimal",
        needs="gradients",
        source="Brown, Mané, Roy, Abadi, Gilmer 2017, Adversarial Patch, section 2",
        parameters={
            "size": _count("side of the patch, of a circle its diameter, in pixels", REQUIRED),
            "shape": Parameter(str, "of the patch", "square", choices=("square", "circle")),
            "steps": _count("number of steps", 200),
            "learning_rate": Parameter(float, "of the optimizer, in units of [0, 1]", 0.2, above=0),
            "decay": Parameter(bool, "let the learning rate fall to 0, by the same each step", True),
            "batch": _count("training images a step", 4),
            # the greatest rotation in the authors' code
            "rotation": Parameter(float, "greatest rotation either way, in degrees", 22.5, low=0, high=180),
            "scale_min": Parameter(float, "least scale at which it is pasted", 0.9, above=0),
            "scale_max": Parameter(float, "greatest scale at which it is pasted", 1.1, above=0),
        },
        fits=True,
    ),
    Attack("none", "linf", "minimal", "nothing", "the images as they are, a control"),
    Attack(
        name="uniform-noise",
        norm="linf",
        goal="budget",
        needs="nothing",
        source="noise drawn uniformly from [-eps, eps], a control: Foolbox's LinfAdditiveUniformNoiseAttack",
        parameters={"eps": EPS_LINF},
    ),
    Attack(
        name="gaussian-noise",
        norm="l2",
        goal="budget",
        needs="nothing",
        source="normal noise scaled to length eps, a control: Foolbox's L2AdditiveGaussianNoiseAttack",
        parameters={"eps": EPS_L2},
    ),
)


ATTACKS: dict[tuple[str, str], Attack] = {(attack.name, attack.norm): attack for attack in _ALL}
"""The canonical attacks that sparring ships, by (name, norm). An attack's first norm is its default."""


@cache
def catalogue() -> dict[tuple[str, str], Attack]:
    """``ATTACKS`` and those of other packages: entry points of the group ``sparring.attacks``, each an ``Attack``.

    It is a function because an entry point imports its package, and that may import this module.
    """
    attacks = dict(ATTACKS)
    for point in importlib.metadata.entry_points(group="sparring.attacks"):
        attack = point.load()
        if not isinstance(attack, Attack):
            raise InputError(f"the entry point {point.name!r} of sparring.attacks is a {type(attack).__name__}")
        attacks.setdefault((attack.name, attack.norm), attack)
    return attacks


def names() -> list[str]:
    """The canonical names, each once, in the catalogue's order."""
    return list(dict.fromkeys(name for name, _ in catalogue()))


def find(name: str, norm: str | None = None) -> Attack:
    """The canonical attack of that name, by default under its first norm. Raises ``InputError``."""
    norms = [key[1] for key in catalogue() if key[0] == name]
    if not norms:
        raise InputError(unknown("attack", name, names()) + ", or library:ClassName")
    for candidate in norms:
        if norm is None or candidate == norm:
            return catalogue()[name, candidate]
    raise InputError(f"{name}: {unknown('norm', norm, norms)}")
