"""Parameters of attacks and defenses: each with its type, its valid range and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sparring.adapters.errors import InputError, unknown

Params = dict[str, Any]

REQUIRED: Any = object()

_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a name",
    tuple: "a pair",
    dict: "a mapping",
    list: "a list",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of an attack or a defense: its type, its meaning, its valid range and its default.

    ``default`` may be a function of the other parameters: PGD's step depends on eps and steps. A float may be written
    as a fraction (``8/255``). ``low`` and ``high`` are inclusive, ``above`` is exclusive. A ``tuple`` is a pair of
    whole numbers. A ``dict`` or a ``list`` is not checked further. None is valid where it is the default.
    """

    type: type
    help: str
    default: Any = REQUIRED
    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """The value in the parameter's type. Raises ``InputError`` with the name, the value and what is valid."""
        if value is None and self.default is None:
            return None
        try:
            converted = self._convert(value)
        except (TypeError, ValueError, ZeroDivisionError):
            raise InputError(f"{name}: {value!r} is not {self.described()}") from None
        if self.choices and converted not in self.choices:
            raise InputError(f"{name}: {value!r} is not one of {', '.join(map(repr, self.choices))}")
        numbers = converted if isinstance(converted, tuple) else (converted,)
        for number in numbers:
            if isinstance(number, str | dict | list):
                continue
            if name == "eps" and self.high == 1 and number > 1:
                raise InputError(
                    f"eps: {value!r} looks like the 0-255 scale, but images here are in [0, 1]: "
                    f"write {number:g}/255, which is {number / 255:.4g}"
                )
            too_low = (self.low is not None and number < self.low) or (self.above is not None and number <= self.above)
            if too_low or (self.high is not None and number > self.high):
                raise InputError(f"{name}: {value!r} is not {self.described()}")
        return converted

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            if not isinstance(value, bool):
                raise TypeError
            return value
        if self.type is tuple:
            low, high = value
            return (int(low), int(high))
        if isinstance(value, bool):
            raise TypeError
        if self.type in (dict, list):
            if not isinstance(value, self.type) and not (self.type is list and isinstance(value, tuple)):
                raise TypeError
            return self.type(value)
        if self.type is float:
            return _fraction(value) if isinstance(value, str) and "/" in value else float(value)
        if self.type is int:
            if isinstance(value, float) and not value.is_integer():
                raise TypeError
            return int(value)
        return str(value)

    def described(self) -> str:
        """In words: ``a number above 0 and at most 1``."""
        bounds = [f"at least {self.low:g}"] if self.low is not None else []
        bounds += [f"above {self.above:g}"] if self.above is not None else []
        bounds += [f"at most {self.high:g}"] if self.high is not None else []
        return " ".join([_WORDS[self.type], " and ".join(bounds)]).strip()


def _fraction(text: str) -> float:
    """``8/255``, and ``1.6/255``."""
    above, _, below = text.partition("/")
    return float(Fraction(above.strip()) / Fraction(below.strip()))


def resolved(name: str, parameters: Mapping[str, Parameter], arguments: Mapping[str, Any]) -> Params:
    """Every parameter of ``name`` with its value, given or by default. Raises ``InputError`` for a wrong one."""
    for key in arguments:
        if key not in parameters:
            raise InputError(f"{name}: {unknown('parameter', key, parameters)}")
    values: Params = {}
    for key, parameter in parameters.items():
        if key in arguments:
            try:
                values[key] = parameter.check(key, arguments[key])
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        elif parameter.default is REQUIRED:
            raise InputError(f"{name} needs a value for {key}: {parameter.help}")
        elif not callable(parameter.default):
            values[key] = parameter.default
    for key, parameter in parameters.items():  # defaults that follow from other values come last
        if key not in values:
            values[key] = parameter.default(values)
    return {key: values[key] for key in parameters}
