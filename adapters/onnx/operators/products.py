"""ONNX matrix products and attention."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.adapters.onnx.operators.elementwise import widened
from sparring.adapters.onnx.operators.signature import ElementType, Table, dtype_of


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a = a.T if transA else a
    if alpha == beta == 1 and c is not None and c.ndim == 1 and transB and a.is_floating_point():
        return F.linear(a, b, c)
    product = a @ (b.T if transB else b)
    if not a.is_floating_point():  # alpha and beta of integers are whole
        alpha, beta = int(alpha), int(beta)
    product = product if alpha == 1 else alpha * product
    return product if c is None or beta == 0 else product + (c if beta == 1 else beta * c)


def einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *inputs)


def det(x: Tensor) -> Tensor:
    determinant: Tensor = torch.linalg.det(x)
    return determinant


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    q_num_heads: int = 0,
    qk_matmul_output_mode: Literal[0, 1, 2, 3] = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: ElementType | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    """(batch, heads, length, size) or (batch, length, heads * size); ``lengths`` are those of unpadded keys."""
    flat = q.ndim == 3
    if flat:
        q = torch.unflatten(q, 2, (q_num_heads, -1)).transpose(1, 2)
        k, v = (torch.unflatten(x, 2, (kv_num_heads, -1)).transpose(1, 2) for x in (k, v))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    present = (k, v)
    shared = q.shape[1] // k.shape[1]
    if shared > 1:  # several heads of queries share one of keys and values
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    root = math.sqrt(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (q * root) @ (k * root).transpose(-1, -2)
    capped = softcap * torch.tanh(scores / softcap) if softcap else scores
    before: int | Tensor = 0  # keys that come before the first query
    if past_key is not None:
        before = past_key.shape[2]
    elif lengths is not None:
        before = lengths.reshape(-1, 1, 1, 1).to(q.device) - q.shape[2]
    bias = _open(scores, before, 0 if is_causal else right_window_size, left_window_size, lengths)
    bias = _with_mask(bias, mask, scores)
    masked, closed = capped, None
    if bias is not None:
        masked, closed = capped + bias, (bias == -math.inf).all(-1, keepdim=True)
    exact = masked if softmax_precision is None else masked.to(dtype_of(softmax_precision))
    if closed is None:
        weights = exact.softmax(-1).to(q.dtype)
    else:  # a query without any open key gets zeros: its softmax and its gradient would be NaN
        weights = exact.masked_fill(closed, 0).softmax(-1).masked_fill(closed, 0).to(q.dtype)
    out = weights @ v
    if flat:
        out = out.transpose(1, 2).flatten(2)
    return (out, *present, (scores, capped, masked, weights)[qk_matmul_output_mode])[:outputs]


def _open(scores: Tensor, before: int | Tensor, right: int, left: int, lengths: Tensor | None) -> Tensor | None:
    """0 for the keys that a query may use, from ``left`` behind it to ``right`` ahead (-1: all of them); else -inf."""
    queries, keys = (torch.arange(n, device=scores.device) for n in scores.shape[-2:])
    ahead = keys - (queries[:, None] + before)
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if right >= 0:
        hidden = hidden | (ahead > right)
    if left >= 0:
        hidden = hidden | (-ahead > left)
    if lengths is not None:
        hidden = hidden | (keys >= lengths.reshape(-1, 1, 1, 1).to(scores.device))
    if right < 0 and left < 0 and lengths is None:
        return None
    return torch.zeros_like(hidden, dtype=scores.dtype).masked_fill(hidden, -math.inf)


def _with_mask(bias: Tensor | None, mask: Tensor | None, scores: Tensor) -> Tensor | None:
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    if mask.shape[-1] < scores.shape[-1]:
        mask = F.pad(mask, (0, scores.shape[-1] - mask.shape[-1]), value=-math.inf)
    return mask if bias is None else bias + mask


def rotary_embedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """(batch, heads, length, size) or (batch, length, heads * size). Pairs are neighbors, or the two halves."""
    flat = x.ndim == 3
    heads = torch.unflatten(x, 2, (num_heads, -1)) if flat else x.transpose(1, 2)  # (batch, length, heads, size)
    turned = rotary_embedding_dim or heads.shape[-1]
    rotating, rest = heads[..., :turned], heads[..., turned:]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = (angle[..., None, : turned // 2] for angle in (cos, sin))
    a, b = (rotating[..., 0::2], rotating[..., 1::2]) if interleaved else rotating.chunk(2, -1)
    pair = (a * cos - b * sin, a * sin + b * cos)
    out = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    out = torch.cat([out, rest], -1)
    return out.flatten(2) if flat else out.transpose(1, 2)


TABLE: Table = {
    "Attention": attention,
    "Det": det,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": widened(torch.matmul),
    "RotaryEmbedding": rotary_embedding,
}
