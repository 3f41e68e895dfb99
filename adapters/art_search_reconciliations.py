"""What takes ART's differences in the ledger away, of its search and decision attacks: mostly lines of ``generate``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from sparring.adapters.library import Call, Reconcile
from sparring.adapters.rewriting import attribute, margins, rewritten
from sparring.adapters.search_draws import square_bumps, square_draws


def _rewriting(call: Call, *changes: tuple[str, str], method: str = "generate", **known: Any) -> Any:
    from art.attacks import evasion

    return rewritten(getattr(evasion, call.target), method, *changes, **known)


def _lines(*changes: tuple[str, str], method: str = "generate") -> Reconcile:
    """A reconciliation that is no more than other words in one function."""

    @contextmanager
    def reconcile(call: Call) -> Iterator[Call]:
        with _rewriting(call, *changes, method=method):
            yield call

    return reconcile


@contextmanager
def each_image_by_itself(call: Call) -> Iterator[Call]:
    """One image a call."""
    from sparring.adapters import art

    with attribute(art, "_singly", lambda attack, call: True):
        yield call


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
        (flip, "if False: pass"),  # the signs have seen to it
        ("random.random() > 0.5", "own.coin() > 0.5"),
        (
            "np.random.choice(\n                            [-1, 1], size=random_size\n                        )",
            "own.signs()",
        ),
        ("np.random.choice([-1, 1], size=random_choice_size)", "own.signs()"),
    )
    with _rewriting(call, *changes, own=square_draws(call)):
        yield call


def _lowest(attack: Any, x: Any, ends: Any, y: Any) -> Any:
    """Of the images and what a search made of them, those with the lower margin."""
    before, after = (margins(attack.estimator.predict(images, attack.batch_size), y, False) for images in (x, ends))
    return np.where((after < before)[:, None, None, None], ends, x)


@contextmanager
def square_starts_at_the_stripes(call: Call) -> Iterator[Call]:
    """The search begins at the draw, better than the image itself or not; at last the better of the two counts."""
    first = "\n                loss_improved = "  # those of the iterations are further in
    changes = (
        (f"{first}(sample_loss_new - sample_loss_init) < 0.0", f"{first}~np.isnan(sample_loss_new)"),
        ("\n        return x_adv", "\n        return lowest(self, x, x_adv, y)"),
    )
    with _rewriting(call, *changes, lowest=_lowest):
        yield call


@contextmanager
def square_best_start_counts(call: Call) -> Iterator[Call]:
    """Of all starts' ends the one with the lowest margin."""

    def best_of(attack: Any, x: Any, x_adv: Any, y: Any) -> Iterator[int]:
        best = x
        for restart in range(attack.nb_restarts):
            yield restart
            best = x_adv[:] = _lowest(attack, best, x_adv, y)

    restarts = 'in trange(self.nb_restarts, desc="SquareAttack - restarts", disable=not self.verbose)'
    with _rewriting(call, (restarts, "in best_of(self, x, x_adv, y)"), best_of=best_of):
        yield call


@contextmanager
def square_wins_by_a_margin(call: Call) -> Iterator[Call]:
    """Adversarial is a margin below 0, as in the source; and the loss is the margin wherever the own logit stands."""
    from art.attacks.evasion import SquareAttack

    def loss(self: Any, x: Any, y: Any) -> Any:
        return margins(self.estimator.predict(x, batch_size=self.batch_size), y, False)

    criterion = {"adv_criterion": lambda logits, y: margins(logits, y, False) < 0}
    with attribute(SquareAttack, "_get_logits_diff", loss):
        yield replace(call, kwargs={**call.kwargs, **criterion})


@contextmanager
def square_schedule_in_whole_steps(call: Call) -> Iterator[Call]:
    """The share of squares goes by the whole number of the source's 10,000 iterations."""
    change = ("i_p = i_iter / self.max_iter", "i_p = int(i_iter / self.max_iter * 10000) / 10000")
    with _rewriting(call, change, method="_get_percentage_of_elements"):
        yield call


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
    with _rewriting(call, *changes, bumps=square_bumps):
        yield call


square_windows_everywhere = _lines(
    ("(0, height - height_tile)", "(0, height - height_tile + 1)"),
    ("(0, width - height_tile)", "(0, width - height_tile + 1)"),
    ("(0, height - height_tile_2)", "(0, height - height_tile_2 + 1)"),
    ("(0, width - height_tile_2)", "(0, width - height_tile_2 + 1)"),
)
"""Windows may touch the last row and column."""
square_windows_within = _lines(
    ("* width))), 1)", "* width))), 1); height_tile = min(height_tile, height, width)"),
    ("height_tile_2 = height_tile", "height_tile_2 = height_tile = min(height_tile, height, width)"),
)
square_first_query_counts = _lines(
    ("trange(\n                    self.max_iter, desc", "trange(\n                    1, self.max_iter, desc")
)
"""Iterations from 1: the initial query is one of them."""
square_tiles_in_the_middle = _lines(
    ("n_tiles = 5", "n_tiles = min(5, height, width)"),
    ("height_tile = height // n_tiles", "height_tile = min(height, width) // n_tiles"),
    ("height_start = 0\n", "height_start = (height - n_tiles * height_tile) // 2\n"),
    ("width_start = 0\n", "width_start = (width - n_tiles * height_tile) // 2\n"),
)
square_times_the_length = _lines(("axis=(2, 3), keepdims=True)) * np.sqrt(", "axis=(2, 3), keepdims=True)) / np.sqrt("))
square_windows_by_channel = _lines(
    (
        "np.maximum(new_deltas_mask, new_deltas_mask_2)) ** 2,\n                            axis=(1, 2, 3)",
        "np.maximum(new_deltas_mask, new_deltas_mask_2)) ** 2,\n                            axis=(2, 3)",
    )
)

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
}
