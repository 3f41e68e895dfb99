"""Operators of the domain ai.onnx.ml, which skl2onnx writes for scikit-learn's linear models and scalers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.operators.signature import NoTensor, Table

Transform = Literal["NONE", "SOFTMAX", "LOGISTIC"]


def _rows(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float32)


def _transformed(scores: Tensor, transform: str) -> Tensor:
    if transform == "SOFTMAX":
        return scores.softmax(-1)
    return scores.sigmoid() if transform == "LOGISTIC" else scores


def _vector(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def linear_classifier(
    x: Tensor,
    *,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    multi_class: int = 0,
    post_transform: Transform = "NONE",
    classlabels_ints: list[int] | None = None,
    classlabels_strings: list[str] | None = None,
) -> tuple[Tensor | NoTensor, Tensor]:
    """The label and the scores of each row."""
    x = _rows(x)
    names = classlabels_ints or classlabels_strings or []
    scores = x @ _vector(coefficients, x).reshape(-1, x.shape[-1]).T
    if scores.shape[-1] != len(names):
        raise NotSupported(f"{scores.shape[-1]} rows of coefficients for {len(names)} classes")
    if intercepts:
        scores = scores + _vector(intercepts, x)
    best = scores.argmax(-1)
    strings = NoTensor("elements of type STRING")
    label = torch.tensor(classlabels_ints, device=x.device)[best] if classlabels_ints else strings
    return label, _transformed(scores, post_transform)


def linear_regressor(
    x: Tensor,
    *,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    post_transform: Transform = "NONE",
    targets: int = 1,
) -> Tensor:
    x = _rows(x)
    scores = x @ _vector(coefficients, x).reshape(targets, -1).T
    return _transformed(scores + _vector(intercepts, x) if intercepts else scores, post_transform)


def scaler(x: Tensor, *, offset: list[float], scale: list[float]) -> Tensor:
    x = _rows(x)
    return (x - _vector(offset, x)) * _vector(scale, x)


def normalizer(x: Tensor, *, norm: Literal["MAX", "L1", "L2"] = "MAX") -> Tensor:
    """A row whose norm is zero stays as it is."""
    x = _rows(x)
    if norm == "MAX":
        size = x.amax(-1, keepdim=True)
    else:
        size = torch.linalg.vector_norm(x, 1 if norm == "L1" else 2, -1, keepdim=True)
    return x / torch.where(size == 0, torch.ones_like(size), size)


def imputer(
    x: Tensor,
    *,
    imputed_value_floats: list[float] | None = None,
    imputed_value_int64s: list[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Tensor:
    values = imputed_value_floats if x.is_floating_point() else imputed_value_int64s
    old = replaced_value_float if x.is_floating_point() else replaced_value_int64
    gone = torch.isnan(x) if old != old else x == old
    return torch.where(gone, torch.tensor(values, dtype=x.dtype, device=x.device), x)


def binarizer(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    return (x > threshold).to(x.dtype)


def array_feature_extractor(x: Tensor, indices: Tensor) -> Tensor:
    return (x[None] if x.ndim == 1 else x).index_select(-1, indices.flatten())


def feature_vectorizer(*inputs: Tensor, inputdimensions: list[int] | None = None) -> Tensor:
    return torch.cat([_rows(x).reshape(len(x), -1) for x in inputs], -1)


TABLE: Table = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "Scaler": scaler,
}
