"""AutoAttack by its authors' protocol, composed of four attacks that torchattacks has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from sparring.adapters.attacks.library import Crafted
from sparring.adapters.attacks.request import Request, request
from sparring.adapters.attacks.run import crafting
from sparring.adapters.errors import NotSupported
from sparring.adapters.libraries.own.worst_of import run_parts
from sparring.adapters.parameters import Params
from sparring.adapters.protocol import Classifier, Images, Labels

NORMS = {"linf": "Linf", "l2": "L2"}
EACH_IMAGE = "sparring.adapters.libraries.torchattacks.each_image:LIBRARY"
"""torchattacks, in versions in which an image does not depend on its batch."""
Craft: TypeAlias = Callable[[Images, Labels, int], Images]


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

    x: float32 (N, C, H, W) in [0, 1]; y (N,). APGD and FAB take ``steps`` steps from one start. The targeted ones do so
    for each of the ``targets`` most probable other classes, or for all where there are fewer. The result for an image
    depends on the image and the seed alone, not on its batch (``EACH_IMAGE``).

    Returns the images within ``eps`` and, for each, ``fooled_by`` (as ``worst_of`` does). An image that withstands all
    comes out at its smallest margin. Raises ``NotSupported`` for fewer than four classes.

    Source: Croce, Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, section 5, the version ``standard`` of the authors' code (github.com/fra31/auto-attack).
    """
    params = {"eps": eps, "steps": steps, "queries": queries, "targets": targets}
    attacks = stages(norm, params, classifier.classes, part_seed)
    return run_parts(classifier, x, y, norm, eps, attacks, True, part_seed)


@contextmanager
def opened_stages(norm: str, params: Params, classes: int, seed: int) -> Iterator[Callable[[Classifier], list[Craft]]]:
    """Opens the stages for another's loop.

    Within the context, a classifier -> for each stage a function of images, labels and a seed.
    """
    attacks = stages(norm, params, classes, seed)
    with ExitStack() as stack:

        def opened(classifier: Classifier) -> list[Craft]:
            return [
                stack.enter_context(crafting(classifier, stage, library, route="bridged")) for stage, library in attacks
            ]

        yield opened


def stages(norm: str, params: Params, classes: int, seed: int) -> list[tuple[Request, str]]:
    """The four stages in order, each with its library; ``params`` are ``autoattack``'s. Raises ``NotSupported``."""
    if classes < 4:
        raise NotSupported(
            f"autoattack: its targeted loss (DLR) needs four logits, and the model has {classes} classes: take "
            "worst-of with apgd (loss: ce) and square"
        )
    once: dict[str, Any] = {"norm": NORMS[norm], "eps": params["eps"], "n_restarts": 1, "seed": seed, "verbose": False}
    # n_classes counts the true class, too: the attack aims at one class fewer
    aimed = {**once, "steps": params["steps"], "n_classes": min(params["targets"], classes - 1) + 1}
    apgd = {"eps": params["eps"], "steps": params["steps"], "restarts": 1, "loss": "ce", "rho": 0.75}
    fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "multi_targeted": True}
    square = {"n_queries": params["queries"], "p_init": 0.8, "loss": "margin", "resc_schedule": False}
    attacks = [
        request("apgd", norm=norm, params=apgd),
        request("torchattacks:APGDT", params={**aimed, "eot_iter": 1, "rho": 0.75}),
        request("torchattacks:FAB", params={**aimed, **fab}),
        request("torchattacks:Square", params={**once, **square}),
    ]
    return [(attack, EACH_IMAGE) for attack in attacks]
