"""Reconciliations of ART's search and decision attacks: each takes one difference of the ledger away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.draws import noise, square_bumps, square_draws
from sparring.adapters.libraries.rewriting import Classes, attribute, each_image_by_itself, margins
from sparring.adapters.libraries.saliency import best_pair

THEIRS = Classes("art.attacks.evasion", method="generate")


# Square


@contextmanager
def square_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """The referee's draws."""
    flip = "if random.random() > 0.5:\n                        delta = -delta"
    changes = (
        ("x_adv = x.astype(ART_NUMPY_DTYPE)", "own.next_image(); x_adv = x.astype(ART_NUMPY_DTYPE)"),
        ("# x_robust = x_adv[sample_is_robust]", "own.next_restart()"),
        ("np.random.choice([-1, 1], size=size)", "own.stripes(width)"),
        ("np.random.choice([-2 * self.eps, 2 * self.eps], size=[channels, 1, 1])", "2 * self.eps * own.signs()"),
        ("np.random.randint(", "own.place("),
        (flip, "if False: pass"),  # the signs do that
        ("random.random() > 0.5", "own.coin() > 0.5"),
        (
            "np.random.choice(\n                            [-1, 1], size=random_size\n                        )",
            "own.signs()",
        ),
        ("np.random.choice([-1, 1], size=random_choice_size)", "own.signs()"),
    )
    with THEIRS.rewritten(call, *changes, own=square_draws(call)):
        yield call


def _lowest(attack: Any, x: Any, ends: Any, y: Any) -> Any:
    """For each image the one with the lower margin: the image itself, or the end of its search."""
    margins_before, margins_after = (
        margins(attack.estimator.predict(images, attack.batch_size), y, False) for images in (x, ends)
    )
    return np.where((margins_after < margins_before)[:, None, None, None], ends, x)


@contextmanager
def square_starts_at_the_stripes(call: Call) -> Iterator[Call]:
    """The search begins at the draw, even if the image itself is better. At the end the better of the two counts."""
    first = "\n                loss_improved = "  # those of the iterations are further in
    changes = (
        (f"{first}(sample_loss_new - sample_loss_init) < 0.0", f"{first}~np.isnan(sample_loss_new)"),
        ("\n        return x_adv", "\n        return lowest(self, x, x_adv, y)"),
    )
    with THEIRS.rewritten(call, *changes, lowest=_lowest):
        yield call


@contextmanager
def square_best_start_counts(call: Call) -> Iterator[Call]:
    """The end with the lowest margin counts, from whichever start."""

    def best_of(attack: Any, x: Any, x_adv: Any, y: Any) -> Iterator[int]:
        best = x
        for restart in range(attack.nb_restarts):
            yield restart
            best = x_adv[:] = _lowest(attack, best, x_adv, y)

    restarts = 'in trange(self.nb_restarts, desc="SquareAttack - restarts", disable=not self.verbose)'
    with THEIRS.rewritten(call, (restarts, "in best_of(self, x, x_adv, y)"), best_of=best_of):
        yield call


@contextmanager
def square_wins_by_a_margin(call: Call) -> Iterator[Call]:
    """Adversarial is a margin below 0, as in the source. The loss is the margin, wherever the own logit stands."""
    from art.attacks.evasion import SquareAttack

    def loss(self: Any, x: Any, y: Any) -> Any:
        return margins(self.estimator.predict(x, batch_size=self.batch_size), y, False)

    criterion = {"adv_criterion": lambda logits, y: margins(logits, y, False) < 0}
    with attribute(SquareAttack, "_get_logits_diff", loss):
        yield replace(call, kwargs={**call.kwargs, **criterion})


square_schedule_in_whole_steps = THEIRS.lines(
    ("i_p = i_iter / self.max_iter", "i_p = int(i_iter / self.max_iter * 10000) / 10000"),
    method="_get_percentage_of_elements",
)
"""The share of squares depends on a whole number of the source's 10,000 iterations."""


@contextmanager
def square_in_float64(call: Call) -> Iterator[Call]:
    """Images in float64 between the queries."""
    from art.attacks.evasion import square_attack

    with attribute(square_attack, "ART_NUMPY_DTYPE", np.float64):
        yield call


@contextmanager
def square_bumps_of_the_source(call: Call) -> Iterator[Call]:
    """Both halves of the square, and all rings."""
    changes = (
        ("delta = np.zeros([height, height])", "delta = bumps(height)"),
        ("gaussian_perturbation /= np.sqrt(np.sum(gaussian_perturbation**2))", "pass"),
        ("delta[: height // 2] = gaussian_perturbation", "pass"),
        ("delta[height // 2 : height // 2 + gaussian_perturbation.shape[0]] = -gaussian_perturbation", "pass"),
    )
    with THEIRS.rewritten(call, *changes, bumps=square_bumps):
        yield call


square_windows_everywhere = THEIRS.lines(
    ("(0, height - height_tile)", "(0, height - height_tile + 1)"),
    ("(0, width - height_tile)", "(0, width - height_tile + 1)"),
    ("(0, height - height_tile_2)", "(0, height - height_tile_2 + 1)"),
    ("(0, width - height_tile_2)", "(0, width - height_tile_2 + 1)"),
)
"""Windows may touch the last row and column."""
square_windows_within = THEIRS.lines(
    ("* width))), 1)", "* width))), 1); height_tile = min(height_tile, height, width)"),
    ("height_tile_2 = height_tile", "height_tile_2 = height_tile = min(height_tile, height, width)"),
)
square_first_query_counts = THEIRS.lines(
    ("trange(\n                    self.max_iter, desc", "trange(\n                    1, self.max_iter, desc")
)
"""Iterations from 1: the initial query is one of them."""
square_tiles_in_the_middle = THEIRS.lines(
    ("n_tiles = 5", "n_tiles = min(5, height, width)"),
    ("height_tile = height // n_tiles", "height_tile = min(height, width) // n_tiles"),
    ("height_start = 0\n", "height_start = (height - n_tiles * height_tile) // 2\n"),
    ("width_start = 0\n", "width_start = (width - n_tiles * height_tile) // 2\n"),
)
square_times_the_length = THEIRS.lines(
    ("axis=(2, 3), keepdims=True)) * np.sqrt(", "axis=(2, 3), keepdims=True)) / np.sqrt(")
)
square_windows_by_channel = THEIRS.lines(
    (
        "np.maximum(new_deltas_mask, new_deltas_mask_2)) ** 2,\n                            axis=(1, 2, 3)",
        "np.maximum(new_deltas_mask, new_deltas_mask_2)) ** 2,\n                            axis=(2, 3)",
    )
)

# JSMA


@contextmanager
def jsma_best_pair(call: Call) -> Iterator[Call]:
    """The pair with the largest saliency of all pairs; an image that has none stays as it is."""

    def pairs(self: Any, x: Any, target: Any, search_space: Any) -> Any:
        every = self.estimator.class_gradient(x).reshape(len(x), self.estimator.nb_classes, -1)
        own = every[np.arange(len(x)), target]
        sign = np.sign(self.theta)
        of_each = zip(sign * own, sign * (every.sum(axis=1) - own), search_space == 1, strict=True)
        return np.array([best_pair(*of_image) for of_image in of_each])

    stop = (
        "none = feat_ind[:, 0] < 0; search_space[active_indices[none]] = 0; "
        "active_indices, feat_ind = active_indices[~none], feat_ind[~none]"
    )
    with THEIRS.rewritten(call, ("self._saliency_map(", "pairs(self, "), ("# Update used features", stop), pairs=pairs):
        yield call


jsma_counts_iterations = THEIRS.lines(
    (
        "np.where(current_pred != target)[0]",
        "np.where((current_pred != target) * (self._nb_features * self.gamma >= 2))[0]",
    ),
    ("all_feat[active_indices, feat_ind[:, 0]] = 1", "all_feat[active_indices, 0] += 1"),
    ("all_feat[active_indices, feat_ind[:, 1]] = 1", "pass"),
    (
        "np.sum(all_feat, axis=1) / self._nb_features <= self.gamma",
        "all_feat[:, 0] < int(self._nb_features * self.gamma / 2)",
    ),
)
"""gamma bounds the iterations, of two features each."""

# HopSkipJump


@contextmanager
def hopskipjump_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """Each image's own probes."""
    begin = ("current_sample = initial_sample", "own.begin(1); current_sample = initial_sample")
    probes = "own.probes(rnd_noise_shape)"
    changes = (
        ("np.random.randn(*rnd_noise_shape).astype(ART_NUMPY_DTYPE)", probes),
        ("np.random.uniform(low=-1, high=1, size=rnd_noise_shape).astype(ART_NUMPY_DTYPE)", probes),
    )
    own = noise(call)
    with (
        THEIRS.rewritten(call, begin, method="_attack", own=own),
        THEIRS.rewritten(call, *changes, method="_compute_update", own=own),
    ):
        yield call


@contextmanager
def hopskipjump_fine_search(call: Call) -> Iterator[Call]:
    """The source's threshold of the search for the boundary."""
    from art.attacks.evasion import HopSkipJump

    def theta(attack: Any) -> float:
        d = float(np.prod(attack.estimator.input_shape))
        return d**-1.5 if attack.norm == 2 else d**-2

    with attribute(HopSkipJump, "theta", property(theta, lambda attack, value: None)):
        yield call


hopskipjump_in_float64 = THEIRS.lines(
    (
        "# Main loop to wander around the boundary",
        "original_sample, current_sample = original_sample.astype(float), current_sample.astype(float)",
    ),
    method="_attack",
)
_search = "self._binary_search(current_sample, original_sample, target, self.norm, clip_min, clip_max)"
hopskipjump_ends_on_the_boundary = THEIRS.lines(
    ("\n        return current_sample", f"\n        return {_search}"), method="_attack"
)

# Boundary


@contextmanager
def boundary_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """Each image's own directions."""
    normal = (
        "np.random.randn(*self.estimator.input_shape).astype(ART_NUMPY_DTYPE)",
        "own.probes(self.estimator.input_shape)",
    )
    own = noise(call)
    with (
        THEIRS.rewritten(call, ("# First, create", "own.begin(1)  # First, create"), method="_perturb", own=own),
        THEIRS.rewritten(call, normal, method="_orthogonal_perturb", own=own),
    ):
        yield call


@contextmanager
def boundary_one_proposal_a_step(call: Call) -> Iterator[Call]:
    """A step is one proposal of ART's own; the lengths of steps follow those of every tenth step, as in Foolbox."""
    from art.attacks.evasion import BoundaryAttack

    def steps(
        self: Any, x_adv: Any, x: Any, y_p: int, target: int, delta: float, epsilon: float, low: float, high: float
    ) -> Any:
        def adversarial(image: Any) -> bool:
            decision = self.estimator.predict(image[None], batch_size=self.batch_size).argmax()
            return bool(decision == target if self.targeted else decision != y_p)

        x_adv, x = x_adv.astype(float), x.astype(float)
        of_sphere: deque[bool] = deque(maxlen=100)
        of_step: deque[bool] = deque(maxlen=30)
        for step in range(1, self.max_iter + 1):
            if epsilon < self.min_epsilon:
                break
            far = np.linalg.norm(x - x_adv)
            on_sphere = np.clip(x_adv + self._orthogonal_perturb(delta, x_adv, x), low, high)
            remaining = np.linalg.norm(x - on_sphere)
            inwards = max(float(epsilon * far + remaining - far), 0.0) / remaining
            nearer = np.clip(on_sphere + inwards * (x - on_sphere), low, high)
            success = adversarial(nearer)
            if step % 10 == 0:
                of_sphere.append(adversarial(on_sphere))
                of_step.append(success)
                factor = _adapted(of_sphere, 0.2, 0.5, self.step_adapt)
                delta, epsilon = delta * factor, epsilon * factor
                epsilon *= _adapted(of_step, 0.1, 0.25, self.step_adapt)
            if success and np.linalg.norm(x - nearer) < far:
                x_adv = nearer
        return x_adv

    with attribute(BoundaryAttack, "_attack", steps):
        yield call


def _adapted(successes: deque[bool], low: float, high: float, shrink: float) -> float:
    """The factor for a step's length, once the deque is full of successes and failures; then the deque is cleared."""
    share = np.mean(successes)
    if len(successes) < (successes.maxlen or 0) or low <= share <= high:
        return 1
    successes.clear()
    return 1 / shrink if share > high else shrink


boundary_scaled_on_the_sphere = THEIRS.lines(
    (
        "perturb = perturb_flat.reshape(",
        "perturb_flat *= delta * np.linalg.norm(direction) / np.linalg.norm(perturb_flat)\n"
        "        perturb = perturb_flat.reshape(",
    ),
    method="_orthogonal_perturb",
)

# One pixel


@contextmanager
def one_pixel_of_probabilities(call: Call) -> Iterator[Call]:
    """The energy is the class's probability."""

    def probabilities(logits: Any) -> Any:
        return softmax(logits, axis=1)

    change = (
        "self.estimator.predict(adv)[:, target_class]",
        "probabilities(self.estimator.predict(adv))[:, target_class]",
    )
    with THEIRS.rewritten(call, change, method="_attack", probabilities=probabilities):
        yield call


@contextmanager
def one_pixel_of_all_values(call: Call) -> Iterator[Call]:
    """Pixels take any value of [0, 1]; only rows and columns are whole."""
    as_floats = (("x = x.astype(int)", "pass"), ("*rgb = pixel", "*rgb = pixel; x_pos, y_pos = int(x_pos), int(y_pos)"))
    with (
        THEIRS.rewritten(call, ("self.estimator.clip_values[1] != 255.0", "False")),
        THEIRS.rewritten(call, ("[[0, 255]]", "[[0, 1]]"), method="_get_bounds"),
        THEIRS.rewritten(call, *as_floats, method="_perturb_image"),
    ):
        yield call


@contextmanager
def one_pixel_population(call: Call) -> Iterator[Call]:
    """As many as the parameters say."""
    assert call.context is not None
    population = call.context.params["population"]
    with THEIRS.rewritten(
        call, ("400 // len(bounds)", "population // len(bounds)"), method="_attack", population=population
    ):
        yield call


@contextmanager
def one_pixel_failures_keep_their_best(call: Call) -> Iterator[Call]:
    """The result is the end of the search, whether or not it succeeded."""
    with (
        THEIRS.rewritten(call, ("image_result = image\n\n            adv", "pass\n\n            adv")),
        THEIRS.rewritten(
            call, ("return False, image", "return False, self._perturb_image(adv_x, image)[0]"), method="_attack"
        ),
    ):
        yield call


one_pixel_starts_anywhere = THEIRS.lines(("polish=False", 'polish=False, init="random"'), method="_attack")

RECONCILIATIONS: dict[str, Reconcile] = {
    "square-one-window-for-all": each_image_by_itself,
    "square-draws-numpy": square_draws_of_the_seed,
    "square-window-never-last": square_windows_everywhere,
    "square-one-query-more": square_first_query_counts,
    "square-window-beyond-the-image": square_windows_within,
    "square-start-only-if-better": square_starts_at_the_stripes,
    "square-last-start-counts": square_best_start_counts,
    "square-wins-by-label": square_wins_by_a_margin,
    "square-schedule-unrounded": square_schedule_in_whole_steps,
    "square-float32": square_in_float64,
    "square-l2-tiles-in-the-corner": square_tiles_in_the_middle,
    "square-l2-cut-bumps": square_bumps_of_the_source,
    "square-l2-divided-by-length": square_times_the_length,
    "square-l2-window-of-all-channels": square_windows_by_channel,
    "hopskipjump-draws-numpy": hopskipjump_draws_of_the_seed,
    "hopskipjump-coarse-search": hopskipjump_fine_search,
    "hopskipjump-ends-beyond": hopskipjump_ends_on_the_boundary,
    "hopskipjump-float32": hopskipjump_in_float64,
    "boundary-draws-numpy": boundary_draws_of_the_seed,
    "boundary-many-proposals": boundary_one_proposal_a_step,
    "boundary-scaled-off-the-sphere": boundary_scaled_on_the_sphere,
    "one-pixel-of-logits": one_pixel_of_probabilities,
    "one-pixel-of-bytes": one_pixel_of_all_values,
    "one-pixel-latin-hypercube": one_pixel_starts_anywhere,
    "one-pixel-population-400": one_pixel_population,
    "one-pixel-failure-is-clean": one_pixel_failures_keep_their_best,
    "jsma-two-best-single": jsma_best_pair,
    "jsma-counts-features": jsma_counts_iterations,
}
