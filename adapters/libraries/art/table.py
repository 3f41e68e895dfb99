"""ART: the names of the canonical attacks and of their parameters."""

from __future__ import annotations

import math
from typing import Any

from sparring.adapters.attacks.library import AttackMapping, Context, To, Unsupported, maps
from sparring.adapters.libraries.art import patches

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
    ("patch", "l0"): patches.MAPPING,
    ("none", "linf"): Unsupported("ART has no attack that changes nothing: it is sparring's own"),
    ("uniform-noise", "linf"): Unsupported("ART has no noise attacks"),
    ("gaussian-noise", "l2"): Unsupported("ART has no noise attacks"),
}
