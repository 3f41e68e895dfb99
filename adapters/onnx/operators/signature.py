"""The signature of an ONNX operator's function: it says which inputs, attributes and facts the function takes.

- Positional parameters are the inputs in ONNX's order; an optional one may be None. A parameter annotated ``Ints`` or
  ``Floats`` gets the numbers themselves, on the host, as a flat list (axes, shapes, repeats: torch takes them as Python
  numbers).
- Keyword-only parameters are the attributes under their own names, with ONNX's defaults. One that is annotated
  ``Literal`` takes these values only. Other values, and attributes without a parameter, are refused when the graph is
  read: none is ignored in silence. A subgraph is a function from values to a list of values.
- Three more keyword-only names are facts on the node: ``opset`` (version of the operator's domain), ``outputs`` (their
  number) and ``producer`` (the program that wrote the file).
- It returns a tensor, or a tuple of as many values as it has outputs, and raises ``NotSupported`` for the rest.

Sequences are lists of tensors; an optional without an element is None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard

guard()

import torch  # noqa: E402
from onnx import TensorProto  # noqa: E402

_HOST = "read on the host"
Ints = Annotated[list[int], _HOST]
Floats = Annotated[list[float], _HOST]
ElementType = Literal[1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16]
"""Those of ``dtype_of``: floats of 16 bits and more, integers of 8 bits and more, bool."""
AutoPad = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]

Function = Callable[..., Any]
Table = Mapping[str, Function]
"""operator -> function, of one domain"""

_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}

_FACTS = frozenset({"opset", "outputs", "producer"})


@dataclass(frozen=True)
class NoTensor:
    """Stands for a value for which torch has no tensor, such as strings: nodes that use it fail."""

    reason: str


@dataclass(frozen=True)
class Signature:
    """The parameters of a function of the table."""

    attributes: Mapping[str, tuple[Any, ...]]
    """name -> the only values, or nothing where all are valid"""
    facts: frozenset[str]
    host: frozenset[int]
    """positions of the inputs that are passed as lists"""
    variadic: bool
    inputs: int
    """the most inputs, where not variadic"""


@cache
def signature(function: Function) -> Signature:
    """The signature of a function of the table. Torch's builtins have none that can be read, and take tensors alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except ValueError:
        return Signature({}, frozenset(), frozenset(), variadic=False, inputs=3)
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Signature(
        {name: _choices(hints.get(name)) for name in keywords if name not in _FACTS},
        frozenset(_FACTS.intersection(keywords)),
        frozenset(i for i, name in enumerate(positional) if _on_host(hints.get(name))),
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        len(positional),
    )


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of one that may be None."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((choices for choices in map(_choices, get_args(hint)) if choices), ())


def _on_host(hint: Any) -> bool:
    return _HOST in getattr(hint, "__metadata__", ()) or any(_on_host(part) for part in get_args(hint))


def dtype_of(number: int) -> torch.dtype:
    """The torch dtype of ONNX's element type; ``NotSupported`` for strings, complex numbers, and 2 to 8-bit floats."""
    if number not in _DTYPES:
        names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
        raise NotSupported(f"elements of type {names.get(number, number)}")
    return _DTYPES[number]
