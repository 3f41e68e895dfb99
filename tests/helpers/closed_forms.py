"""Classifiers whose best answers are known in closed form, in NumPy, and those answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

INFINITY = 1e12


@dataclass
class Linear:
    """logits = weights · (x - 1/2) + bias; weights (classes, C, H, W), bias (classes,)."""

    weights: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        self.classes, self.input_shape = len(self.weights), self.weights.shape[1:]

    def logits(self, x: np.ndarray) -> np.ndarray:
        return (np.tensordot(x.astype(float) - 0.5, self.weights, ([1, 2, 3], [1, 2, 3])) + self.bias).astype(
            np.float32
        )

    def vjp(self, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        return np.tensordot(cotangent.astype(float), self.weights, 1).astype(np.float32)


@dataclass
class Quadratic:
    """Two classes: logits 0 and slope (‖x - center‖² - radius²), so that class 0 is a ball around the center."""

    center: np.ndarray
    radius: float
    slope: float = 1.0
    classes: int = 2

    def __post_init__(self) -> None:
        self.input_shape = self.center.shape

    def logits(self, x: np.ndarray) -> np.ndarray:
        squared = ((x.astype(float) - self.center) ** 2).sum(axis=(1, 2, 3))
        return np.stack([np.zeros(len(x)), self.slope * (squared - self.radius**2)], axis=1).astype(np.float32)

    def vjp(self, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        outwards = 2 * self.slope * (x.astype(float) - self.center)
        return (cotangent[:, 1, None, None, None].astype(float) * outwards).astype(np.float32)


def best_in_the_cube(x: np.ndarray, direction: np.ndarray, eps: float) -> np.ndarray:
    """The point of the cube of radius eps around x, in [0, 1], that is furthest in a direction; of one image."""
    return np.where(direction > 0, np.minimum(x + eps, 1), np.where(direction < 0, np.maximum(x - eps, 0), x))


def best_in_the_ball(x: np.ndarray, direction: np.ndarray, eps: float) -> np.ndarray:
    """The same of the Euclidean ball: along the direction, where the box lets it; what that saves goes to the rest."""
    return along(x, direction, lambda delta: np.linalg.norm(delta) - eps)


def nearest_beyond(x: np.ndarray, direction: np.ndarray, distance: float) -> np.ndarray:
    """The nearest point of [0, 1] where direction · (point - x) >= distance, or the furthest corner in the direction."""
    return along(x, direction, lambda delta: (direction * delta).sum() - distance)


def along(x: np.ndarray, direction: np.ndarray, excess: Callable[[np.ndarray], float]) -> np.ndarray:
    """x + t direction, clipped to the box, with the largest t at which nothing is in excess (by bisection).

    Both problems above have their optimum there: Lagrange's conditions say so pixel by pixel.
    """
    low, high = 0.0, INFINITY
    for _ in range(200):
        t = (low + high) / 2
        low, high = (low, t) if excess(np.clip(x + t * direction, 0, 1) - x) > 0 else (t, high)
    return np.clip(x + low * direction, 0, 1)
