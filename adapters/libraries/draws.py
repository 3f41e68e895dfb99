"""Random numbers and shapes of search attacks that reconciliations hand to the libraries."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.library import Call

Array = npt.NDArray[np.float64]


@dataclass
class SquareDraws:
    """The random numbers of the referee's square attack for an image, in whatever order a library asks for them.

    The referee draws the signs of a window before its place (linf), or before the coin that turns its shape (l2).
    Libraries draw them afterwards. So the signs are drawn ahead, together with the first of the two.
    """

    seed: int
    norm: str
    channels: int
    image: int = -1
    restart: int = -1
    signs_ahead: Array | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def next_image(self) -> None:
        """Goes to the next image, or to the next batch for a library that takes all images at once."""
        self.image, self.restart = self.image + 1, -1

    def next_restart(self) -> None:
        """Goes to the next start, which has its own generator."""
        self.restart += 1
        self.rng, self.signs_ahead = np.random.default_rng([self.seed, self.restart, self.image]), None

    def stripes(self, width: int) -> Array:
        """±1 for every channel of every column, (C, 1, width)."""
        return self.rng.choice([-1.0, 1.0], (self.channels, 1, width))

    def place(self, low: int, high: int) -> int:
        """A row or a column of [low, high)."""
        if self.norm == "linf":
            self._draw_ahead()
        return int(self.rng.integers(low, high))

    def coin(self) -> float:
        """A number of [0, 1)."""
        self._draw_ahead()
        return float(self.rng.random())

    def signs(self) -> Array:
        """±1 for every channel, (C, 1, 1)."""
        self._draw_ahead()
        signs, self.signs_ahead = self.signs_ahead, None
        assert signs is not None
        return signs

    def _draw_ahead(self) -> None:
        if self.signs_ahead is None:
            self.signs_ahead = self.rng.choice([-1.0, 1.0], (self.channels, 1, 1))


def square_draws(call: Call) -> SquareDraws:
    """The draws of one batch."""
    assert call.context is not None, "only canonical attacks are reconciled"
    assert call.canonical is not None
    return SquareDraws(call.context.seed, call.canonical.norm, call.context.input_shape[0])


def square_bumps(h: int) -> Array:
    """Square Attack, equation 2: two bumps of opposite sign, one above the other, of length 1 together, (h, h)."""
    return _unit(np.vstack([_bump(h // 2, h), -_bump(h - h // 2, h)]))


def _bump(height: int, width: int) -> Array:
    row, column = np.indices((height, width))
    ring = np.maximum(abs(row - height // 2), abs(column - width // 2))
    weights = 1 / np.arange(1, width // 2 + 2) ** 2
    return np.array([weights[first:].sum() for first in ring.ravel()]).reshape(height, width)


def _unit(v: Array) -> Array:
    unit: Array = v / np.sqrt((v**2).sum())
    return unit


@dataclass
class Noise:
    """HopSkipJump's probes: every image has its own generator, in every library."""

    seed: int
    norm: str
    first: int = 0
    """the number of the first of the current images"""
    current: int = 0
    """how many images are current: a library takes one image at a time, or a batch"""
    generators: dict[int, np.random.Generator] = field(default_factory=dict)

    def begin(self, n: int) -> None:
        """Goes to the next n images."""
        self.first, self.current = self.first + self.current, n

    def probes(self, shape: tuple[int, ...], image: int = 0) -> Array:
        """Directions of any length for one of the current images: normal, or uniform in the cube (linf)."""
        number = self.first + image
        rng = self.generators.setdefault(number, np.random.default_rng([self.seed, number]))
        return rng.uniform(-1, 1, shape) if self.norm == "linf" else rng.standard_normal(shape)


def noise(call: Call) -> Noise:
    """The probes of one batch."""
    assert call.context is not None, "only canonical attacks are reconciled"
    assert call.canonical is not None
    return Noise(call.context.seed, call.canonical.norm)
