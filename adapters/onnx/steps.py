"""An ONNX graph as steps that run in order: each is an operator's function with its attributes bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparring.adapters.errors import NotSupported, first_line
from sparring.adapters.onnx.operators.signature import Function

Values = dict[str, Any]
"""name -> tensor; or a list of tensors (a sequence); or None (an optional without an element)"""

_FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
)
_SMALL = 64


@dataclass(frozen=True)
class Missing:
    """An operator, or an attribute, a mode or a version of one, that the table lacks."""

    operator: str
    domain: str
    node: str
    reason: str = ""

    def __str__(self) -> str:
        name = f"{self.domain}.{self.operator}" if self.domain else self.operator
        return f"the operator {name} (node {self.node!r}){', ' + self.reason if self.reason else ''}"


class StepFailed(NotSupported):
    """The text already names the operator and the node."""


@dataclass(frozen=True)
class Step:
    """One node."""

    operator: str
    domain: str
    node: str
    function: Function | None
    inputs: tuple[str, ...]
    """an empty name is an input that is left out"""
    outputs: tuple[str, ...]
    host: Mapping[int, list[Any] | None] = field(default_factory=dict)
    """the positions of inputs that the function takes as lists of numbers, with the list where it is constant"""
    bodies: Mapping[str, Block] = field(default_factory=dict)
    reason: str = ""
    """why there is no function"""

    @property
    def needs(self) -> set[str]:
        """The values that must exist before the step, including those that its bodies take from around them."""
        return {name for name in self.inputs if name}.union(*(body.captured for body in self.bodies.values()))

    def lacking(self, reason: str) -> Missing:
        return Missing(self.operator, self.domain, self.node, reason)

    @property
    def missing(self) -> list[Missing]:
        own = [] if self.function else [self.lacking(self.reason)]
        return own + [m for body in self.bodies.values() for step in body.steps for m in step.missing]


@dataclass
class Block:
    """A graph, or the body of a node. In the order of the steps every value exists before it is used."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: list[Step]
    constants: Values

    def __post_init__(self) -> None:
        own = {*self.inputs, *self.constants, *(name for step in self.steps for name in step.outputs)}
        needs = {*self.outputs, *(name for step in self.steps for name in step.needs)}
        self.captured = frozenset(needs - own)
        self.schedule = schedule(self.steps, self.outputs)
        self._moved: dict[torch.device, Values] = {}

    def constants_on(self, device: torch.device | None) -> Values:
        """The constants on the device, moved once. Single numbers and small integers stay on the host."""
        if device is None:
            return self.constants
        if device not in self._moved:
            self._moved[device] = {
                name: value.to(device) if isinstance(value, Tensor) and _belongs_there(value) else value
                for name, value in self.constants.items()
            }
        return self._moved[device]


def _belongs_there(x: Tensor) -> bool:
    return x.ndim > 0 and (x.is_floating_point() or x.numel() > _SMALL)


Schedule = list[tuple[Step, tuple[str, ...]]]
"""steps, and the names of values that no later step needs"""


def schedule(steps: Iterable[Step], outputs: Iterable[str]) -> Schedule:
    """The steps that the outputs need."""
    needed, plan = set(outputs), []
    for step in reversed(list(steps)):
        if needed.intersection(step.outputs):
            last = step.needs - needed
            unused = {name for name in step.outputs if name not in needed}
            needed |= last
            plan.append((step, tuple(last | unused)))
    return plan[::-1]


def run(plan: Schedule, values: Values, device: torch.device | None) -> None:
    """Run the steps. ``values`` starts with what they need, and ends with the outputs."""
    for step, unneeded in plan:
        values.update(zip(step.outputs, call(step, values, device), strict=False))
        for name in unneeded:
            del values[name]


def run_block(block: Block, around: Mapping[str, Any], device: torch.device | None, *arguments: Any) -> list[Any]:
    """The outputs of a body."""
    values = {name: around[name] for name in block.captured}
    values.update(block.constants_on(device))
    values.update(zip(block.inputs, arguments, strict=True))
    run(block.schedule, values, device)
    return [values[name] for name in block.outputs]


def call(step: Step, values: Mapping[str, Any], device: torch.device | None) -> Sequence[Any]:
    """The outputs of one step. Raises ``NotSupported`` that names operator and node."""
    if step.function is None:
        raise StepFailed(str(step.lacking(step.reason)))
    arguments: list[Any] = [values[name] if name else None for name in step.inputs]
    for position, numbers in step.host.items():
        argument = arguments[position]
        if isinstance(argument, Tensor):
            if argument.requires_grad:  # as a number it would lose its gradient in silence
                raise StepFailed(str(step.lacking("with numbers that depend on the input")))
            arguments[position] = argument.flatten().tolist() if numbers is None else numbers
    if device is not None and not step.bodies:
        arguments = _together(arguments, device)
    bodies = {name: partial(run_block, body, values, device) for name, body in step.bodies.items()}
    try:
        result = step.function(*arguments, **bodies)
    except (StepFailed, torch.OutOfMemoryError):
        raise
    except NotSupported as exc:
        raise StepFailed(str(step.lacking(str(exc)))) from exc
    except _FAILURES as exc:
        reason = first_line(exc)
        raise StepFailed(str(step.lacking(f"which fails: {reason}"))) from exc
    results: Sequence[Any] = result if isinstance(result, tuple) else (result,)
    if len(results) < len(step.outputs):
        raise StepFailed(str(step.lacking(f"which has {len(step.outputs)} outputs where {len(results)} are known")))
    return results


def _together(arguments: list[Any], device: torch.device) -> list[Any]:
    """All tensors on the device where one of them is, except single numbers, which torch takes from anywhere.

    Where all are on the host, this is arithmetic with shapes, and stays there: fetching a number would make the device
    wait.
    """
    if len({x.device for x in arguments if isinstance(x, Tensor)}) < 2:
        return arguments
    return [x.to(device) if isinstance(x, Tensor) and x.ndim else x for x in arguments]
