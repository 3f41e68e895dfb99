"""What takes torchattacks' differences in the ledger away, of its search attacks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.libraries.draws import square_draws
from sparring.adapters.libraries.rewriting import attribute, rewritten


def _rewriting(call: Call, *changes: tuple[str, str], method: str = "forward", **known: Any) -> Any:
    import torchattacks

    return rewritten(getattr(torchattacks, call.target), method, *changes, **known)


def _lines(*changes: tuple[str, str], method: str = "forward") -> Reconcile:
    """A reconciliation that is no more than other words in one function."""

    @contextmanager
    def reconcile(call: Call) -> Iterator[Call]:
        with _rewriting(call, *changes, method=method):
            yield call

    return reconcile


@contextmanager
def each_image_by_itself(call: Call) -> Iterator[Call]:
    """One image a call."""
    yield replace(call, singly=True)


# Square


@contextmanager
def square_draws_of_the_seed(call: Call) -> Iterator[Call]:
    """The referee's draws."""
    import torch
    from torchattacks import Square

    own = square_draws(call)

    def choice(self: Any, shape: Any) -> Any:
        drawn = own.stripes(shape[-1]) if shape[-1] > 1 else own.signs()
        return torch.from_numpy(drawn).to(self.device, torch.get_default_dtype())

    def place(self: Any, low: int = 0, high: int = 1, shape: Any = None) -> Any:
        return torch.tensor([own.place(low, max(high, low + 1))])

    with (
        _rewriting(
            call, ("self.init_hyperparam(x)", "own.next_image(); self.init_hyperparam(x)"), method="perturb", own=own
        ),
        _rewriting(call, ("x_to_fool = x[", "own.next_restart(); x_to_fool = x["), method="perturb"),
        _rewriting(call, ("torch.rand([1])", "own.coin()"), method="eta", own=own),
        attribute(Square, "random_choice", choice),
        attribute(Square, "random_int", place),
    ):
        yield call


@contextmanager
def square_failures_keep_their_best(call: Call) -> Iterator[Call]:
    """What the search found counts wherever its loss is lower than the image's own, fooled or not."""

    def keep(attack: Any, x: Any, y: Any, adv: Any, rows: Any, found: Any) -> None:
        (_, before), (margin, after) = (attack.margin_and_loss(images, y[rows]) for images in (adv[rows], found))
        better = (after < before) | (margin < 0)
        adv[rows[better]] = found[better]

    change = ("adv[ind_to_fool[ind_curr]] = adv_curr[ind_curr].clone()", "keep(self, x, y, adv, ind_to_fool, adv_curr)")
    with _rewriting(call, change, method="perturb", keep=keep):
        yield call


@contextmanager
def square_wins_by_a_margin(call: Call) -> Iterator[Call]:
    """Adversarial is a margin below 0, as in the source: a tie is none."""
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
    with _rewriting(call, *search, method="attack_single_run"), _rewriting(call, *start, method="perturb"):
        yield call


@contextmanager
def square_in_float64(call: Call) -> Iterator[Call]:
    """Images and losses in float64 between the queries."""
    import torch
    from torchattacks import Square

    def logits(self: Any, x: Any) -> Any:
        return self.model(x.float()).double()

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            attribute(Square, "get_logits", logits),
            _rewriting(call, ("images = images.clone()", "images = images.double()")),
        ):
            yield call
    finally:
        torch.set_default_dtype(before)


@contextmanager
def square_lengths_alone(call: Call) -> Iterator[Call]:
    """Lengths without anything added that could be noticed."""
    with (
        _rewriting(call, ("1e-12", "1e-30"), method="attack_single_run"),
        _rewriting(call, ("1e-12", "1e-30"), method="normalize_delta"),
    ):
        yield call


square_windows_within = _lines(
    ("n_features / c))), 1)", "n_features / c))), 1); s = min(s, h, w)"),
    ("if s % 2 == 0:\n                        s += 1", "s = min(s + 1 - s % 2, h, w)"),
    method="attack_single_run",
)
square_lower_loss_counts = _lines(
    ("idx_improved = torch.max(idx_improved, idx_miscl)", "pass"), method="attack_single_run"
)
square_windows_everywhere = _lines(
    ("(0, h - s)", "(0, h - s + 1)"), ("(0, w - s)", "(0, w - s + 1)"), method="attack_single_run"
)
square_first_query_counts = _lines(
    ("in range(self.n_queries)", "in range(1, self.n_queries)"), method="attack_single_run"
)
square_five_by_five_tiles = _lines(
    ("s = h // 5", "tiles = min(5, h, w); s = min(h, w) // tiles"),
    ("sp_init = (h - s * 5) // 2", "sp_init = (h - s * tiles) // 2"),
    ("vw = sp_init + 0", "vw = (w - s * tiles) // 2"),
    ("in range(h // s)", "in range(tiles)"),
    ("in range(w // s)", "in range(tiles)"),
    method="attack_single_run",
)
square_halves_of_one_shape = _lines(
    ("delta /= (delta ** 2).sum(dim=(0, 1), keepdim=True).sqrt()", "pass"), method="eta_rectangles"
)
square_windows_by_channel = _lines(
    (
        "norms_windows = self.lp_norm(delta_curr * mask_image)",
        "norms_windows = ((delta_curr * mask_image) ** 2).sum(dim=(-2, -1), keepdim=True).sqrt()",
    ),
    method="attack_single_run",
)

# JSMA

_stop = "if p1 == p2:\n                break\n            # Apply modifications"
jsma_ends_without_a_pair = _lines(("# Apply modifications", _stop), method="perturbation_single")
"""Where no pair is left it takes the first pixel for both."""
jsma_rounds_down = _lines(("np.ceil(", "np.floor("), method="perturbation_single")
jsma_domain_to_the_bound = _lines(
    ("torch.lt(var_image, 0.99)", "torch.lt(var_image, 1)"),
    ("torch.gt(var_image, 0.01)", "torch.gt(var_image, 0)"),
    method="perturbation_single",
)
jsma_until_saturated = _lines(
    (
        "search_domain[p1] = 0",
        "search_domain = ((new_image < 1) if increasing else (new_image > 0)).view(num_features)",
    ),
    ("search_domain[p2] = 0", "pass"),
    method="perturbation_single",
)


@contextmanager
def jsma_decreases(call: Call) -> Iterator[Call]:
    """The saliency of a pair that is to be darkened is positive, too."""
    from torchattacks import JSMA

    change = ("torch.mul(alpha, torch", "torch.mul(alpha.abs(), torch")
    with (
        attribute(JSMA, "saliency_map", inspect.unwrap(JSMA.saliency_map)),
        _rewriting(call, change, method="saliency_map"),
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
