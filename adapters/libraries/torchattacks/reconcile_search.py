"""Reconciliations of torchattacks' search attacks: each takes one difference of the ledger away."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.draws import square_draws
from sparring.adapters.libraries.rewriting import Classes, attribute, each_image_by_itself

THEIRS = Classes("torchattacks", method="forward")


# Square


@contextmanager
def square_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """The referee's draws."""
    import torch
    from torchattacks import Square

    own = square_draws(call)

    def choice(self: Any, shape: Any) -> Any:
        draws = own.stripes(shape[-1]) if shape[-1] > 1 else own.signs()
        return torch.from_numpy(draws).to(self.device, torch.get_default_dtype())

    def place(self: Any, low: int = 0, high: int = 1, shape: Any = None) -> Any:
        return torch.tensor([own.place(low, max(high, low + 1))])

    with (
        THEIRS.rewritten(
            call, ("self.init_hyperparam(x)", "own.next_image(); self.init_hyperparam(x)"), method="perturb", own=own
        ),
        THEIRS.rewritten(call, ("x_to_fool = x[", "own.next_restart(); x_to_fool = x["), method="perturb"),
        THEIRS.rewritten(call, ("torch.rand([1])", "own.coin()"), method="eta", own=own),
        attribute(Square, "random_choice", choice),
        attribute(Square, "random_int", place),
    ):
        yield call


@contextmanager
def square_failures_keep_their_best(call: Call) -> Iterator[Call]:
    """The end of a search counts wherever its loss is lower than the image's own, even without success."""

    def keep(attack: Any, x: Any, y: Any, adv: Any, rows: Any, ends: Any) -> None:
        (_, loss_before), (margin, loss_after) = (
            attack.margin_and_loss(images, y[rows]) for images in (adv[rows], ends)
        )
        better = (loss_after < loss_before) | (margin < 0)
        adv[rows[better]] = ends[better]

    change = ("adv[ind_to_fool[ind_curr]] = adv_curr[ind_curr].clone()", "keep(self, x, y, adv, ind_to_fool, adv_curr)")
    with THEIRS.rewritten(call, change, method="perturb", keep=keep):
        yield call


@contextmanager
def square_wins_by_a_margin(call: Call) -> Iterator[Call]:
    """Adversarial is a margin below 0, as in the source. A tie is not adversarial."""
    search = (
        ("margin_min > 0.0", "margin_min >= 0.0"),
        ("margin <= 0.0", "margin < 0.0"),
        ("margin_min <= 0.0", "margin_min < 0.0"),
    )
    start = (
        ("self.get_logits(x).max(1)[1] == y", "self.margin_and_loss(x, y)[0] >= 0"),
        ("self.get_logits(x).max(1)[1] != y", "self.margin_and_loss(x, y)[0] >= 0"),
        ("output_curr.max(1)[1] == y_to_fool", "self.margin_and_loss(adv_curr, y_to_fool)[0] >= 0"),
        ("output_curr.max(1)[1] != y_to_fool", "self.margin_and_loss(adv_curr, y_to_fool)[0] >= 0"),
    )
    with THEIRS.rewritten(call, *search, method="attack_single_run"), THEIRS.rewritten(call, *start, method="perturb"):
        yield call


@contextmanager
def square_in_float64(call: Call) -> Iterator[Call]:
    """Images and losses in float64 between the queries."""
    import torch
    from torchattacks import Square

    def logits(self: Any, x: Any) -> Any:
        return self.model(x.float()).double()

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            attribute(Square, "get_logits", logits),
            THEIRS.rewritten(call, ("images = images.clone()", "images = images.double()")),
        ):
            yield call
    finally:
        torch.set_default_dtype(default)


@contextmanager
def square_lengths_alone(call: Call) -> Iterator[Call]:
    """Almost nothing is added to lengths."""
    with (
        THEIRS.rewritten(call, ("1e-12", "1e-30"), method="attack_single_run"),
        THEIRS.rewritten(call, ("1e-12", "1e-30"), method="normalize_delta"),
    ):
        yield call


square_windows_within = THEIRS.lines(
    ("n_features / c))), 1)", "n_features / c))), 1); s = min(s, h, w)"),
    ("if s % 2 == 0:\n                        s += 1", "s = min(s + 1 - s % 2, h, w)"),
    method="attack_single_run",
)
square_lower_loss_counts = THEIRS.lines(
    ("idx_improved = torch.max(idx_improved, idx_miscl)", "pass"), method="attack_single_run"
)
square_windows_everywhere = THEIRS.lines(
    ("(0, h - s)", "(0, h - s + 1)"), ("(0, w - s)", "(0, w - s + 1)"), method="attack_single_run"
)
square_first_query_counts = THEIRS.lines(
    ("in range(self.n_queries)", "in range(1, self.n_queries)"), method="attack_single_run"
)
square_five_by_five_tiles = THEIRS.lines(
    ("s = h // 5", "tiles = min(5, h, w); s = min(h, w) // tiles"),
    ("sp_init = (h - s * 5) // 2", "sp_init = (h - s * tiles) // 2"),
    ("vw = sp_init + 0", "vw = (w - s * tiles) // 2"),
    ("in range(h // s)", "in range(tiles)"),
    ("in range(w // s)", "in range(tiles)"),
    method="attack_single_run",
)
square_halves_of_one_shape = THEIRS.lines(
    ("delta /= (delta ** 2).sum(dim=(0, 1), keepdim=True).sqrt()", "pass"), method="eta_rectangles"
)
square_windows_by_channel = THEIRS.lines(
    (
        "norms_windows = self.lp_norm(delta_curr * mask_image)",
        "norms_windows = ((delta_curr * mask_image) ** 2).sum(dim=(-2, -1), keepdim=True).sqrt()",
    ),
    method="attack_single_run",
)

# JSMA

_stop = "if p1 == p2:\n                break\n            # Apply modifications"
jsma_ends_without_a_pair = THEIRS.lines(("# Apply modifications", _stop), method="perturbation_single")
"""Where no pair is left torchattacks takes the first pixel for both."""
jsma_rounds_down = THEIRS.lines(("np.ceil(", "np.floor("), method="perturbation_single")
jsma_domain_to_the_bound = THEIRS.lines(
    ("torch.lt(var_image, 0.99)", "torch.lt(var_image, 1)"),
    ("torch.gt(var_image, 0.01)", "torch.gt(var_image, 0)"),
    method="perturbation_single",
)
jsma_until_saturated = THEIRS.lines(
    (
        "search_domain[p1] = 0",
        "search_domain = ((new_image < 1) if increasing else (new_image > 0)).view(num_features)",
    ),
    ("search_domain[p2] = 0", "pass"),
    method="perturbation_single",
)


@contextmanager
def jsma_decreases(call: Call) -> Iterator[Call]:
    """The saliency of a pair to darken is positive, too."""
    from torchattacks import JSMA

    change = ("torch.mul(alpha, torch", "torch.mul(alpha.abs(), torch")
    with (
        attribute(JSMA, "saliency_map", inspect.unwrap(JSMA.saliency_map)),
        THEIRS.rewritten(call, change, method="saliency_map"),
    ):
        yield call


RECONCILIATIONS: dict[str, Reconcile] = {
    "square-one-window-for-all": each_image_by_itself,
    "square-draws-torch": square_draws_of_the_seed,
    "square-window-never-last": square_windows_everywhere,
    "square-one-query-more": square_first_query_counts,
    "square-window-beyond-the-image": square_windows_within,
    "square-success-beats-the-loss": square_lower_loss_counts,
    "square-failure-is-clean": square_failures_keep_their_best,
    "square-tie-wins": square_wins_by_a_margin,
    "square-float32": square_in_float64,
    "square-l2-length-plus-1e-12": square_lengths_alone,
    "square-l2-more-tiles": square_five_by_five_tiles,
    "square-l2-halves-of-one-length": square_halves_of_one_shape,
    "square-l2-window-of-all-channels": square_windows_by_channel,
    "jsma-no-pair": jsma_ends_without_a_pair,
    "jsma-rounds-up": jsma_rounds_down,
    "jsma-domain-below-the-bound": jsma_domain_to_the_bound,
    "jsma-pixel-once": jsma_until_saturated,
    "jsma-never-decreases": jsma_decreases,
}
