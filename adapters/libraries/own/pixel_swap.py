"""Iterative pixel swap, on decisions alone, in NumPy: the darkest pixel changes places with the lightest, and so on.

Campbell, Lasselle, "Enhancing the Robustness of Deep Neural Networks", their black-box attack. The text leaves some
things open. Here the brightness of a pixel is the mean over its channels, and whole pixels change places. Of equally
bright ones the first in reading order counts as the darkest, the last as the lightest. A pair of one brightness ends
the attack, for neither of its pixels is dark or light.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier, Images, Labels


def pixel_swap(classifier: Classifier, x: Images, y: Labels, *, targeted: bool, steps: int) -> Images:
    """Images (N, C, H, W) with as few pairs of pixels swapped as misclassify them, one pair after the other.

    ``y`` are the labels to leave, or, ``targeted``, to reach. At most ``steps`` pairs are swapped, any number with 0.
    An image comes back as it was if it is misclassified already, or not even afterwards. The classifier gets every
    image once as it is, and once after each swap.
    """
    n, channels, height, width = x.shape
    images = x.reshape(n, channels, height * width).copy()
    brightness = images.mean(axis=1, dtype=np.float64)
    order = np.argsort(brightness, axis=1, kind="stable")
    pairs = height * width // 2
    active = np.flatnonzero(~_reached(classifier, x, y, targeted))
    for turn in range(min(steps, pairs) if steps else pairs):
        dark, light = order[active, turn], order[active, -1 - turn]
        ordered = brightness[active, dark] < brightness[active, light]
        ended = active[~ordered]
        images[ended] = x.reshape(images.shape)[ended]
        active, dark, light = active[ordered], dark[ordered], light[ordered]
        if not len(active):
            break
        images[active, :, dark], images[active, :, light] = images[active, :, light], images[active, :, dark]
        active = active[~_reached(classifier, images[active].reshape(-1, *x.shape[1:]), y[active], targeted)]
    images[active] = x.reshape(images.shape)[active]
    return images.reshape(x.shape)


def _reached(classifier: Classifier, x: Images, y: Labels, targeted: bool) -> npt.NDArray[np.bool_]:
    if not len(x):
        return np.zeros(0, bool)
    same: npt.NDArray[np.bool_] = classifier.logits(np.ascontiguousarray(x)).argmax(axis=1) == y
    return same if targeted else ~same
