"""Which images of a pool are attacked, and which further ones an attack is trained on: drawn by a seed."""

from __future__ import annotations

import numpy as np

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.protocol import Labels
from sparring.models.data.pool import Indices, Pool, draw_stratified
from sparring.models.spec import DataSpec


def drawn(pool: Pool, spec: DataSpec) -> tuple[Indices, Indices]:
    """Indices of the sample, and of the images to fit on, none of which is in it.

    Both are taken from one permutation, so that the small sample of a profile lies inside the large one. Raises
    ``InputError`` for more images than there are, and for a class to include that has none.
    """
    n = len(pool.labels)
    rng = np.random.default_rng(spec.seed)
    front = np.array([_first_of(pool, name, spec.label) for name in dict.fromkeys(spec.include)], dtype=np.int64)
    if spec.per_group:
        order, samples = _by_group(pool, spec.per_group, spec.label, rng)
    elif spec.samples is None:
        order, samples = np.arange(n), n
    else:
        _check(spec.samples, n, f"data.samples of {spec.label}")
        if spec.samples < len(front):
            raise InputError(f"data.samples of {spec.label}: {spec.samples} images, but `include` names {len(front)}")
        order, samples = _order(pool.labels, spec.samples, spec.stratified, rng), spec.samples
    if len(front):
        order = np.concatenate([front, order[~np.isin(order, front)]])
    fit = spec.fit or 0
    if samples + fit > len(order):
        left = len(order) - samples
        raise InputError(f"data.fit of {spec.label}: {fit} images asked for, but beside the sample there are {left}")
    return order[:samples], order[samples : samples + fit]


def some(labels: Labels, samples: int | None, seed: int, what: str) -> Indices:
    """Indices of so many images, or of all, drawn by the seed. ``InputError``, which begins with ``what``, if fewer."""
    if samples is None:
        return np.arange(len(labels))
    _check(samples, len(labels), what)
    return _order(labels, samples, False, np.random.default_rng(seed))[:samples]


def _check(samples: int, n: int, what: str) -> None:
    if samples > n:
        raise InputError(f"{what}: {samples} images asked for, but there are {n}")


def _order(labels: Labels, samples: int, stratified: bool, rng: np.random.Generator) -> Indices:
    """A permutation of all images, of which the first ``samples`` are the sample."""
    if not stratified:
        return rng.permutation(len(labels))
    chosen = draw_stratified(labels, samples, rng)
    return np.concatenate([chosen, rng.permutation(np.setdiff1d(np.arange(len(labels)), chosen))])


def _by_group(pool: Pool, count: int, name: str, rng: np.random.Generator) -> tuple[Indices, int]:
    """The images of all groups in turn, ``count`` of each, then the others of the groups; and how many those are."""
    if pool.groups is None or not pool.group_names:
        raise InputError(f"data.per_group of {name}: its mapping has no groups")
    each = [rng.permutation(np.flatnonzero(pool.groups == group)) for group in pool.group_names]
    for group, indices in zip(pool.group_names, each, strict=True):
        _check(count, len(indices), f"data.per_group of {name}: the group {group!r}")
    sample = np.stack([indices[:count] for indices in each], axis=1).ravel()
    return np.concatenate([sample, rng.permutation(np.concatenate([indices[count:] for indices in each]))]), len(sample)


def _first_of(pool: Pool, name: str, data: str) -> int:
    """The index of the first image of the class of that name."""
    names = [class_name.casefold() for class_name in pool.class_names]
    if name.casefold() not in names:
        raise InputError(f"data.include: {unknown(f'class of {data}', name, pool.class_names)}")
    indices = np.flatnonzero(pool.labels == names.index(name.casefold()))
    if not len(indices):
        raise InputError(f"data.include: {data} has no image of the class {name!r}")
    return int(indices[0])
