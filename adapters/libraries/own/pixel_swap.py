"""Iterative pixel swap, on decisions alone, in NumPy: the darkest pixel changes places with the lightest, and so on.

Campbell, Lasselle, "Enhancing the Robustness of Deep Neural Networks", their black-box attack. What the text leaves
open: the brightness of a pixel is the mean over its channels, and whole pixels change places; of equally bright ones
the first in reading order counts as the darkest, the last as the lightest; pairs of one brightness end the attack, for
they are neither dark nor light.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier, Images, Labels


def pixel_swap(classifier: Classifier, x: Images, y: Labels, *, targeted: bool, steps: int) -> Images:
    """Images (N, C, H, W) with as few pairs of pixels swapped as misclassify them, one pair after the other.

    ``y`` are the labels to leave, or, ``targeted``, to reach. At most ``steps`` pairs are swapped, all with 0; an image
    that this doesn't misclassify, and one that is misclassified already, comes back as it was. The classifier is asked
    once for every image as it is, and once after each swap.
    """
    n, channels, height, width = x.shape
    found = x.reshape(n, channels, height * width).copy()
    brightness = found.mean(axis=1, dtype=np.float64)
    order = np.argsort(brightness, axis=1, kind="stable")
    pairs = height * width // 2
    active = np.flatnonzero(~_reached(classifier, x, y, targeted))
    for turn in range(min(steps, pairs) if steps else pairs):
        dark, light = order[active, turn], order[active, -1 - turn]
        left = brightness[active, dark] < brightness[active, light]
        over = active[~left]
        found[over] = x.reshape(found.shape)[over]
        active, dark, light = active[left], dark[left], light[left]
        if not len(active):
            break
        found[active, :, dark], found[active, :, light] = found[active, :, light], found[active, :, dark]
        active = active[~_reached(classifier, found[active].reshape(-1, *x.shape[1:]), y[active], targeted)]
    found[active] = x.reshape(found.shape)[active]
    return found.reshape(x.shape)


def _reached(classifier: Classifier, x: Images, y: Labels, targeted: bool) -> npt.NDArray[np.bool_]:
    if not len(x):
        return np.zeros(0, bool)
    same: npt.NDArray[np.bool_] = classifier.logits(np.ascontiguousarray(x)).argmax(axis=1) == y
    return same if targeted else ~same
