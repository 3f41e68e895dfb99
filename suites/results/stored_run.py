"""A run that was opened: its manifest, its rows, and the stored arrays of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sparring.suites.results import manifest, store
from sparring.suites.results.rows import read_results

if TYPE_CHECKING:
    import pandas as pd

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run left in its folder. Functions take this value instead of a path, so that no file is read twice."""

    folder: Path
    manifest: dict[str, Any]
    """the content of ``manifest.json``"""
    frame: pd.DataFrame
    """the content of ``results.parquet``: a row for each cell; an older run lacks some of ``rows.COLUMNS``"""
    _arrays: dict[str, Arrays] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read the rows and the manifest of a run. Raises ``InputError`` where they are missing or damaged."""
        folder = Path(folder)
        frame = read_results(folder)
        return cls(folder, manifest.read(folder), frame)

    def arrays(self, cell_id: str) -> Arrays:
        """A cell's arrays of length n, without its images; an empty mapping where the cell has no result.

        Among them are ``y``, ``pred_clean``, ``pred_adv``, ``success``, the distances and, of a model that has them,
        ``logits_clean`` and ``logits_adv``. Each cell is read once. Raises ``InputError`` for a damaged file.
        """
        if cell_id not in self._arrays:
            result = store.read(self.folder, cell_id)
            self._arrays[cell_id] = {} if result is None else result.arrays
        return self._arrays[cell_id]

    def images(self, cell_id: str) -> Arrays:
        """All arrays of a cell: those of ``arrays``, and its images ``x`` and ``x_adv``.

        Images are float32, (n, C, H, W), in [0, 1]; large arrays are mapped, for reading only.
        """
        result = store.read(self.folder, cell_id, images=True)
        return {} if result is None else result.arrays

    def image(self, cell_id: str, name: str, index: int) -> store.Images:
        """One image, float32, (C, H, W), of ``x`` or ``x_adv``: a cell may hold gigabytes. Raises ``InputError``."""
        return store.read_image(self.folder, cell_id, name, index)
