"""ONNX recurrent nodes: RNN, GRU and LSTM, forward, backward and both ways.

A step is (gates of x, state) -> state. One product, before the loop over time, gives the gates of all steps' inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import Table

Direction = Literal["forward", "reverse", "bidirectional"]
Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]

_PLAIN: dict[str, Activation] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
}
_NONE = float("nan")
_BENT: dict[str, tuple[Callable[..., Tensor], float | None, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, _NONE, _NONE),
    "elu": (lambda x, a, b: F.elu(x, a), 1.0, None),
    "hardsigmoid": (lambda x, a, b: F.hardtanh(a * x + b, 0.0, 1.0), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: F.leaky_relu(x, a), 0.01, None),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), _NONE, _NONE),
    "thresholdedrelu": (lambda x, a, b: F.threshold(x, a, 0.0), _NONE, None),
}
"""function of (x, alpha, beta), and their defaults: None where it has no such number, nan without a default"""


def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    outputs: int = 2,
) -> tuple[Tensor, ...]:
    functions = _functions(activations or ["Tanh"] * len(w), activation_alpha, activation_beta, len(w))

    def step_of(i: int) -> Step:
        (f,), back = functions[i], r[i].T
        return lambda gates, state: (f(_clipped(torch.addmm(gates, state[0], back), clip)),)

    return _run(x, w, b, lengths, (h,), step_of, direction, layout, r.shape[-1])[:outputs]


def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    outputs: int = 2,
) -> tuple[Tensor, ...]:
    """Gates update, reset, hidden. The reset gate multiplies the recurrent bias of the hidden gate, too."""
    size = r.shape[-1]
    functions = _functions(activations or ["Sigmoid", "Tanh"] * len(w), activation_alpha, activation_beta, len(w))
    inside = None
    if b is not None and linear_before_reset:
        inside = b[:, 5 * size :]
        b = torch.cat([b[:, : 5 * size], torch.zeros_like(inside)], 1)

    def step_of(i: int) -> Step:
        f, g = functions[i]
        outer_weights, hidden = r[i, : 2 * size].T, r[i, 2 * size :].T
        extra = None if inside is None else inside[i]

        def step(gates: Tensor, state: State) -> State:
            (previous,) = state
            outer, inner = torch.split(gates, [2 * size, size], 1)
            update, reset = f(_clipped(torch.addmm(outer, previous, outer_weights), clip)).chunk(2, 1)
            if linear_before_reset:
                product = previous @ hidden
                own = reset * (product if extra is None else product + extra)
            else:
                own = (reset * previous) @ hidden
            new = g(_clipped(inner + own, clip))
            return ((1 - update) * new + update * previous,)

        return step

    return _run(x, w, b, lengths, (h,), step_of, direction, layout, size)[:outputs]


def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: Direction = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    outputs: int = 3,
) -> tuple[Tensor, ...]:
    """Gates input, output, forget, cell; peepholes input, output, forget."""
    size, kinds = r.shape[-1], activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    functions = _functions(kinds, activation_alpha, activation_beta, len(w))

    def step_of(i: int) -> Step:
        (f, g, hh), back = functions[i], r[i].T
        peep = None if peepholes is None else peepholes[i].chunk(3)

        def step(gates: Tensor, state: State) -> State:
            previous, cell = state
            three, new = torch.split(torch.addmm(gates, previous, back), [3 * size, size], 1)
            if peep is None:
                enter, leave, forget = f(_clipped(three, clip)).chunk(3, 1)
            else:
                enter, leave, forget = three.chunk(3, 1)
                enter, forget = (f(_clipped(v + p * cell, clip)) for v, p in ((enter, peep[0]), (forget, peep[2])))
            cell = (1 - enter if input_forget else forget) * cell + enter * g(_clipped(new, clip))
            if peep is not None:
                leave = f(_clipped(leave + peep[1] * cell, clip))
            return leave * hh(cell), cell

        return step

    return _run(x, w, b, lengths, (h, c), step_of, direction, layout, size)[:outputs]


def _run(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    initial: tuple[Tensor | None, ...],
    step_of: Callable[[int], Step],
    direction: str,
    layout: int,
    size: int,
) -> tuple[Tensor, ...]:
    """All outputs (time, directions, batch, size) and the last states (directions, batch, size), or batch first."""
    if layout:
        x = x.transpose(0, 1)
        initial = tuple(None if s is None else s.transpose(0, 1) for s in initial)
    bias = None if b is None else b[:, : w.shape[1]] + b[:, w.shape[1] :]
    if lengths is not None and bool((lengths == len(x)).all()):
        lengths = None
    alive = None if lengths is None else torch.arange(len(x))[:, None, None] < lengths.cpu()[:, None]
    rows, ends = [], []
    for i in range(len(w)):
        backwards = direction == "reverse" or i == 1
        start = tuple(x.new_zeros((x.shape[1], size)) if s is None else s[i] for s in initial)
        gates = F.linear(x, w[i], None if bias is None else bias[i])
        every, last = _over_time(gates, start, step_of(i), backwards, None if alive is None else alive.to(x.device))
        rows.append(every)
        ends.append(last)
    outputs = torch.stack(rows, 1)
    states = [torch.stack(parts) for parts in zip(*ends, strict=True)]
    if layout:
        return outputs.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in states)
    return outputs, *states


def _over_time(gates: Tensor, state: State, step: Step, backwards: bool, alive: Tensor | None) -> tuple[Tensor, State]:
    """Beyond the length of a row its state stays and its outputs are zero. Backwards the end of a row comes first."""
    outputs: list[Tensor] = []
    every = gates.unbind()  # one gradient for all steps; gates[t] would have a large one each
    for t in range(len(gates))[:: -1 if backwards else 1]:
        new = step(every[t], state)
        if alive is None:
            outputs.append(new[0])
        else:
            outputs.append(torch.where(alive[t], new[0], 0.0))
            new = tuple(torch.where(alive[t], a, b) for a, b in zip(new, state, strict=True))
        state = new
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _clipped(x: Tensor, bound: float | None) -> Tensor:
    return x.clamp(-bound, bound) if bound else x


def _functions(
    names: list[str], alphas: list[float] | None, betas: list[float] | None, directions: int
) -> list[tuple[Activation, ...]]:
    """The activations of each direction. Only those with an alpha take one from the list; so with beta."""
    next_alpha, next_beta, functions = iter(alphas or []), iter(betas or []), []
    for name in map(str.lower, names):
        if name in _PLAIN:
            functions.append(_PLAIN[name])
        elif name in _BENT:
            functions.append(_bent(*_BENT[name], next_alpha, next_beta))
        else:
            raise NotSupported(f"the activation {name!r}")
    count = len(functions) // directions
    return [tuple(functions[i * count : (i + 1) * count]) for i in range(directions)]


def _bent(f: Callable[..., Tensor], a: float | None, b: float | None, alphas: object, betas: object) -> Activation:
    alpha = None if a is None else next(alphas, a)  # type: ignore[call-overload]
    beta = None if b is None else next(betas, b)  # type: ignore[call-overload]
    if alpha != alpha or beta != beta:
        raise NotSupported(
            "an activation without its alpha or beta, for which ONNX and ONNX Runtime take different ones"
        )
    return lambda x: f(x, alpha, beta)


TABLE: Table = {
    "GRU": gru,
    "LSTM": lstm,
    "RNN": rnn,
}
