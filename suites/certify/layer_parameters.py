"""What the parameters of two layers tell, where both take the same and give something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.suites.certify.layer_pair import Cause, Floats, LayerPair, close, flatten_order, moves, permutation, same


def parameters(pair: LayerPair) -> Cause | None:
    """The differences of the two layers' own parameters, where both take the same; None where there are none."""
    one, other = pair.layer_a.facts, pair.layer_b.facts
    if not one or not other or not (pair.inputs_agree or _flattened(pair) is not None):
        return None
    texts = []
    if other.get("training") or one.get("training"):
        who = "A" if one.get("training") else "B"
        texts.append(f"batch normalization of {who} is in training mode: it takes mean and variance from the batch")
    for key in _SETTINGS:
        if key in one and key in other and one[key] != other[key]:
            texts.append(f"{_WORDS.get(key, key)}: {one[key]} in A, {other[key]} in B")
    if "epsilon" in one and "epsilon" in other and not np.isclose(one["epsilon"], other["epsilon"], rtol=1e-3):
        texts.append(f"epsilon: {one['epsilon']:g} in A, {other['epsilon']:g} in B")
    for key in ("scale", "offset", "mean", "variance"):
        if key in one and key in other and one[key].shape == other[key].shape and not close(one[key], other[key]):
            texts.append(f"{_WORDS[key]} differs by up to {np.abs(one[key] - other[key]).max():.3g}")
    texts += _weights(pair)
    if texts or not same_weights(one, other) or not pair.biases_comparable:
        return Cause("; ".join(texts)) if texts else None
    if "bias" in one and "bias" in other and not close(one["bias"], other["bias"]):
        missing = [who for who, facts in (("A", one), ("B", other)) if not facts["bias"].any()]
        return Cause(
            f"the bias is missing in {missing[0]}, the weights are the same"
            if missing
            else f"the weights are the same, the bias differs by up to {np.abs(one['bias'] - other['bias']).max():.3g}"
        )
    return None


_SETTINGS = (
    *("pool", "window", "stride", "dilation", "groups", "padding"),
    *("counts_padding", "reset_after", "activation"),
)
_WORDS = {
    "pool": "pooling",
    "padding": "padding (top, left, bottom, right)",
    "counts_padding": "average over the padding",
    "reset_after": "reset gate after the matrix product",
    "scale": "the scale (gamma)",
    "offset": "the offset (beta)",
    "mean": "the running mean",
    "variance": "the running variance",
}
_GATES = {4: ("input", "forget", "cell", "output"), 3: ("reset", "update", "new")}


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both layers show their weights, and these are the same."""
    return "weight" in one and "weight" in other and same(one["weight"], other["weight"])


def _weights(pair: LayerPair) -> Iterator[str]:
    """Say how the weights of B come from those of A."""
    one, other = pair.layer_a.facts, pair.layer_b.facts
    for key in ("kernel", "recurrent"):
        if key in one and key in other and one[key].shape == other[key].shape and not same(one[key], other[key]):
            order = [next((k for k, own in enumerate(one[key]) if same(own, gate)), -1) for gate in other[key]]
            names = _GATES.get(len(order), ("its",))
            yield (
                f"its {key} weights are in another order: for the gates {', '.join(names)} B has those that A has for "
                f"{', '.join(names[k] for k in order)}"
                if -1 not in order
                else f"its {key} weights differ"
            )
    if "weight" not in one or "weight" not in other:
        return
    a, b = one["weight"], other["weight"]
    if a.shape == b.shape and a.ndim == 2 and _flattened(pair) is not None:
        if same(a, b):
            yield (
                "B takes the flattened values in another order (channels last, or first) and its weights are those of "
                "A as they are: they were not put into that order"
            )
        return
    if a.shape != b.shape:
        if a.shape == b.shape[::-1]:
            yield "its weights are transposed"
        return
    if same(a, b):
        return
    if a.ndim == 2 and a.shape[0] == a.shape[1] and same(a.T, b):
        yield "its weights are transposed"
    elif a.ndim == 4 and same(a[:, :, ::-1, ::-1], b):
        yield "its filters are flipped in both directions"
    elif a.ndim == 4 and a.shape[2] == a.shape[3] and same(a.swapaxes(2, 3), b):
        yield "rows and columns of its filters are swapped"
    elif (moved := permutation(a.reshape(len(a), -1), b.reshape(len(b), -1))) is not None:
        yield f"its {'filters' if a.ndim == 4 else 'outputs'} are in another order: {moves(moved)}"
    elif a.shape[1] > 1 and (moved := permutation(_columns(a), _columns(b))) is not None:
        yield f"its weights take the inputs in another order: {flatten_order(moved) or moves(moved)}"
    elif pair.inputs_agree and (count := int((np.abs(a - b) > 1e-6 * np.abs(a).max()).sum())) < a.size / 2:
        yield f"its weights differ in {count} of {a.size} numbers, by up to {np.abs(a - b).max():.3g}"


def _columns(weight: Floats) -> Floats:
    """The weights with one row for each input."""
    return weight.swapaxes(0, 1).reshape(weight.shape[1], -1)


def _flattened(pair: LayerPair) -> npt.NDArray[np.int64] | None:
    """Where each input of B stands among those of A, if both are flattened images in different orders."""
    if pair.takes_a is None or pair.takes_b is None or pair.takes_a.values.ndim != 2:
        return None
    a, b = pair.takes_a.values, pair.takes_b.values.reshape(len(pair.takes_b.values), -1)
    if a.shape != b.shape or close(a, b):
        return None
    return permutation(a.T, b.T)
