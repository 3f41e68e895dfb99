"""AutoAttack by its authors' protocol, composed of pieces that torchattacks has."""

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

    x: float32 (N, C, H, W) in [0, 1]; y (N,). ``steps`` are those of each APGD and of FAB, for each of the ``targets``
    most probable other classes (all, where there are fewer); one start each. An image's end hangs on the image and the
    seed alone, not on its batch: every image gets the same draws, and its own step (``torchattacks_autoattack``).

    Returns the images within ``eps`` and, for each, ``fooled_by`` (``own_worst_of.worst_of``); an image that withstands
    all comes out at its smallest margin. Raises ``NotSupported`` for fewer than four classes.

    Source: Croce, Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, section 5, the version ``standard`` of the authors' code (github.com/fra31/auto-attack).
    """
    params = {"eps": eps, "steps": steps, "queries": queries, "targets": targets}
    asked = stages(norm, params, classifier.classes, part_seed)
    with _each_image_by_itself():
        return run_parts(classifier, x, y, norm, eps, asked, True, part_seed)


@contextmanager
def opened_stages(norm: str, params: Params, classes: int, seed: int) -> Iterator[Callable[[Classifier], list[Craft]]]:
    """For another's loop: within the context, a classifier -> what runs each stage on images, labels and a seed."""
    asked = stages(norm, params, classes, seed)
    with ExitStack() as stack:
        stack.enter_context(_each_image_by_itself())

        def opened(classifier: Classifier) -> list[Craft]:
            return [stack.enter_context(crafting(classifier, one, library, route="bridged")) for one, library in asked]

        yield opened


def stages(norm: str, params: Params, classes: int, seed: int) -> list[tuple[Request, str]]:
    """The four stages in order, each with its library; ``params`` are ``autoattack``'s. Raises ``NotSupported``."""
    if classes < 4:
        raise NotSupported(
            f"autoattack: its targeted loss (DLR) is made of four logits, and the model has {classes} classes: take "
            "worst-of with apgd (loss: ce) and square"
        )
    once: dict[str, Any] = {
        "norm": NORMS[norm], "eps": params["eps"], "n_restarts": 1, "seed": seed, "verbose": False,
    }  # fmt: skip
    # both count classes, and aim at one fewer
    aimed = {**once, "steps": params["steps"], "n_classes": min(params["targets"], classes - 1) + 1}
    apgd = {"eps": params["eps"], "steps": params["steps"], "restarts": 1, "loss": "ce", "rho": 0.75}
    fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "multi_targeted": True}
    square = {"n_queries": params["queries"], "p_init": 0.8, "loss": "margin", "resc_schedule": False}
    asked = [
        request("apgd", norm=norm, params=apgd),
        request("torchattacks:APGDT", params={**aimed, "eot_iter": 1, "rho": 0.75}),
        request("torchattacks:FAB", params={**aimed, **fab}),
        request("torchattacks:Square", params={**once, **square}),
    ]
    return [(one, "torchattacks") for one in asked]


@contextmanager
def _each_image_by_itself() -> Iterator[None]:
    from sparring.adapters.libraries.torchattacks.reconcile_autoattack import draws_for_each_image, steps_of_each_image

    with draws_for_each_image(), steps_of_each_image():
        yield
