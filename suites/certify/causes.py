"""The causes that make two outputs of the same layer differ; a cause is named only where the numbers show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf, expit, log_softmax, softmax

from sparring.suites.certify.layer_pair import (
    Cause,
    Floats,
    LayerPair,
    Wide,
    affine,
    close,
    flatten_order,
    moves,
    permutation,
    span,
)
from sparring.suites.certify.layer_parameters import parameters


def cause_of(pair: LayerPair) -> Cause | None:
    """The first of the rules below that explains all of B's numbers by A's; None where none does."""
    if pair.a.size == 0 or not np.isfinite(pair.b).all() or not np.isfinite(pair.a).all():
        return _not_finite(pair)
    rules = FINE if close(pair.a, pair.b) else RULES
    return next((cause for rule in rules if (cause := rule(pair)) is not None), None)


def _not_finite(pair: LayerPair) -> Cause | None:
    a, b = (int((~np.isfinite(values)).sum()) for values in (pair.a, pair.b))
    return Cause(f"{a} numbers of A and {b} of B are NaN or infinite") if a or b else None


# --- the rules


def _softmax(pair: LayerPair) -> Cause | None:
    """B gives probabilities where A gives logits, or takes the softmax once more."""
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
        if close(form(a), b):
            return Cause(f"what B gives is {words.format('what A gives')}")
        if close(form(b), a):
            return Cause(f"what A gives is {words.format('what B gives')}")
    # logits are known up to a constant for each image: the logarithm of probabilities may be shifted
    shifted = b - softmax(a, axis=1)
    if close(shifted, shifted[:, :1] + np.zeros_like(b)):
        return Cause("what B gives is the softmax of what A gives, up to a constant for each image: a softmax too many")
    return None


def _epsilon(pair: LayerPair) -> Cause | None:
    """Batch normalization with another epsilon: one number explains the factors of all channels.

    The variances must be in the facts of one of the two layers.
    """
    for who, facts, a, b in (("A", pair.layer_a.facts, pair.a, pair.b), ("B", pair.layer_b.facts, pair.b, pair.a)):
        if "variance" not in facts or a.ndim < 2 or a.shape[1] != len(facts["variance"]):
            continue
        fitted = affine(a, b)
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
        predicted = expected[axes] * (a - offset[axes]) + offset[axes]
        scale = np.abs(b - a).max()
        if np.abs(predicted - b)[:, usable].max() <= 0.02 * scale:
            other = "B" if who == "A" else "A"
            mine, theirs = (own, epsilon) if who == "A" else (epsilon, own)
            return Cause(
                f"batch normalization with another epsilon: {mine:.3g} in A, {theirs:.3g} in B (read off the outputs "
                f"of {other}: this number explains the factors of all channels, {factor[live].min():.6f} to "
                f"{factor[live].max():.6f})"
            )
    return None


def _batch_statistics(pair: LayerPair) -> Cause | None:
    """Batch normalization in training mode: it takes mean and variance from these images."""
    for who, facts, values in (("B", pair.layer_a.facts, pair.b), ("A", pair.layer_b.facts, pair.a)):
        if "offset" not in facts or values.ndim < 2 or values.shape[1] != len(facts["offset"]):
            continue
        axes = (0, *range(2, values.ndim))
        mean, spread = values.astype(np.float64).mean(axis=axes), values.astype(np.float64).std(axis=axes)
        if close(facts["offset"], mean, 1e-3) and close(np.abs(facts["scale"]), spread, 2e-2):
            return Cause(
                f"the outputs of {who} have, over these images, the mean and spread that batch normalization gives in "
                "training mode: it takes them from the batch"
            )
    return None


def _activation(pair: LayerPair) -> Cause | None:
    """Two activations of the same numbers; or an activation that only one of the two has.

    The second isn't certain: it also holds of a layer and its activation.
    """
    for z in (pair.takes_a, pair.takes_b):
        if z is not None and pair.inputs_agree and z.values.shape == pair.a.shape:
            one, other = _activation_name(z.values, pair.a), _activation_name(z.values, pair.b)
            if one and other and one != other:
                return Cause(f"the activation is {one} in A and {other} in B")
    far = float(np.abs(pair.b - pair.a).max())
    for name, function in list(ACTIVATIONS.items())[1:]:
        if close(function(pair.a), pair.b):
            return Cause(f"what B gives is {name} of what A gives", False, far)
        if close(function(pair.b), pair.a):
            return Cause(f"what A gives is {name} of what B gives", False, far)
    return None


def _activation_name(z: Floats, values: Floats) -> str | None:
    return next((name for name, function in ACTIVATIONS.items() if close(function(z), values)), None)


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


def _channels_moved(pair: LayerPair) -> Cause | None:
    """B gives the same channels, or features, in another order."""
    a, b = pair.a, pair.b
    if a.ndim < 2 or a.shape[1] < 2:
        return None
    one, other = (values.swapaxes(0, 1).reshape(values.shape[1], -1) for values in (a, b))
    moved = permutation(one, other)
    if moved is None:
        return None
    what = "channels" if a.ndim == 4 else "features"
    order = flatten_order(moved)
    if a.ndim == 4 and order and len(moved) == 3:
        return Cause(order)
    if a.ndim == 2 and order:
        return Cause(f"the same values, flattened in another order: {order}")
    return Cause(f"the same {what} in another order: {moves(moved)}")


def _bias(pair: LayerPair) -> Cause | None:
    """B adds a constant for each channel."""
    fitted = affine(pair.a, pair.b)
    if fitted is None or not pair.biases_comparable or not (np.abs(fitted[0][fitted[2]] - 1) < 1e-4).all():
        return None
    delta = (pair.b - pair.a).astype(np.float64)
    constant = delta.mean(axis=(0, *range(2, delta.ndim)), keepdims=True)
    if not close(delta - constant + 0 * pair.a, np.zeros_like(delta), scale=float(np.abs(pair.a).max())):
        return None
    shift = constant.ravel()
    for who, sign, facts in (("B", -1, pair.layer_a.facts), ("A", 1, pair.layer_b.facts)):
        if "bias" in facts and len(facts["bias"]) == len(shift) and close(sign * facts["bias"], shift, 1e-4):
            return Cause(f"the bias is missing in {who}: the outputs differ by exactly it")
    return Cause(
        f"the outputs differ by a constant for each channel ({shift.min():.3g} to {shift.max():.3g}), as by a bias"
    )


def _factor(pair: LayerPair) -> Cause | None:
    """B multiplies all numbers by one factor."""
    a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
    square = float((a * a).sum())
    if not square:
        return None
    factor = float((a * b).sum()) / square
    if abs(factor - 1) > 1e-5 and factor != 0 and close(factor * a, b):
        return Cause(f"what B gives is {factor:.6g} times what A gives")
    return None


def _normalization(pair: LayerPair) -> Cause | None:
    """B has a factor and a constant for each channel.

    Of two inner layers this isn't certain: it also holds of a layer and its batch normalization.
    """
    fitted = affine(pair.a, pair.b)
    if fitted is None:
        return None
    factor, shift, live = fitted
    if not factor[live].all():
        return None
    far = float(np.abs(pair.b - pair.a).max())
    terms = f"a factor ({span(factor[live])}) and a constant ({span(shift[live])}) for each channel"
    if {pair.layer_a.kind, pair.layer_b.kind} & {"preprocessing", "images"}:
        return Cause(f"the images are normalized otherwise (range, mean, std): B takes what A takes with {terms}")
    return Cause(f"what B gives is what A gives with {terms}", False, far)


RULES: tuple[Callable[[LayerPair], Cause | None], ...] = (
    parameters,
    _softmax,
    _epsilon,
    _batch_statistics,
    _activation,
    _bias,
    _factor,
    _channels_moved,
    _normalization,
)

FINE = (parameters, _epsilon)
"""The rules for a small difference, which the other rules would allow anyway."""
