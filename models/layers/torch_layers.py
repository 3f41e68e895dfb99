"""The layers of a torch module: of each of torch's own modules the output, and every function called between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.layers.layer import Layer, from_framework

guard()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

_NO_STEPS = {"__get__", "size", "dim", "numel", "type", "to", "contiguous", "detach", "clone", "cpu", "float"}
"""Calls that compute nothing."""


def record(network: nn.Module, x: np.ndarray, *, first: int) -> list[Layer]:
    """The steps of one pass in evaluation mode; ``x`` is what the module takes, and ``first`` the first's position."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    recorder = _Recorder(len(x), first)
    with ExitStack() as stack, torch.no_grad():
        network.eval()
        for name, module in network.named_modules():
            stack.callback(module.register_forward_pre_hook(recorder.entering(name)).remove)
            stack.callback(module.register_forward_hook(recorder.leaving).remove)
        stack.callback(_slow_transformers())
        images = torch.tensor(x, device=device)
        recorder.know(images, first - 1)
        with recorder:
            network(images)
    return recorder.found


class _Recorder(TorchFunctionMode):
    """Hears every call of a torch function; inside torch's own modules it waits for what the module gives."""

    def __init__(self, n: int, first: int) -> None:
        super().__init__()
        self.found: list[Layer] = []
        self._n, self._first = n, first
        self._position: dict[int, int] = {}  # of a tensor, by its id
        self._kept: list[Tensor] = []  # an id is a tensor's own as long as it lives
        self._inside: list[tuple[str, nn.Module]] = []
        self._last = ""

    def know(self, tensor: Tensor, position: int) -> None:
        self._position[id(tensor)] = position
        self._kept.append(tensor)

    def entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self._inside.append((name, module))

        return hook

    def leaving(self, module: nn.Module, args: Any, output: Any) -> None:
        name, _ = self._inside.pop()
        if _is_whole(module) and not any(_is_whole(outer) for _, outer in self._inside):
            self._add(name, type(module).__name__, output, args, _facts(module, args))
            self._last = name

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "function").strip("_")
        if f"__{name}__" not in _NO_STEPS and name not in _NO_STEPS and not any(_is_whole(m) for _, m in self._inside):
            path = self._inside[-1][0] if self._inside else ""
            after = f"{name} after {self._last}" if self._last else name
            self._add(f"{path}.{name}" if path else after, name, output, args, {})
        return output

    def _add(self, name: str, kind: str, output: Any, args: Any, facts: Mapping[str, Any]) -> None:
        tensor = next(_tensors(output), None)
        if tensor is None or not tensor.is_floating_point():
            return
        values = from_framework(tensor.detach().float().cpu().numpy().copy(), self._n)
        if values is None or self._unchanged(tensor, values):
            return
        known = [self._position[id(t)] for t in _tensors(args) if id(t) in self._position]
        taken = {layer.name for layer in self.found}
        names = (name if i == 0 else f"{name} ({i + 1})" for i in range(len(taken) + 1))
        position = self._first + len(self.found)
        self.found.append(
            Layer(next(n for n in names if n not in taken), kind, values, tuple(known) or (position - 1,), facts)
        )
        self.know(tensor, position)

    def _unchanged(self, tensor: Tensor, values: np.ndarray) -> bool:
        """Whether it is a tensor that was seen, as it was: what works in place gives the same one back, changed."""
        position = self._position.get(id(tensor))
        if position is None:
            return False
        return position < self._first or np.array_equal(self.found[position - self._first].values, values)


def _is_whole(module: nn.Module) -> bool:
    """Whether a module is one step: torch's own without parts; of a user's the functions are looked at."""
    own = type(module).__module__.startswith("torch.nn.") or type(module).__module__.startswith("torch.ao.")
    return own and (next(module.children(), None) is None or isinstance(module, nn.MultiheadAttention))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _slow_transformers() -> Any:
    """In evaluation mode torch's transformers take a path of one function, in which nothing can be seen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(before)


# --- parameters -----------------------------------------------------------------------------------------------------


def _facts(module: nn.Module, args: Any) -> dict[str, Any]:
    if isinstance(module, nn.Conv2d):
        return {
            "weight": _array(module.weight),
            "bias": _bias(module),
            "stride": tuple(module.stride),
            "dilation": tuple(module.dilation),
            "padding": _padding(module),
            "groups": module.groups,
        }
    if isinstance(module, nn.Linear):
        return {"weight": _array(module.weight), "bias": _bias(module)}
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_var is not None:
        channels = module.num_features
        return {
            "scale": _array(module.weight) if module.affine else np.ones(channels, np.float32),
            "offset": _array(module.bias) if module.affine else np.zeros(channels, np.float32),
            "mean": _array(module.running_mean),
            "variance": _array(module.running_var),
            "epsilon": module.eps,
        }
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)):
        return {"epsilon": module.eps}
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        padding = _pair(module.padding)
        found = {
            "pool": "max" if isinstance(module, nn.MaxPool2d) else "average",
            "window": _pair(module.kernel_size),
            "stride": _pair(module.stride),
            "padding": padding + padding,
        }
        return found if isinstance(module, nn.MaxPool2d) else {**found, "counts_padding": module.count_include_pad}
    if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)) and module.num_layers == 1 and not module.bidirectional:
        gates = {"LSTM": 4, "GRU": 3}.get(type(module).__name__, 1)
        kernel, recurrent = _array(module.weight_ih_l0), _array(module.weight_hh_l0)
        recurrence: dict[str, Any] = {
            "kernel": kernel.reshape(gates, module.hidden_size, -1),
            "recurrent": recurrent.reshape(gates, module.hidden_size, -1),
            "activation": module.nonlinearity if gates == 1 else "tanh",
        }
        return {**recurrence, "reset_after": True} if gates == 3 else recurrence
    return {}


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    if module.padding == "valid":
        return (0, 0, 0, 0)
    if module.padding == "same":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return (*(total // 2 for total in totals), *(total - total // 2 for total in totals))
    sides = _pair(module.padding)
    return sides + sides


def _pair(value: Any) -> tuple[int, int]:
    one, other = value if isinstance(value, (tuple, list)) else (value, value)
    return int(one), int(other)


def _bias(module: Any) -> np.ndarray:
    return np.zeros(module.weight.shape[0], np.float32) if module.bias is None else _array(module.bias)


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().float().cpu().numpy())
