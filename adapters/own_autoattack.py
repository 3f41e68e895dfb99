"""AutoAttack by its authors' protocol, composed of pieces that torchattacks has."""

from __future__ import annotations

from typing import Any

from sparring.adapters.errors import NotSupported
from sparring.adapters.library import Crafted
from sparring.adapters.own_worst_of import run_parts
from sparring.adapters.protocol import Classifier, Images, Labels
from sparring.adapters.support import Request, request

NORMS = {"linf": "Linf", "l2": "L2"}


def autoattack(
    classifier: Classifier,
    x: Images,
    y: Labels,
    *,
    targeted: bool,
    norm: str,
    eps: float,
    steps: int,
    queries: int,
    targets: int,
    part_seed: int,
) -> Crafted:
    """APGD on the cross-entropy, targeted APGD-DLR, targeted FAB, Square: each on the images that are left.

    x: float32 (N, C, H, W) in [0, 1]; y (N,). ``steps`` are those of each APGD and of FAB, for each of the ``targets``
    most probable other classes (all, where there are fewer); one start each. An image's end hangs on the image and the
    seed alone, not on its batch: every image gets the same draws, and its own step (``torchattacks_draws``).

    Returns the images within ``eps`` and, for each, ``fooled_by`` (``own_worst_of.worst_of``); an image that withstands
    all comes out at its smallest margin. Raises ``NotSupported`` for fewer than four classes.

    Source: Croce, Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, section 5, the version ``standard`` of the authors' code (github.com/fra31/auto-attack).
    """
    from sparring.adapters.torchattacks_draws import draws_for_each_image, steps_of_each_image

    if classifier.classes < 4:
        raise NotSupported(
            f"autoattack: its targeted loss (DLR) is made of four logits, and the model has {classifier.classes} "
            "classes: take worst-of with apgd (loss ce) and square"
        )
    asked = stages(norm, eps, steps, queries, min(targets, classifier.classes - 1), part_seed)
    with draws_for_each_image(), steps_of_each_image():
        return run_parts(classifier, x, y, norm, eps, asked, True, part_seed)


def stages(norm: str, eps: float, steps: int, queries: int, targets: int, seed: int) -> list[tuple[Request, str]]:
    """The four stages in their order, each with its library. ``targets``: classes that the targeted ones aim at."""
    # both count classes, and aim at one fewer
    common: dict[str, Any] = {
        "norm": NORMS[norm], "eps": eps, "steps": steps, "n_restarts": 1, "seed": seed, "n_classes": targets + 1,
        "verbose": False,
    }  # fmt: skip
    fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "multi_targeted": True}  # the authors' values
    asked = [
        request("apgd", norm=norm, params={"eps": eps, "steps": steps, "restarts": 1, "loss": "ce", "rho": 0.75}),
        request("torchattacks:APGDT", params={**common, "eot_iter": 1, "rho": 0.75}),
        request("torchattacks:FAB", params={**common, **fab}),
        request("square", norm=norm, params={"eps": eps, "queries": queries, "p_init": 0.8, "restarts": 1}),
    ]
    return [(one, "torchattacks") for one in asked]
