"""What two outputs of the same layer have to do with one another: named only where the numbers show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import erf, expit, log_softmax, softmax

from sparring.models.layers import Layer

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

CLOSE = 2e-5
"""Numbers that a rule explains are this near to what it says, as a share of the largest."""


@dataclass(frozen=True)
class Pair:
    """A layer of A and one of B with outputs of one size, ``b`` laid out as ``a``; and what they take.

    ``inputs_agree``: what the two take is the same; ``turned``: but for the layout.
    """

    layer_a: Layer
    layer_b: Layer
    a: Floats
    b: Floats
    takes_a: Layer | None
    takes_b: Layer | None
    inputs_agree: bool
    turned: bool


@dataclass(frozen=True)
class Cause:
    """What it is, in words. One that isn't ``certain`` would also hold of a layer and the next; ``far`` is then how far
    the two outputs are from one another."""

    text: str
    certain: bool = True
    far: float = 0.0


def recognised(pair: Pair) -> Cause | None:
    """The first of the rules below that explains all of B's numbers by A's; None where none does."""
    if pair.a.size == 0 or not np.isfinite(pair.b).all() or not np.isfinite(pair.a).all():
        return _not_finite(pair)
    rules = FINE if _close(pair.a, pair.b) else RULES
    return next((cause for rule in rules if (cause := rule(pair)) is not None), None)


def _not_finite(pair: Pair) -> Cause | None:
    bad = [int((~np.isfinite(values)).sum()) for values in (pair.a, pair.b)]
    if not any(bad):
        return None
    return Cause(f"{bad[0]} numbers of A and {bad[1]} of B are NaN or infinite")


# --- the parameters -------------------------------------------------------------------------------------------------


def _parameters(pair: Pair) -> Cause | None:
    """What the two layers' own parameters say, where the same goes in."""
    one, other = pair.layer_a.facts, pair.layer_b.facts
    if not one or not other or not (pair.inputs_agree or _flattened(pair) is not None):
        return None
    said = []
    if other.get("training") or one.get("training"):
        who = "A" if one.get("training") else "B"
        said.append(f"batch normalisation of {who} is in training mode: it takes mean and variance from the batch")
    for key in (
        "pool",
        "window",
        "stride",
        "dilation",
        "groups",
        "padding",
        "counts_padding",
        "reset_after",
        "activation",
    ):
        if key in one and key in other and one[key] != other[key]:
            said.append(f"{_WORDS.get(key, key)}: {one[key]} in A, {other[key]} in B")
    if "epsilon" in one and "epsilon" in other and not np.isclose(one["epsilon"], other["epsilon"], rtol=1e-3):
        said.append(f"epsilon: {one['epsilon']:g} in A, {other['epsilon']:g} in B")
    for key in ("scale", "offset", "mean", "variance"):
        if key in one and key in other and one[key].shape == other[key].shape and not _close(one[key], other[key]):
            said.append(f"{_WORDS[key]} differs by up to {np.abs(one[key] - other[key]).max():.3g}")
    weights = list(_weights(pair))
    said += weights
    if said or not same_weights(one, other):
        return Cause("; ".join(said)) if said else None
    if "bias" in one and "bias" in other and not _close(one["bias"], other["bias"]):
        gone = [who for who, facts in (("A", one), ("B", other)) if not facts["bias"].any()]
        return Cause(
            f"the bias is missing in {gone[0]}, the weights are the same"
            if gone
            else f"the weights are the same, the bias differs by up to {np.abs(one['bias'] - other['bias']).max():.3g}"
        )
    return None


_WORDS = {
    "pool": "pooling", "padding": "padding (top, left, bottom, right)", "counts_padding": "average over the padding",
    "reset_after": "reset gate after the matrix product", "scale": "the scale (gamma)", "offset": "the offset (beta)",
    "mean": "the running mean", "variance": "the running variance",
}  # fmt: skip


_GATES = {4: ("input", "forget", "cell", "output"), 3: ("reset", "update", "new")}


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are known to have the same weights."""
    return "weight" in one and "weight" in other and _same(one["weight"], other["weight"])


def _weights(pair: Pair) -> Iterator[str]:
    """How the weights of B come from those of A."""
    one, other = pair.layer_a.facts, pair.layer_b.facts
    for key in ("kernel", "recurrent"):
        if key in one and key in other and one[key].shape == other[key].shape and not _same(one[key], other[key]):
            found = [next((k for k, mine in enumerate(one[key]) if _same(mine, gate)), -1) for gate in other[key]]
            names = _GATES.get(len(found), ("its",))
            yield (
                f"its {key} weights are in another order: for the gates {', '.join(names)} B has those that A has for "
                f"{', '.join(names[k] for k in found)}"
                if -1 not in found
                else f"its {key} weights differ"
            )
    if "weight" not in one or "weight" not in other:
        return
    a, b = one["weight"], other["weight"]
    if a.shape == b.shape and a.ndim == 2 and _flattened(pair) is not None:
        if _same(a, b):
            yield (
                "B takes the flattened values in another order (channels last, or first) and its weights are those of "
                "A as they are: they were not put into that order"
            )
        return
    if a.shape != b.shape:
        if a.shape == b.shape[::-1]:
            yield "its weights are transposed"
        return
    if _same(a, b):
        return
    if a.ndim == 2 and a.shape[0] == a.shape[1] and _same(a.T, b):
        yield "its weights are transposed"
    elif a.ndim == 4 and _same(a[:, :, ::-1, ::-1], b):
        yield "its filters are flipped in both directions"
    elif a.ndim == 4 and a.shape[2] == a.shape[3] and _same(a.swapaxes(2, 3), b):
        yield "rows and columns of its filters are swapped"
    elif (moved := _permutation(a.reshape(len(a), -1), b.reshape(len(b), -1))) is not None:
        yield f"its {'filters' if a.ndim == 4 else 'outputs'} are in another order: {_moves(moved)}"
    elif a.shape[1] > 1 and (moved := _permutation(_columns(a), _columns(b))) is not None:
        yield f"its weights take the inputs in another order: {_flatten_order(moved) or _moves(moved)}"
    elif pair.inputs_agree and (count := int((np.abs(a - b) > 1e-6 * np.abs(a).max()).sum())) < a.size / 2:
        yield f"its weights differ in {count} of {a.size} numbers, by up to {np.abs(a - b).max():.3g}"


def _flatten_order(order: npt.NDArray[np.int64]) -> str:
    """In words, if it is the order of an image flattened with its channels last in place of first, or the reverse."""
    size = len(order)
    if size == 3 and tuple(order) == (2, 1, 0):
        return "the three channels are reversed (RGB against BGR)"
    for channels in range(2, size // 2 + 1):
        if size % channels == 0 and (order == np.arange(size).reshape(channels, -1).T.ravel()).all():
            return (
                f"that of {channels} x {size // channels} numbers flattened the other way round (channels first, last)"
            )
    return ""


def _columns(weight: Floats) -> Floats:
    """One row an input."""
    return weight.swapaxes(0, 1).reshape(weight.shape[1], -1)


def _flattened(pair: Pair) -> npt.NDArray[np.int64] | None:
    """Where the inputs of B stand among those of A, if both are flattened images and their order differs."""
    if pair.takes_a is None or pair.takes_b is None or pair.takes_a.values.ndim != 2:
        return None
    a, b = pair.takes_a.values, pair.takes_b.values.reshape(len(pair.takes_b.values), -1)
    if a.shape != b.shape or _close(a, b):
        return None
    return _permutation(a.T, b.T)


# --- the numbers ----------------------------------------------------------------------------------------------------


def _softmax(pair: Pair) -> Cause | None:
    """Probabilities in place of logits, or a softmax taken once more."""
    if pair.a.ndim != 2 or pair.a.shape[1] < 2:
        return None
    forms: list[tuple[str, Callable[[Wide], Wide]]] = [
        ("the softmax of {}", lambda z: softmax(z, axis=1)),
        ("the logarithm of the softmax of {}", lambda z: log_softmax(z, axis=1)),
        ("the softmax of {}, taken twice", lambda z: softmax(softmax(z, axis=1), axis=1)),
        ("the logarithm of the softmax of {}, taken twice", lambda z: log_softmax(softmax(z, axis=1), axis=1)),
    ]
    a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
    for words, form in forms:
        if _close(form(a), b):
            return Cause(f"what B gives is {words.format('what A gives')}")
        if _close(form(b), a):
            return Cause(f"what A gives is {words.format('what B gives')}")
    # a logit is known to a constant an image: the logarithm of probabilities may be shifted
    shifted = b - softmax(a, axis=1)
    if _close(shifted, shifted[:, :1] + np.zeros_like(b)):
        return Cause("what B gives is the softmax of what A gives, but for a constant an image: a softmax too many")
    return None


def _epsilon(pair: Pair) -> Cause | None:
    """Another epsilon in a batch normalisation whose variances are known: one number explains all channels' factors."""
    for who, facts, a, b in (("A", pair.layer_a.facts, pair.a, pair.b), ("B", pair.layer_b.facts, pair.b, pair.a)):
        if "variance" not in facts or a.ndim < 2 or a.shape[1] != len(facts["variance"]):
            continue
        fitted = _affine(a, b)
        if fitted is None:
            continue
        factor, _, live = fitted
        variance, own = facts["variance"].astype(np.float64), float(facts["epsilon"])
        estimates = (variance + own) / factor**2 - variance
        usable = live & (factor > 0)
        if not usable.any():
            continue
        # where the variance is smallest epsilon shows most
        weights = np.where(usable, 1 / (variance + own), 0.0)
        epsilon = float(np.average(np.where(usable, estimates, 0.0), weights=weights**2))
        if epsilon <= 0 or abs(epsilon / own - 1) < 0.05:
            continue
        expected = np.sqrt((variance + own) / (variance + epsilon))
        offset = facts["offset"].astype(np.float64)
        axes = (slice(None), *(None for _ in range(a.ndim - 2)))
        told = expected[axes] * (a - offset[axes]) + offset[axes]
        scale = np.abs(b - a).max()
        if np.abs(told - b)[:, usable].max() <= 0.02 * scale:
            other = "B" if who == "A" else "A"
            mine, theirs = (own, epsilon) if who == "A" else (epsilon, own)
            return Cause(
                f"batch normalisation with another epsilon: {mine:.3g} in A, {theirs:.3g} in B (read off the outputs "
                f"of {other}: this number explains the factors of all channels, {factor[live].min():.6f} to "
                f"{factor[live].max():.6f})"
            )
    return None


def _batch_statistics(pair: Pair) -> Cause | None:
    """Batch normalisation by the mean and variance of these images: training mode."""
    for who, facts, values in (("B", pair.layer_a.facts, pair.b), ("A", pair.layer_b.facts, pair.a)):
        if "offset" not in facts or values.ndim < 2 or values.shape[1] != len(facts["offset"]):
            continue
        axes = (0, *range(2, values.ndim))
        mean, spread = values.astype(np.float64).mean(axis=axes), values.astype(np.float64).std(axis=axes)
        if _close(facts["offset"], mean, 1e-3) and _close(np.abs(facts["scale"]), spread, 2e-2):
            return Cause(
                f"the outputs of {who} have, over these images, the mean and spread that batch normalisation gives in "
                "training mode: it takes them from the batch"
            )
    return None


def _activation(pair: Pair) -> Cause | None:
    """Two activations of the same numbers; or one that only one of the two has, as has every layer and the next."""
    for z in (pair.takes_a, pair.takes_b):
        if z is None or z.values.size != pair.a.size or not pair.inputs_agree:
            continue
        taken = z.values if z.values.shape == pair.a.shape else None
        if taken is None:
            continue
        names = [_named(taken, values) for values in (pair.a, pair.b)]
        if names[0] and names[1] and names[0] != names[1]:
            return Cause(f"the activation is {names[0]} in A and {names[1]} in B")
    far = float(np.abs(pair.b - pair.a).max())
    for name, function in list(ACTIVATIONS.items())[1:]:
        if _close(function(pair.a), pair.b):
            return Cause(f"what B gives is {name} of what A gives", False, far)
        if _close(function(pair.b), pair.a):
            return Cause(f"what A gives is {name} of what B gives", False, far)
    return None


def _named(z: Floats, values: Floats) -> str | None:
    return next((name for name, function in ACTIVATIONS.items() if _close(function(z), values)), None)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda z: z,
    "ReLU": lambda z: np.maximum(z, 0),
    "ReLU6 (clipped at 6)": lambda z: np.clip(z, 0, 6),
    "leaky ReLU (.01)": lambda z: np.where(z > 0, z, 0.01 * z),
    "leaky ReLU (.2)": lambda z: np.where(z > 0, z, 0.2 * z),
    "leaky ReLU (.3)": lambda z: np.where(z > 0, z, 0.3 * z),
    "sigmoid": expit,
    "tanh": np.tanh,
    "GELU by erf": lambda z: 0.5 * z * (1 + erf(z / np.sqrt(2))),
    "GELU by tanh": lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "GELU by sigmoid(1.702 z)": lambda z: z * expit(1.702 * z),
    "SiLU (swish)": lambda z: z * expit(z),
    "hard swish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hard sigmoid (z/6 + 1/2)": lambda z: np.clip(z / 6 + 0.5, 0, 1),
    "hard sigmoid (.2 z + 1/2)": lambda z: np.clip(0.2 * z + 0.5, 0, 1),
    "ELU": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "SELU": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0))),
    "softplus": lambda z: np.logaddexp(0, z),
    "softsign": lambda z: z / (1 + np.abs(z)),
}


def _channels_moved(pair: Pair) -> Cause | None:
    """The same channels, or features, in another order."""
    a, b = pair.a, pair.b
    if a.ndim < 2 or a.shape[1] < 2:
        return None
    one, other = (values.swapaxes(0, 1).reshape(values.shape[1], -1) for values in (a, b))
    moved = _permutation(one, other)
    if moved is None:
        return None
    what = "channels" if a.ndim == 4 else "features"
    order = _flatten_order(moved)
    if a.ndim == 4 and order and len(moved) == 3:
        return Cause(order)
    if a.ndim == 2 and order:
        return Cause(f"the same values, flattened in another order: {order}")
    return Cause(f"the same {what} in another order: {_moves(moved)}")


def _bias(pair: Pair) -> Cause | None:
    """A constant for each channel."""
    fitted = _affine(pair.a, pair.b)
    if fitted is None or not (np.abs(fitted[0][fitted[2]] - 1) < 1e-4).all():
        return None
    delta = (pair.b - pair.a).astype(np.float64)
    constant = delta.mean(axis=(0, *range(2, delta.ndim)), keepdims=True)
    if not _close(delta - constant + 0 * pair.a, np.zeros_like(delta), scale=float(np.abs(pair.a).max())):
        return None
    shift = constant.ravel()
    for who, sign, facts in (("B", -1, pair.layer_a.facts), ("A", 1, pair.layer_b.facts)):
        if "bias" in facts and len(facts["bias"]) == len(shift) and _close(sign * facts["bias"], shift, 1e-4):
            return Cause(f"the bias is missing in {who}: the outputs differ by exactly it")
    return Cause(
        f"the outputs differ by a constant for each channel ({shift.min():.3g} to {shift.max():.3g}), as by a bias"
    )


def _factor(pair: Pair) -> Cause | None:
    """A factor for all."""
    a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
    square = float((a * a).sum())
    if not square:
        return None
    factor = float((a * b).sum()) / square
    if abs(factor - 1) > 1e-5 and factor != 0 and _close(factor * a, b):
        return Cause(f"what B gives is {factor:.6g} times what A gives")
    return None


def _normalisation(pair: Pair) -> Cause | None:
    """A factor and a constant for each channel; a batch normalisation is that to the layer before it, too."""
    fitted = _affine(pair.a, pair.b)
    if fitted is None:
        return None
    factor, shift, live = fitted
    if not factor[live].all():
        return None
    far = float(np.abs(pair.b - pair.a).max())
    told = f"a factor ({_span(factor[live])}) and a constant ({_span(shift[live])}) for each channel"
    if {pair.layer_a.kind, pair.layer_b.kind} & {"preprocessing", "images"}:
        return Cause(f"the images are normalised otherwise (range, mean, std): B takes what A takes with {told}")
    return Cause(f"what B gives is what A gives with {told}", False, far)


RULES: tuple[Callable[[Pair], Cause | None], ...] = (
    _parameters, _softmax, _epsilon, _batch_statistics, _activation, _bias, _factor, _channels_moved, _normalisation,
)  # fmt: skip

FINE = (_parameters, _epsilon)
"""Of a difference so small that the other rules would hold of it as well as not."""


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _close(expected: Any, found: Any, share: float = CLOSE, scale: float | None = None) -> bool:
    """Whether no number is further off than this share of the largest expected."""
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape:
        return False
    size = float(np.abs(expected).max(initial=0)) if scale is None else scale
    return bool(np.abs(expected - found).max(initial=0) <= share * max(size, 1e-30))


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays of weights are equal, as copies are."""
    return one.shape == other.shape and _close(one, other, 1e-6)


def _affine(a: Floats, b: Floats) -> tuple[Wide, Wide, npt.NDArray[np.bool_]] | None:
    """Factor and constant (channels,) that make every channel of ``a`` that of ``b``, and which channels vary at all;
    None where there are none that do."""
    if a.ndim < 2 or (a.shape[1] == 1 and a.ndim == 2):
        return None
    one, other = (v.astype(np.float64).swapaxes(0, 1).reshape(v.shape[1], -1) for v in (a, b))
    if one.shape[1] < 4:
        return None
    mean_a, mean_b = one.mean(axis=1, keepdims=True), other.mean(axis=1, keepdims=True)
    square = ((one - mean_a) ** 2).sum(axis=1)
    live = square > 1e-10 * max(float((one**2).sum(axis=1).max()), 1e-30)
    if not live.any():
        return None
    factor = np.where(live, ((one - mean_a) * (other - mean_b)).sum(axis=1) / np.where(live, square, 1), 1.0)
    shift = (mean_b - factor[:, None] * mean_a)[:, 0]
    told = factor[:, None] * one + shift[:, None]
    if not _close(told, other, 1e-5):
        return None
    return factor, shift, live


def _permutation(one: Floats, other: Floats) -> npt.NDArray[np.int64] | None:
    """Where each row of ``other`` stands in ``one``, if it holds the same rows in another order; else None."""
    size = float(np.abs(one).max(initial=0))
    if one.shape != other.shape or not size or _close(one, other):
        return None
    a, b = one.astype(np.float64), other.astype(np.float64)
    if a.shape[1] > 64:  # enough to tell rows apart; what they are is compared in full below
        picked = np.random.default_rng(0).choice(a.shape[1], 64, replace=False)
        tree, wanted = cKDTree(a[:, picked]), b[:, picked]
    else:
        tree, wanted = cKDTree(a), b
    _, found = tree.query(wanted, k=min(4, len(a)))
    found = found.reshape(len(b), -1)
    taken: set[int] = set()
    order = np.zeros(len(b), np.int64)
    for row, near in enumerate(found):
        fits = [int(k) for k in near if np.abs(a[k] - b[row]).max() <= CLOSE * size]
        if not fits:
            return None
        # a row that didn't move is taken for itself; rows that are equal (all zeros) may stand for one another
        order[row] = row if row in fits else next((k for k in fits if k not in taken), fits[0])
        taken.add(int(order[row]))
    still = [row for row in range(len(a)) if np.abs(a[row] - b[row]).max() <= CLOSE * size]
    order[still] = still
    return order if len(still) < len(a) else None


def _moves(order: npt.NDArray[np.int64]) -> str:
    """What moved where, in a few words."""
    moved = [(row, int(k)) for row, k in enumerate(order) if row != k]
    if len(moved) == 2 and moved[0] == moved[1][::-1]:
        return f"{moved[0][0]} and {moved[0][1]} are swapped"
    if (order == np.arange(len(order))[::-1]).all():
        return "they are reversed"
    told = ", ".join(f"{k} of A at {row}" for row, k in moved[:3])
    return f"{len(moved)} of {len(order)} moved ({told}{', ...' if len(moved) > 3 else ''})"


def _span(values: Wide) -> str:
    if len(values) <= 3:
        return ", ".join(f"{value:.4g}" for value in values)
    return f"{values.min():.4g} to {values.max():.4g}"
