"""A cell: one attack of one library on one model and one sample of images; the unit that is run, stored and found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sparring.adapters.wrappers.units import Space
from sparring.models.prepared.model_ref import ModelRef

CELL_VERSION = 2
"""Raised whenever the same cell would give other numbers than before."""

Status = Literal["done", "failed", "timeout", "unsupported"]


@dataclass(frozen=True)
class Cell:
    """Everything that a result depends on, and nothing else. Where it runs (device, workers, paths) is not in it."""

    dataset: str
    data_digest: str
    model: ModelRef
    library: str
    versions: Mapping[str, str]
    """of the library and of the frameworks that it runs on: another release is another cell"""
    route: Literal["native", "bridged"]
    attack: str
    norm: str | None
    params: Mapping[str, Any]
    targeted: bool
    seed: int
    batch_size: int
    start: int
    stop: int
    defense: tuple[str, ...] = ()
    """of the model, in order; what they are exactly is in its digest"""
    attacker: Literal["", "unaware", "aware"] = ""
    """whether the attacker knew of the defenses that stand around the model; empty where there are none"""
    reconcile: tuple[str, ...] = ()
    """the ledger's entries whose difference is taken away"""
    nudge: int = 0
    """the seed by which the images are moved by a rounding of float32; 0: they are not"""
    space: Space = "pixels"
    """in which units the library is handed the images (``adapters/wrappers/units.py``)"""
    temperature: float = 1.0
    """what the attacker divides the logits by"""
    aim: int | None = None
    """the class that every image is to be taken for; None: each image its own"""
    fit_digest: str = ""
    """of the images on which an attack is trained first; empty for one that isn't"""

    def identity(self) -> dict[str, Any]:
        """What the id is made of: plain JSON values."""
        optional: dict[str, Any] = {"reconcile": list(self.reconcile)} if self.reconcile else {}
        optional |= {"nudge": self.nudge} if self.nudge else {}
        optional |= {"attacker": self.attacker} if self.attacker else {}
        optional |= {"space": self.space} if self.space != "pixels" else {}
        optional |= {"temperature": self.temperature} if self.temperature != 1 else {}
        optional |= {"aim": self.aim} if self.aim is not None else {}
        optional |= {"fit": self.fit_digest} if self.fit_digest else {}
        return {
            **optional,
            "cell_version": CELL_VERSION,
            "data": self.data_digest,
            "range": [self.start, self.stop],
            "model": {"framework": self.model.framework, "digest": self.model.digest, **self._published()},
            "defense": list(self.defense),
            "library": self.library,
            "versions": dict(self.versions),
            "route": self.route,
            "attack": self.attack,
            "norm": self.norm,
            "params": dict(self.params),
            "targeted": self.targeted,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

    def _published(self) -> dict[str, Any]:
        """Which of torchvision's weights the model has; empty for any other."""
        known = self.model.facts.get("weights")
        return {"weights": {key: known[key] for key in ("enum", "sha256")}} if known else {}

    @property
    def id(self) -> str:
        """The first 20 hexadecimal digits of the sha256 of the canonical JSON of the identity."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:20]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which ``from_json`` makes the same cell."""
        return {**self.__dict__, "model": self.model.to_json(), "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """The cell that ``to_json`` wrote."""
        tuples = {key: tuple(value.get(key, ())) for key in ("defense", "reconcile")}
        return cls(**{**value, "model": ModelRef.from_json(value["model"]), **tuples})


@dataclass(frozen=True)
class Result:
    """What a cell left: its status with the reason, the cost, and, when done, facts per sample.

    ``arrays`` (only when done): ``x``, ``x_adv`` (float32, (n, C, H, W)), and, each of length n, ``y``, ``target``,
    ``pred_clean``, ``pred_adv`` (int64), ``success`` (bool), ``l0``, ``l1``, ``l2``, ``linf`` (float64); and
    ``logits_clean``, ``logits_adv`` (float32, (n, classes)); ``extra_NAME`` is what else an attack has to show.
    """

    status: Status
    reason: str = ""
    notes: tuple[str, ...] = ()
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """device, the library's own call, ``prediction_seconds`` for all n, ..."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
