"""torchattacks: the names of the canonical attacks and of their parameters."""

from __future__ import annotations

from typing import Any

from sparring.adapters.attacks.library import AttackMapping, To, Unsupported, maps

ONE_START = Unsupported("it has one start only", unless=lambda value, context: value == 1)
ALL_CLASSES = Unsupported("it considers all classes", unless=lambda value, context: value >= context.classes)

MOMENTUM: dict[str, Any] = {"eps": "eps", "steps": "steps", "eps_step": "alpha", "decay": "decay"}


def _square(norm: str) -> AttackMapping:
    return maps(
        "Square",
        eps="eps",
        queries="n_queries",
        p_init="p_init",
        restarts="n_restarts",
        pinned={
            "norm": norm,
            "loss": lambda c: "ce" if c.targeted else "margin",  # section 3.1
            "resc_schedule": True,  # the source's schedule is made for 10,000 queries and rescaled to fewer
            "seed": lambda c: c.seed,
            "verbose": False,
        },
    )


def _apgd(norm: str) -> AttackMapping:
    return maps(
        "APGD",
        eps="eps",
        steps="steps",
        restarts="n_restarts",
        loss="loss",
        rho="rho",
        pinned={"norm": norm, "seed": lambda c: c.seed, "eot_iter": 1, "verbose": False},
        targeted=Unsupported("its APGD has no targeted version"),
    )


def _autoattack(norm: str) -> AttackMapping:
    return maps(
        "AutoAttack",
        eps="eps",
        steps="steps",
        queries="n_queries",
        targets=To("n_classes", lambda value, c: min(value, c.classes - 1) + 1),  # it aims at one class fewer
        pinned={"norm": norm, "version": "standard", "seed": lambda c: c.seed, "verbose": False},
        targeted=Unsupported("its AutoAttack has no targeted version"),
    )


NO_MIXTURE = Unsupported("torchattacks mixes its own attacks only: sparring's worst-of takes any library's")

ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    ("fgsm", "linf"): maps("FGSM", eps="eps"),
    ("bim", "linf"): maps("BIM", eps="eps", steps="steps", eps_step="alpha"),
    ("pgd", "linf"): maps(
        "PGD", eps="eps", steps="steps", eps_step="alpha", random_start="random_start", restarts=ONE_START
    ),
    ("pgd", "l2"): maps(
        "PGDL2",
        eps="eps",
        steps="steps",
        eps_step="alpha",
        random_start="random_start",
        restarts=ONE_START,
        pinned={"eps_for_division": 1e-10},
    ),
    ("mi-fgsm", "linf"): maps("MIFGSM", **MOMENTUM),
    ("ni-fgsm", "linf"): maps("NIFGSM", **MOMENTUM),
    ("si-ni-fgsm", "linf"): maps("SINIFGSM", **MOMENTUM, scales="m"),
    ("vmi-fgsm", "linf"): maps("VMIFGSM", **MOMENTUM, samples="N", beta="beta"),
    ("vni-fgsm", "linf"): maps("VNIFGSM", **MOMENTUM, samples="N", beta="beta"),
    ("deepfool", "l2"): maps(
        "DeepFool",
        steps="steps",
        overshoot="overshoot",
        candidates=ALL_CLASSES,
        targeted=Unsupported("its DeepFool has no targeted version"),
        note="overshoots each step by itself, not their sum: its images end on the boundary, to within rounding",
    ),
    ("cw", "l2"): maps(
        "CW",
        steps="steps",
        learning_rate="lr",
        confidence="kappa",
        initial_const="c",
        search_steps=Unsupported(
            "it does not search for c, which stays at initial_const", unless=lambda value, context: value == 1
        ),
        abort_early=Unsupported(
            "it always ends when the whole batch's loss no longer falls", unless=lambda value, context: value
        ),
        note="pixels at exactly 0 or 1 never move; gets its logits raised above 0, where alone its margin is right",
    ),
    ("jsma", "l0"): maps("JSMA", theta="theta", gamma="gamma"),
    ("square", "linf"): _square("Linf"),
    ("square", "l2"): _square("L2"),
    ("apgd", "linf"): _apgd("Linf"),
    ("apgd", "l2"): _apgd("L2"),
    ("autoattack", "linf"): _autoattack("Linf"),
    ("autoattack", "l2"): _autoattack("L2"),
    ("worst-of", "linf"): NO_MIXTURE,
    ("worst-of", "l2"): NO_MIXTURE,
    ("pixle", "l0"): maps(
        "Pixle",
        x_dimensions="x_dimensions",
        y_dimensions="y_dimensions",
        pixel_mapping="pixel_mapping",
        restarts="restarts",
        iterations="max_iterations",
        update_each_iteration="update_each_iteration",
    ),
    ("one-pixel", "l0"): maps(
        "OnePixel", pixels="pixels", steps="steps", population="popsize", pinned={"inf_batch": 128}
    ),
    ("hopskipjump", "l2"): Unsupported("torchattacks has no HopSkipJump"),
    ("hopskipjump", "linf"): Unsupported("torchattacks has no HopSkipJump"),
    ("boundary", "l2"): Unsupported("torchattacks has no boundary attack"),
    ("salt-and-pepper", "l2"): Unsupported("torchattacks has no salt-and-pepper noise"),
    ("pixel-swap", "l0"): Unsupported("torchattacks has no pixel swap"),
    ("patch", "l0"): Unsupported("torchattacks has no adversarial patches"),
    ("none", "linf"): Unsupported("torchattacks has no attack that changes nothing: it is sparring's own"),
    ("uniform-noise", "linf"): Unsupported("torchattacks has no uniform noise"),
    ("gaussian-noise", "l2"): Unsupported("torchattacks' GN has a standard deviation, not a length"),
}
