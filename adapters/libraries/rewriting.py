"""The tools of reconciliations: within a context, lines of a library's function are replaced.

An attack is mostly one long function of its library, and a difference from its source is one line of it. So a
reconciliation names that line and the line in its place. Where a release has no such line, an error says that the
ledger no longer fits. Only reconciliations execute edited source; no attack needs it otherwise.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import Call, Reconcile
from sparring.adapters.attacks.starts import draw_start
from sparring.adapters.errors import LibraryError
from sparring.adapters.libraries.referee.terms import margin_loss
from sparring.adapters.protocol import Images, Logits

FEATURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
LEAST = 1e-30
"""Smaller gradients of a loss are scaled up, for they would vanish on their way through the model in float32."""


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the context the attribute of a class, a module or an object has this value."""
    attributes = dict(vars(owner))
    setattr(owner, name, value)
    try:
        yield
    finally:
        if name in attributes:
            setattr(owner, name, attributes[name])
        else:
            delattr(owner, name)


@contextmanager
def rewritten(owner: Any, name: str, *changes: tuple[str, str], **values: Any) -> Iterator[None]:
    """Within the context a function of a class or module has some of its source changed, each (old, new).

    Contexts within one another may change the same function. ``values`` are what the new source uses by name. Raises
    ``LibraryError`` where the old source isn't there.
    """
    function = getattr(owner, name)
    source, variables = getattr(function, "rewritten_from", (None, {}))
    source, variables = source or inspect.getsource(function), {**variables, **values}
    for old, new in changes:
        if old not in source:
            place = f"{function.__module__}.{function.__qualname__}"
            raise LibraryError(f"the ledger no longer fits: {place} does not read {old.splitlines()[0].strip()!r}")
        source = source.replace(old, new)
    body = source if source.startswith(" ") else textwrap.indent(source, "    ")  # a method is indented already
    maker = f"def make({', '.join(variables)}):\n{body}\n    return {function.__name__}"
    namespace: dict[str, Any] = {}
    # a module may have annotations that can't be evaluated
    flags = function.__code__.co_flags & FEATURES
    exec(compile(maker, f"<{name} reconciled>", "exec", flags, dont_inherit=True), function.__globals__, namespace)
    replacement = namespace["make"](**variables)
    replacement.rewritten_from, replacement.__module__ = (source, variables), function.__module__
    replacement.__qualname__ = function.__qualname__
    with attribute(owner, name, replacement):
        yield


@dataclass(frozen=True)
class Classes:
    """A library's attack classes, and the method that its reconciliations mostly change."""

    module: str
    method: str

    def of(self, call: Call) -> Any:
        """The class that a call runs."""
        return getattr(import_module(self.module), call.target)

    def rewritten(
        self, call: Call, *changes: tuple[str, str], method: str | None = None, **values: Any
    ) -> AbstractContextManager[None]:
        """``rewritten`` on a method of the class that a call runs."""
        return rewritten(self.of(call), method or self.method, *changes, **values)

    def lines(self, *changes: tuple[str, str], method: str | None = None) -> Reconcile:
        """A reconciliation that only changes lines of one method."""

        @contextmanager
        def reconcile(call: Call) -> Iterator[Call]:
            with self.rewritten(call, *changes, method=method):
                yield call

        return reconcile


@contextmanager
def each_image_by_itself(call: Call) -> Iterator[Call]:
    """A reconciliation: one image a call."""
    yield replace(call, singly=True)


def cross_entropy_gradient(logits: Logits, labels: npt.NDArray[Any]) -> Logits:
    """Gradient of each image's cross-entropy by its logits, (N, classes), float32, computed in float64.

    ``labels``: class indices (N,), or one-hot (N, classes). The own logit's share is minus the sum of all others:
    1 - p would vanish near certainty. A row below ``LEAST`` is scaled to 1, which changes neither sign nor direction.
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
    """Each image's gradient divided by its L1 or L2 length, in float64. A gradient of zeros stays zero."""
    flat = gradients.reshape(len(gradients), -1).astype(np.float64)
    length = np.linalg.norm(flat, ord=order, axis=1, keepdims=True)
    unit = flat / np.where(length, length, 1)
    return unit.astype(np.float32).reshape(gradients.shape)


def starts_of(call: Call) -> Iterator[Images]:
    """The random starts of a batch, the same for every library: one for each restart, then the first again."""
    context, canonical = call.context, call.canonical
    assert context is not None, "only canonical attacks are reconciled"
    assert canonical is not None
    seeds = [context.seed + (i << 32) for i in range(context.params["restarts"])]
    return cycle(draw_start(call.x, canonical.norm, context.params["eps"], seed) for seed in seeds)


def margins(logits: Logits, labels: npt.NDArray[Any], targeted: bool) -> npt.NDArray[np.float64]:
    """Each image's distance from success, (N,): the own logit less the best other, or, targeted, the other way round.

    ``labels``: class indices (N,), or one-hot (N, classes).
    """
    own = labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.int64)
    return margin_loss(logits.astype(np.float64), own, targeted)
