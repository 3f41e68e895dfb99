"""What a suite may give with an architecture's name: ``cnn(dropout=0.3)``. The networks of a family share it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Of a network that takes none."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a size that is no positive number and for a dropout rate outside [0, 1)."""
        for name, value in vars(self).items():
            for one in value if isinstance(value, tuple) else (value,):
                if name.endswith("dropout") and not 0 <= one < 1:
                    raise ValueError(f"a dropout rate of {one!r} (at least 0 and below 1)")
                if not name.endswith("dropout") and one < 1:
                    raise ValueError(f"a size of {one!r} (at least 1)")


@dataclass(frozen=True)
class Convolutional(Options):
    """Of two convolutions and a dense layer."""

    filters: tuple[int, int] = (32, 64)
    units: int = 128
    """of the dense layer"""
    conv_dropout: float = 0.25
    dropout: float = 0.5
    """after the dense layer"""


@dataclass(frozen=True)
class Dense(Options):
    """Of two dense layers."""

    units: tuple[int, int] = (256, 128)
    dropout: float = 0.25
    """after each layer"""


@dataclass(frozen=True)
class Recurrent(Options):
    """Of a recurrent cell over the rows and a dense layer."""

    units: int = 128
    """of the cell"""
    dense: int = 64
    dropout: float = 0.0
    """between the two"""


CONVOLUTIONAL, DENSE, RECURRENT = Convolutional(), Dense(), Recurrent()
