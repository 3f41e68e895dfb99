"""ART's adversarial patch: trained on some images and put into others.

ART 1.20 has four classes. ``patch`` is its ``AdversarialPatchPyTorch``, on ART's estimator of a torch network or of a
torch view of any other classifier. ``AdversarialPatchNumpy`` can't be constructed: 1.20.1 refuses the middle of an
estimator's clip values. ``AdversarialPatchTensorFlowV2`` needs channels last and mirrors a small patch all over the
image. ``AdversarialPatch`` chooses one of the three, and for torch always a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import AttackMapping, Call, Context, Crafted, Fit, To, Unsupported, maps
from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.errors import InputError
from sparring.adapters.libraries.own.patch import PLACING, batches, ranged
from sparring.adapters.wrappers.transformed import coins

TARGET = "AdversarialPatchPyTorch"
SUMMED = "steps along the sum of all gradients so far: it never sets the patch's gradient back to zero"


def _share(value: float, context: Context) -> float:
    """ART's scales are shares of the image's shorter side."""
    return value * float(context.params["size"]) / min(context.input_shape[1:])


def _patch_shape(value: int, context: Context) -> tuple[int, int, int]:
    return context.input_shape[0], value, value


MAPPING: AttackMapping = maps(
    TARGET,
    size=To("patch_shape", _patch_shape),
    shape="patch_type",
    steps="max_iter",
    learning_rate="learning_rate",
    decay=Unsupported("its learning rate stays what it is", unless=lambda value, context: not value),
    batch="batch_size",
    rotation="rotation_max",
    scale_min=To("scale_min", _share),
    scale_max=To("scale_max", _share),
    pinned={
        "distortion_scale_max": 0.0,
        "patch_location": None,
        "optimizer": "Adam",
        "summary_writer": False,
        "targeted": lambda c: c.targeted,
        "verbose": False,
    },
    note=SUMMED,
)


def session(build: Callable[[Call], Any], classes: int) -> Callable[[Call], Crafted]:
    """Runs calls of ART's patch; ``build`` makes its attack object from a call. One patch serves a whole cell.

    One iteration of ART's is a pass over all images of a call. So each call gets one batch, the same as sparring's own
    patch gets with this seed, and continues from the patch of the call before: steps and batches are as requested.
    """
    trained: dict[tuple[Any, ...], tuple[Fit, Any, dict[str, npt.NDArray[Any]], int]] = {}

    def run(call: Call) -> Crafted:
        if call.fit is None or call.context is None:
            raise InputError("patch is trained on other images than it is tested on: give it some (data: fit)")
        key = id(call.fit), call.targeted, *sorted(call.kwargs.items())
        if key not in trained:
            params, seed = call.context.params, call.context.seed
            ranged(call.x.shape[1:], **{name: params[name] for name in PLACING})
            attack = build(replace(call, kwargs={**call.kwargs, "max_iter": 1}))
            order = batches(np.random.default_rng(seed), len(call.fit.x), params["batch"], params["steps"])
            one_hot = np.eye(classes, dtype=np.float32)
            with redirect_stderr(StringIO()):
                for rows in order:
                    patch, mask = attack.generate(call.fit.x[rows], one_hot[call.fit.labels[rows]], shuffle=False)
            whole = {"patch": np.asarray(patch, np.float32), "mask": np.asarray(mask[0] > 0.5)}
            trained[key] = call.fit, attack, whole, seed  # the images are kept, so that no others get their id
        _, attack, whole, seed = trained[key]
        return Crafted(put(attack, call.x, seed), whole=whole)

    return run


def put(attack: Any, x: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    """``apply_patch`` on each image apart, seeded from the seed and its content: no image depends on its batch."""
    coin, patched = coins(seed, x, 0), x.copy()
    for row in range(len(x)):
        # it draws scale, place and rotation from NumPy's global generator
        with seeded(int(coin(row).integers(2**32)), of_tensorflow=False):
            patched[row] = attack.apply_patch(x[row : row + 1], scale=None)[0]
    return patched
