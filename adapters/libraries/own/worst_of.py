"""Of several attacks, image by image the first that succeeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.distances import project
from sparring.adapters.attacks.library import Crafted
from sparring.adapters.attacks.request import Request, parts
from sparring.adapters.attacks.run import crafting
from sparring.adapters.libraries.rewriting import margins
from sparring.adapters.protocol import Classifier, Images, Labels

NONE, ALREADY = -1, -2
"""``fooled_by`` of an image that withstood every attack, and of one that was wrong before any."""


def worst_of(
    classifier: Classifier,
    x: Images,
    y: Labels,
    *,
    targeted: bool,
    norm: str,
    eps: float,
    attacks: list[dict[str, object]],
    survivors: bool,
    part_seed: int,
) -> Crafted:
    """The per-image worst case over a list of attacks, each run through its library's bridge (``support.parts``).

    x: float32 (N, C, H, W) in [0, 1]; y (N,). An image that is already misclassified stays as it is; any other becomes
    what the first attack in the list left that makes the classifier take it for another class than y, or, where none
    does, the image of the smallest margin (the logit of y less the best other). What an attack leaves outside of the
    ball of radius ``eps`` (``norm`` linf or l2) is brought back into it before it is judged. With ``survivors`` an
    attack gets only the images that the ones before left; without, each gets all, as it would alone: then the batches
    that it draws its random numbers for are the same. Every attack draws from ``part_seed``.

    Returns the images, and for each ``fooled_by`` (int64): the place of the attack in the list, -1 where all failed, -2
    where none was needed. Raises ``NotSupported`` where an attack is not to be had for the classifier.

    Source: Carlini et al. 2019, On Evaluating Adversarial Robustness, section 4.
    """
    return run_parts(classifier, x, y, norm, eps, parts(norm, {"eps": eps, "attacks": attacks}), survivors, part_seed)


def run_parts(
    classifier: Classifier,
    x: Images,
    y: Labels,
    norm: str,
    eps: float,
    asked: list[tuple[Request, str]],
    survivors: bool,
    seed: int,
) -> Crafted:
    """``worst_of`` of attacks that are checked already."""
    worst, least, right = _judged(classifier, x, y)
    fooled_by: npt.NDArray[np.int64] = np.where(right, NONE, ALREADY)
    for index, (request, library) in enumerate(asked):
        rows = np.flatnonzero(fooled_by == NONE) if survivors else np.arange(len(x))
        if not (fooled_by == NONE).any():
            break
        with crafting(classifier, request, library, route="bridged") as craft:
            found = project(x[rows], craft(x[rows], y[rows], seed), norm, eps)[0]
        _, margin, still_right = _judged(classifier, found, y[rows])
        waiting = fooled_by[rows] == NONE
        better = waiting & (~still_right | (margin < least[rows]))
        worst[rows[better]], least[rows[better]] = found[better], margin[better]
        fooled_by[rows[waiting & ~still_right]] = index
    return Crafted(worst, samples={"fooled_by": fooled_by})


def _judged(
    classifier: Classifier, x: Images, y: Labels
) -> tuple[Images, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A copy of the images, their margins, and which of them are put into their class."""
    logits = classifier.logits(x)
    return x.copy(), margins(logits, y, False), logits.argmax(axis=1) == y
