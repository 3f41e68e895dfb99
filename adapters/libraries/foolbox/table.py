"""Foolbox: the names of the canonical attacks and of their parameters."""

from __future__ import annotations

from typing import Any

from sparring.adapters.attacks.library import AttackMapping, Unsupported, maps

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
