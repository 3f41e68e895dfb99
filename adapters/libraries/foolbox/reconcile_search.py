"""Reconciliations of Foolbox's decision attacks: each takes one difference of the ledger away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.draws import noise
from sparring.adapters.libraries.rewriting import Classes, rewritten

THEIRS = Classes("foolbox.attacks", method="run")


# HopSkipJump


@contextmanager
def hopskipjump_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """Each image's own probes."""
    import eagerpy
    import numpy as np

    own = noise(call)

    def probes(like: Any, shape: Any) -> Any:
        steps, n, *image = shape
        draws = np.stack([own.probes((steps, *image), i) for i in range(n)], axis=1)
        return eagerpy.from_numpy(like, draws.astype(like.numpy().dtype))

    changes = (
        ("ep.normal(x_advs, noise_shape)", "probes(x_advs, noise_shape)"),
        ("ep.uniform(x_advs, low=-1, high=1, shape=noise_shape)", "probes(x_advs, noise_shape)"),
    )
    with (
        THEIRS.rewritten(call, ("tb = TensorBoard(", "own.begin(len(x_advs)); tb = TensorBoard("), own=own),
        THEIRS.rewritten(call, *changes, method="approximate_gradients", probes=probes),
    ):
        yield call


hopskipjump_probes_by_the_step = THEIRS.lines(
    (
        "# Binary search to return",
        "stepped = self.distance(originals, x_advs)\n                # Binary search to return",
    ),
    (
        "self.select_delta(originals, distances, step)",
        "self.select_delta(originals, stepped if step else distances, step)",
    ),
)
"""The probes' distance depends on the image before it returned to the boundary."""
hopskipjump_length_of_each = THEIRS.lines(
    ("ep.norms.l2(atleast_kd(flatten(grad), grad.ndim))", "atleast_kd(ep.norms.l2(flatten(grad), axis=-1), grad.ndim)"),
    method="approximate_gradients",
)
hopskipjump_probes_of_each = THEIRS.lines(
    ("flatten(rv, keep=1)", "flatten(rv, keep=2)"), method="approximate_gradients"
)
hopskipjump_search_of_each = THEIRS.lines(
    ("mids = (lows + highs) / 2", "on = highs - lows > thresholds; mids = (lows + highs) / 2"),
    ("ep.where(is_adversarial_, mids, highs)", "ep.where(ep.logical_and(on, is_adversarial_), mids, highs)"),
    (
        "ep.where(is_adversarial_, lows, mids)",
        "ep.where(ep.logical_and(on, is_adversarial_.logical_not()), mids, lows)",
    ),
    method="_binary_search",
)
"""The search for the boundary ends for each image by itself."""
hopskipjump_in_float64 = THEIRS.lines(
    ("= ep.astensor_(inputs)", "= ep.astensor_(inputs); originals = originals.float64()"),
    ("ep.astensor(starting_points)", "ep.astensor(starting_points).float64()"),
    (
        "is_adversarial = get_is_adversarial(criterion, model)",
        "of = get_is_adversarial(criterion, model); is_adversarial = lambda x: of(x.float32())",
    ),
    ("restore_type(x_advs)", "restore_type(x_advs.float32())"),
)

# Boundary


@contextmanager
def boundary_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """The directions of the images' own generators."""
    import eagerpy
    import numpy as np
    from foolbox.attacks import boundary_attack

    own = noise(call)

    def normal(like: Any, shape: tuple[int, int]) -> Any:
        n, d = shape
        draws = own.probes(shape) if d == 1 else np.stack([own.probes((d,), i) for i in range(n)])
        return eagerpy.from_numpy(like, draws.astype(like.numpy().dtype))

    with (
        THEIRS.rewritten(call, ("tb = TensorBoard(", "own.begin(len(originals)); tb = TensorBoard("), own=own),
        rewritten(boundary_attack, "draw_proposals", ("ep.normal(", "normal("), normal=normal),
    ):
        yield call


@contextmanager
def boundary_direction_of_each(call: Call) -> Iterator[Call]:
    """A direction for each image."""
    from foolbox.attacks import boundary_attack

    changes = (
        ("(D, 1))", "(N, D))"),
        ("eta.T - ep.matmul(source_directions, eta)", "eta - (source_directions * eta).sum(axis=-1, keepdims=True)"),
    )
    with rewritten(boundary_attack, "draw_proposals", *changes):
        yield call


RECONCILIATIONS: dict[str, Reconcile] = {
    "boundary-draws-framework": boundary_draws_of_the_seed,
    "boundary-one-direction-for-all": boundary_direction_of_each,
    "hopskipjump-draws-framework": hopskipjump_draws_of_the_seed,
    "hopskipjump-probes-by-the-boundary": hopskipjump_probes_by_the_step,
    "hopskipjump-probes-of-the-batch": hopskipjump_probes_of_each,
    "hopskipjump-float32": hopskipjump_in_float64,
    "hopskipjump-search-of-the-batch": hopskipjump_search_of_each,
    "hopskipjump-length-of-the-batch": hopskipjump_length_of_each,
}
