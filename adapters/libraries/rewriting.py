"""The tools of reconciliations: a library's own function with a few lines of its source changed, undone on leaving.

An attack is mostly one long function of its library, and a difference is one line of it. So a reconciliation names that
line and what stands in its place; where the line is no longer there, the library has changed and the ledger is told so.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import Call
from sparring.adapters.attacks.starts import draw_start
from sparring.adapters.errors import LibraryError
from sparring.adapters.protocol import Images, Logits

FEATURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
LEAST = 1e-30
"""Gradients of a loss below it are scaled up: on its way through the model float32 would lose them."""


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the context the attribute of a class, a module or an object has this value."""
    before = dict(vars(owner))
    setattr(owner, name, value)
    try:
        yield
    finally:
        if name in before:
            setattr(owner, name, before[name])
        else:
            delattr(owner, name)


@contextmanager
def rewritten(owner: Any, name: str, *changes: tuple[str, str], **known: Any) -> Iterator[None]:
    """Within the context a function of a class or module has some of its source changed, each (old, new).

    Several may change one function one after the other. ``known`` are values that the new source uses by name. Raises
    ``LibraryError`` where the old source isn't there.
    """
    function = getattr(owner, name)
    source, names = getattr(function, "rewritten_from", (None, {}))
    source, names = source or inspect.getsource(function), {**names, **known}
    for old, new in changes:
        if old not in source:
            where = f"{function.__module__}.{function.__qualname__}"
            raise LibraryError(f"the ledger no longer fits: {where} does not read {old.splitlines()[0].strip()!r}")
        source = source.replace(old, new)
    body = source if source.startswith(" ") else textwrap.indent(source, "    ")  # a method is indented already
    maker = f"def make({', '.join(names)}):\n{body}\n    return {function.__name__}"
    made: dict[str, Any] = {}
    # the annotations of its module may be such as can't be evaluated
    flags = function.__code__.co_flags & FEATURES
    exec(compile(maker, f"<{name} reconciled>", "exec", flags, dont_inherit=True), function.__globals__, made)
    changed = made["make"](**names)
    changed.rewritten_from, changed.__module__ = (source, names), function.__module__
    changed.__qualname__ = function.__qualname__
    with attribute(owner, name, changed):
        yield


def cross_entropy_gradient(logits: Logits, labels: npt.NDArray[Any]) -> Logits:
    """Gradient of each image's cross-entropy by its logits, (N, classes), float32, computed in float64.

    ``labels``: class indices (N,), or one-hot (N, classes). The own logit's share is minus the sum of all others, which
    1 - p would lose near certainty; a row below ``LEAST`` is scaled to 1, which neither a sign nor a direction minds.
    """
    own = labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.int64)
    rows = np.arange(len(logits))
    scores = logits.astype(np.float64)
    others = scores.copy()
    others[rows, own] = -np.inf
    most = others.max(axis=1, keepdims=True)
    gradient = np.exp(others - most)
    gradient[rows, own] = -gradient.sum(axis=1)
    top = scores.max(axis=1, keepdims=True)
    size = np.exp(most - top) / np.exp(scores - top).sum(axis=1, keepdims=True)  # the largest of the others' p
    scaled: Logits = (gradient * np.where(size < LEAST, 1, size)).astype(np.float32)
    return scaled


def unit_length(gradients: npt.NDArray[np.float32], order: int = 2) -> npt.NDArray[np.float32]:
    """Each image's gradient divided by its L1 or L2 length, which is taken in float64; one of zeros stays zero."""
    flat = gradients.reshape(len(gradients), -1).astype(np.float64)
    length = np.linalg.norm(flat, ord=order, axis=1, keepdims=True)
    unit = flat / np.where(length, length, 1)
    return unit.astype(np.float32).reshape(gradients.shape)


def starts_of(call: Call) -> Iterator[Images]:
    """The random starts of a batch that every library gets, one for each restart; the first again after the last."""
    context, canonical = call.context, call.canonical
    assert context is not None, "only canonical attacks are reconciled"
    assert canonical is not None
    seeds = [context.seed + (i << 32) for i in range(context.params["restarts"])]
    return cycle(draw_start(call.x, canonical.norm, context.params["eps"], seed) for seed in seeds)


def margins(logits: Logits, labels: npt.NDArray[Any], targeted: bool) -> npt.NDArray[np.float64]:
    """How far each image is from success, (N,): the own logit less the best other; or, targeted, the other way round.

    ``labels``: class indices (N,), or one-hot (N, classes).
    """
    own = labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.int64)
    rows, others = np.arange(len(logits)), logits.astype(np.float64)
    others[rows, own] = -np.inf
    margin: npt.NDArray[np.float64] = logits[rows, own] - others.max(axis=1)
    return -margin if targeted else margin
