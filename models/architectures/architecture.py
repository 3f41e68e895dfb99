"""A network by name, and the parameters that a name may give: ``cnn(dropout=0.3, units=64)``.

They are the keyword-only parameters of the builder. The whole text is the architecture's name wherever one is asked
for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.parameters import REQUIRED

Builder: TypeAlias = Callable[..., Any]
"""(channels, height, width), classes -> an untrained network that gives logits (N, classes).

A torch module takes float32 (N, C, H, W), a Keras model (N, H, W, C), both in [0, 1]. Keyword-only parameters can be
given with the architecture's name; a default says what type is valid."""


@dataclass(frozen=True)
class Architecture:
    """A network by name. ``builders`` maps ``torch`` and ``keras`` to a builder or its place, ``module:name``."""

    name: str
    description: str
    builders: Mapping[str, Builder | str]
    given: Mapping[str, Any] = field(default_factory=dict)
    """what the name says of the builder's parameters"""

    @property
    def frameworks(self) -> tuple[str, ...]:
        return tuple(self.builders)

    def build(self, framework: str, input_shape: tuple[int, int, int], classes: int) -> Any:
        """A new network of ``torch`` or ``keras``. Raises ``InputError`` if it can't take images of that shape."""
        try:
            return _imported(self.builders[framework])(input_shape, classes, **self.given)
        except (ValueError, TypeError, RuntimeError) as exc:
            shape = " x ".join(map(str, input_shape))
            raise InputError(f"{self.name} can't be built for images of {shape} and {classes} classes: {exc}") from exc

    def parameters(self, framework: str) -> dict[str, Any]:
        """The parameters that can be given with the name, and their defaults (``REQUIRED`` where there is none)."""
        return _parameters(self.builders[framework])


def parse(name: str) -> tuple[str, dict[str, Any]]:
    """``cnn(dropout=0.3)`` as ``cnn`` and its parameters; nothing is evaluated but literals. Raises ``InputError``."""
    match = re.fullmatch(r"([^()]+)\((.*)\)", name.strip(), re.DOTALL)
    if match is None:
        return name, {}
    base, inside = match[1].strip(), match[2]
    try:
        call = ast.parse(f"_({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if len(given) < len(call.keywords):
            raise ValueError
        return base, given
    except (ValueError, SyntaxError) as exc:
        raise InputError(
            f"architecture {name!r}: parameters are written as key=value with numbers, names in quotes, True or False, "
            "or tuples, each once, as in cnn(dropout=0.3, units=64)"
        ) from exc


def written(name: str, **parameters: Any) -> str:
    """The name with these parameters too; one that it gives already is replaced."""
    base, given = parse(name)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in {**given, **parameters}.items()}
    return f"{base}({', '.join(f'{key}={value!r}' for key, value in values.items())})" if values else base


def plausible(*sizes: int, dropout: tuple[float, ...] = ()) -> None:
    """Raise ``ValueError`` for a size that is no positive whole number and for a dropout rate outside [0, 1)."""
    for size in sizes:
        if size < 1:
            raise ValueError(f"a size of {size!r} (at least 1)")
    for rate in dropout:
        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate of {rate!r} (at least 0 and below 1)")


def _imported(builder: Builder | str) -> Builder:
    if callable(builder):
        return builder
    module, _, function = builder.partition(":")
    found: Builder = getattr(importlib.import_module(module), function)
    return found


def _parameters(builder: Builder | str) -> dict[str, Any]:
    if isinstance(builder, str) and (read := _read(*builder.split(":"))) is not None:
        return read
    taken = inspect.signature(_imported(builder)).parameters.values()
    return {
        p.name: REQUIRED if p.default is inspect.Parameter.empty else p.default
        for p in taken
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _read(module: str, function: str) -> dict[str, Any] | None:
    """The keyword-only parameters from the source text: a suite is checked in a process without any framework."""
    place = importlib.util.find_spec(module)
    if place is None or not place.origin or not place.origin.endswith(".py"):
        return None
    for node in ast.parse(Path(place.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function and not node.decorator_list:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            try:
                return {arg.arg: REQUIRED if value is None else ast.literal_eval(value) for arg, value in pairs}
            except ValueError:  # a default that is no literal
                return None
    return None


def checked(name: str, given: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters in the types of their defaults. Raises ``InputError`` for one that the builder lacks."""
    base, _ = parse(name)
    for key in given:
        if key not in parameters:
            valid = "" if parameters else f": {base} takes none"
            raise InputError(f"architecture {name!r}: {unknown('parameter', key, parameters)}{valid}")
    for key, default in parameters.items():
        if default is REQUIRED and key not in given:
            raise InputError(f"architecture {name!r} needs a value for {key}")
    return {key: _as(parameters[key], value, f"architecture {name!r}: {key}") for key, value in given.items()}


def _as(default: Any, value: Any, what: str) -> Any:
    """The value in the type of the default. Raises ``InputError``."""
    if default is REQUIRED or default is None:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, (tuple, list)):
        if len(value) != len(default):
            raise InputError(f"{what}: {value!r} has {len(value)} values, not {len(default)} as {default!r} has")
        return tuple(_as(one, other, what) for one, other in zip(default, value, strict=True))
    if type(value) is not type(default):
        kind = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", tuple: "a tuple"}
        wanted = kind.get(type(default), type(default).__name__)
        raise InputError(f"{what}: {value!r} is not {wanted}, as its default {default!r} is")
    return value
