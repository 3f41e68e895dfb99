"""A network by name, and the parameters that a name may give: ``cnn(dropout=0.3, units=64)``.

They are the fields of the architecture's options, or the keyword-only parameters of its builder. The whole text is the
architecture's name wherever one is asked for.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.parameters import REQUIRED
from sparring.models.architectures.options import Options

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
    options: type[Options] | None = None
    """what the builder takes as its third argument; None: keyword-only parameters of its own"""
    given: Mapping[str, Any] = field(default_factory=dict)
    """the parameters that the name gives"""

    @property
    def frameworks(self) -> tuple[str, ...]:
        return tuple(self.builders)

    def build(self, framework: str, input_shape: tuple[int, int, int], classes: int) -> Any:
        """A new network of ``torch`` or ``keras``. Raises ``InputError`` if it can't take images of that shape."""
        try:
            build = _imported(self.builders[framework])
            if self.options and self.options is not Options:
                return build(input_shape, classes, self.options(**self.given))
            return build(input_shape, classes, **self.given)
        except (ValueError, TypeError, RuntimeError) as exc:
            shape = " x ".join(map(str, input_shape))
            raise InputError(f"{self.name} can't be built for images of {shape} and {classes} classes: {exc}") from exc

    def parameters(self, framework: str) -> dict[str, Any]:
        """The parameters that can be given with the name, and their defaults (``REQUIRED`` where there is none)."""
        if self.options:
            return {option.name: option.default for option in fields(self.options)}
        taken = inspect.signature(_imported(self.builders[framework])).parameters.values()
        return {
            p.name: REQUIRED if p.default is inspect.Parameter.empty else p.default
            for p in taken
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }


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


def _imported(builder: Builder | str) -> Builder:
    if callable(builder):
        return builder
    module, _, function = builder.partition(":")
    function_object: Builder = getattr(importlib.import_module(module), function)
    return function_object


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
