"""The table of ONNX operators: domain -> operator -> function, and the versions that the functions are written for."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from sparring.adapters.onnx.operators import (
    control,
    elementwise,
    indexing,
    ml,
    normalization,
    products,
    recurrent,
    reductions,
    resize,
    shapes,
    windows,
)
from sparring.adapters.onnx.operators.signature import Function, Table

OPERATORS: Mapping[str, Table] = {
    "": {
        **elementwise.TABLE,
        **control.TABLE,
        **indexing.TABLE,
        **normalization.TABLE,
        **windows.TABLE,
        **products.TABLE,
        **recurrent.TABLE,
        **reductions.TABLE,
        **resize.TABLE,
        **shapes.TABLE,
    },
    "ai.onnx.ml": ml.TABLE,
}

_VERSIONS = {"": (7, 28), "ai.onnx.ml": (1, 5)}
"""domain -> the oldest opset, which is ONNX Runtime's, and the newest one that the functions were written for"""


def find(operator: str, domain: str, opset: int) -> tuple[Function | None, str]:
    """The function of an operator, or None and why it doesn't fit this version ("": no such operator in the table)."""
    function = OPERATORS.get(domain, {}).get(operator)
    if function is None:
        return None, ""
    oldest, newest = _VERSIONS[domain]
    try:
        schema = onnx.defs.get_schema(operator, opset, domain)
    except Exception:  # onnx's SchemaError has no stable module
        return None, f"which opset {opset} does not have"
    if schema.deprecated and operator != "GroupNormalization":  # whose first version, deprecated later, is still run
        return None, f"which opset {opset} no longer has"
    if opset < oldest and schema.since_version != onnx.defs.get_schema(operator, oldest, domain).since_version:
        return None, f"as it was in opset {opset}, where {oldest} is the oldest that is known"
    if schema.since_version > newest or opset > max(newest, onnx.defs.onnx_opset_version()):
        return None, f"as it is in opset {opset}, where {newest} is the newest that is known"
    return function, ""
