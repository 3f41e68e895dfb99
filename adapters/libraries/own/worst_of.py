"""Several attacks in a row: for each image the first that succeeds counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.distances import project
from sparring.adapters.attacks.library import Crafted
from sparring.adapters.attacks.request import Request, parts
from sparring.adapters.attacks.run import crafting
from sparring.adapters.libraries.referee.terms import margin_loss
from sparring.adapters.protocol import Classifier, Images, Labels

NONE, ALREADY = -1, -2
"""``fooled_by`` of an image that withstood every attack, and of one that was misclassified before."""


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
    """The per-image worst case over a list of attacks, each run by its library (``request.parts``).

    x: float32 (N, C, H, W) in [0, 1]; y (N,). A misclassified image stays as it is. Any other becomes the result of the
    first attack in the list that succeeds, that is, after which the classifier's class is not y. Where none succeeds it
    becomes the result with the smallest margin (the logit of y less the best other). A result outside of the ball of
    radius ``eps`` (``norm`` linf or l2) is brought back into it before it is judged. With ``survivors`` an attack gets
    only the images that withstood the ones before. Without it, every attack gets all images, so that it draws its
    random numbers for the same batches as it would alone. Every attack draws from ``part_seed``.

    Returns the images, and for each ``fooled_by`` (int64): the place of the attack in the list, -1 where all failed, -2
    where none was needed. Raises ``NotSupported`` where an attack can't run on the classifier.

    Source: Carlini et al. 2019, On Evaluating Adversarial Robustness, section 4.
    """
    return run_parts(classifier, x, y, norm, eps, parts(norm, {"eps": eps, "attacks": attacks}), survivors, part_seed)


def run_parts(
    classifier: Classifier,
    x: Images,
    y: Labels,
    norm: str,
    eps: float,
    attacks: list[tuple[Request, str]],
    survivors: bool,
    seed: int,
) -> Crafted:
    """``worst_of`` of checked attacks, each with its library."""
    worst, least, right = _judged(classifier, x, y)
    fooled_by: npt.NDArray[np.int64] = np.where(right, NONE, ALREADY)
    for index, (attack, library) in enumerate(attacks):
        rows = np.flatnonzero(fooled_by == NONE) if survivors else np.arange(len(x))
        if not (fooled_by == NONE).any():
            break
        with crafting(classifier, attack, library, route="bridged") as craft:
            ends = project(x[rows], craft(x[rows], y[rows], seed), norm, eps)[0]
        _, margin, still_right = _judged(classifier, ends, y[rows])
        waiting = fooled_by[rows] == NONE
        better = waiting & (~still_right | (margin < least[rows]))
        worst[rows[better]], least[rows[better]] = ends[better], margin[better]
        fooled_by[rows[waiting & ~still_right]] = index
    return Crafted(worst, samples={"fooled_by": fooled_by})


def _judged(
    classifier: Classifier, x: Images, y: Labels
) -> tuple[Images, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A copy of the images, their margins, and which of them are classified correctly."""
    logits = classifier.logits(x)
    return x.copy(), margin_loss(logits.astype(np.float64), y, False), logits.argmax(axis=1) == y
