"""Several classifiers as one, whatever their frameworks: a mean of probabilities, a mean of logits, or a vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits, check_cotangent, check_images, lacks

Combine = Literal["probabilities", "logits", "vote"]
COMBINE: tuple[Combine, ...] = ("probabilities", "logits", "vote")
LACKING_IN_A_VOTE: Mapping[str, str] = {
    "gradients": "needs gradients, and a majority vote only decides",
    "logits": "needs logits, and a majority vote only decides",
}
"""A vote only decides: its counts are no scores."""


class Ensemble:
    """Members that decide together, as a ``Classifier``: use ``ensemble`` to make one.

    The logits are, by ``combine``:

    - ``probabilities``: the logarithm of the mean of the members' softmax;
    - ``logits``: the mean of the members' logits;
    - ``vote``: how many members decide for each class. Of equal counts the first class wins.

    Sums are taken in float64.
    """

    framework = "ensemble"

    def __init__(self, members: Sequence[Classifier], combine: Combine) -> None:
        if combine not in COMBINE:
            raise InputError(f"combine must be one of {', '.join(COMBINE)}, not {combine!r}")
        if not members:
            raise InputError("an ensemble needs at least one member")
        self.members, self.combine = tuple(members), combine
        self.input_shape, self.classes = members[0].input_shape, members[0].classes
        for number, member in enumerate(members):
            if (tuple(member.input_shape), member.classes) != (tuple(self.input_shape), self.classes):
                raise InputError(
                    f"the members of an ensemble must take the same images and give the same classes: the first takes "
                    f"{tuple(self.input_shape)} and gives {self.classes}, member {number} takes "
                    f"{tuple(member.input_shape)} and gives {member.classes}"
                )

        self.lacks: Mapping[str, str] = LACKING_IN_A_VOTE
        if combine != "vote":
            self.lacks = {
                what: f"{reason} (a member of the ensemble)"
                for member in reversed(members)  # of several reasons, that of the first member stays
                for what, reason in lacks(member).items()
            }

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        every = self._members_logits(x)
        if self.combine == "vote":
            return np.asarray((every.argmax(axis=2)[..., None] == np.arange(self.classes)).sum(axis=0), np.float32)
        if self.combine == "logits":
            return np.asarray(every.mean(axis=0), np.float32)
        return np.asarray(_log_mean(_log_softmax(every)), np.float32)

    def _members_logits(self, x: Images) -> npt.NDArray[np.float64]:
        """float64, (members, N, classes)."""
        return np.stack([member.logits(x) for member in self.members]).astype(np.float64)


class DifferentiableEnsemble(Ensemble):
    """An ensemble whose members all have gradients, as a ``Differentiable``."""

    members: tuple[Differentiable, ...]

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``. Raises as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        total = np.zeros(x.shape, np.float64)
        for member, share in zip(self.members, self._shares(x, cotangent.astype(np.float64)), strict=True):
            total += member.vjp(x, np.asarray(share, np.float32))
        return np.asarray(total, np.float32)

    def _shares(self, x: Images, cotangent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The cotangent of each member's logits, (members, N, classes)."""
        if self.combine == "logits":
            return np.broadcast_to(cotangent / len(self.members), (len(self.members), *cotangent.shape))
        each = _log_softmax(self._members_logits(x))
        # d log p / d log s, the member's share of the probability: no quotient of numbers that may both be zero
        inner = cotangent * np.exp(each - _log_mean(each)) / len(self.members)
        shares: npt.NDArray[np.float64] = inner - np.exp(each) * inner.sum(axis=2, keepdims=True)
        return shares


def ensemble(members: Sequence[Classifier], combine: Combine = "probabilities") -> Ensemble:
    """The members as one classifier, with gradients where all members have them and a mean is taken.

    ``combine`` is ``probabilities`` (log of the mean softmax), ``logits`` (their mean) or ``vote`` (decisions only).
    Raises ``InputError`` for members with other images or classes than the first.
    """
    if combine != "vote" and all(isinstance(member, Differentiable) for member in members):
        return DifferentiableEnsemble(members, combine)
    return Ensemble(members, combine)


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.special import log_softmax

    logarithms: npt.NDArray[np.float64] = log_softmax(logits, axis=-1)
    return logarithms


def _log_mean(each: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logarithm of the mean over the members of exp(each)."""
    from scipy.special import logsumexp

    mean: npt.NDArray[np.float64] = logsumexp(each, axis=0) - np.log(len(each))
    return mean
