"""ONNX control flow (If, Loop, Scan), sequences and optionals. A body is a function from values to a list of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import Ints, Table

Body = Callable[..., list[Any]]
Tensors = list[Tensor]


def choose(cond: Tensor, *, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    return tuple((then_branch if bool(cond) else else_branch)())


def loop(trips: Tensor | None, cond: Tensor | None, *state: Any, body: Body, outputs: int) -> tuple[Any, ...]:
    """The body's condition ends the loop even without one at the start, as in ONNX Runtime."""
    limit = None if trips is None else int(trips)
    condition = torch.tensor(True) if cond is None else cond
    collected: list[list[Tensor]] = [[] for _ in range(outputs - len(state))]
    turn = 0
    while bool(condition) and (limit is None or turn < limit):
        condition, *results = body(torch.tensor(turn), condition, *state)
        state = tuple(results[: len(state)])
        for rows, new in zip(collected, results[len(state) :], strict=True):
            rows.append(new)
        turn += 1
    return (*state, *(_stack(rows) for rows in collected))


def scan(
    *inputs: Tensor,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: list[int] | None = None,
    scan_input_directions: list[int] | None = None,
    scan_output_axes: list[int] | None = None,
    scan_output_directions: list[int] | None = None,
    opset: int,
    outputs: int,
) -> tuple[Any, ...]:
    """A loop over slices of the last ``num_scan_inputs`` inputs; the others are the state."""
    if opset < 9:
        raise NotSupported("Scan of opset 8, which has a batch axis of its own")
    states = len(inputs) - num_scan_inputs
    state, collected = list(inputs[:states]), [[] for _ in range(outputs - states)]  # type: list[Tensor], list[Tensors]
    slices = []
    for i, x in enumerate(inputs[states:]):
        parts = x.unbind((scan_input_axes or [0] * num_scan_inputs)[i])
        slices.append(parts[::-1] if scan_input_directions and scan_input_directions[i] else parts)
    for parts in zip(*slices, strict=True):
        results = body(*state, *parts)
        state = results[:states]
        for rows, new in zip(collected, results[states:], strict=True):
            rows.append(new)
    stacked = []
    for i, rows in enumerate(collected):
        backwards = scan_output_directions and scan_output_directions[i]
        stacked.append(_stack(rows[::-1] if backwards else rows, (scan_output_axes or [0] * len(collected))[i]))
    return (*state, *stacked)


def _stack(rows: Tensors, axis: int = 0) -> Tensor:
    if not rows:
        raise NotSupported("no rounds at all, which leave the shape of the output open")
    return torch.stack(rows, axis)


def sequence_map(first: Tensors, *others: Any, body: Body, outputs: int) -> tuple[Tensors, ...]:
    rounds = [body(x, *(o[i] if isinstance(o, list) else o for o in others)) for i, x in enumerate(first)]
    return tuple([values[i] for values in rounds] for i in range(outputs))


def sequence_empty(*, dtype: int = 1) -> Tensors:
    return []


def sequence_construct(*inputs: Tensor) -> Tensors:
    return list(inputs)


def sequence_insert(sequence: Tensors, x: Tensor, position: Ints | None = None) -> Tensors:
    result, at = list(sequence), len(sequence) if position is None else position[0]
    result.insert(at, x)
    return result


def sequence_erase(sequence: Tensors, position: Ints | None = None) -> Tensors:
    result = list(sequence)
    del result[-1 if position is None else position[0]]
    return result


def sequence_at(sequence: Tensors, position: Ints) -> Tensor:
    return sequence[position[0]]


def sequence_length(sequence: Tensors) -> Tensor:
    return torch.tensor(len(sequence))


def concat_from_sequence(sequence: Tensors, *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)


def split_to_sequence(x: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1) -> Tensors:
    if split is None:
        return list(torch.split(x, 1, axis)) if keepdims else list(x.unbind(axis))
    return list(torch.split(x, int(split) if split.ndim == 0 else split.tolist(), axis))


def optional(x: Any = None, *, type: object = None) -> Any:
    return x


def has_element(x: Any = None) -> Tensor:
    return torch.tensor(x is not None)


def get_element(x: Any) -> Any:
    if x is None:
        raise NotSupported("an optional without an element")
    return x


TABLE: Table = {
    "ConcatFromSequence": concat_from_sequence,
    "If": choose,
    "Loop": loop,
    "Optional": optional,
    "OptionalGetElement": get_element,
    "OptionalHasElement": has_element,
    "Scan": scan,
    "SequenceAt": sequence_at,
    "SequenceConstruct": sequence_construct,
    "SequenceEmpty": sequence_empty,
    "SequenceErase": sequence_erase,
    "SequenceInsert": sequence_insert,
    "SequenceLength": sequence_length,
    "SequenceMap": sequence_map,
    "SplitToSequence": split_to_sequence,
}
