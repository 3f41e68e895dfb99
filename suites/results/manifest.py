"""The manifest of a run: its suite, digests, seeds, machine, and the release of every package."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models.data import picture_transforms
from sparring.models.data.datasets import Dataset
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.storage import write_whole
from sparring.suites.plan.expand import origin
from sparring.suites.plan.file import Suite
from sparring.suites.plan.plan import Planned


@dataclass(frozen=True)
class Described:
    """The request for a run."""

    profile: str | None
    reduced: list[dict[str, Any]]
    """``key``, ``here`` and ``paper``: the values that are smaller than in the suite's paper profile"""
    command: str
    """the command line that repeats the run"""


def write(
    folder: Path,
    suite: Suite,
    base: Path,
    parts: Sequence[tuple[Suite, Dataset]],
    models: Sequence[dict[str, ModelRef]],
    planned: list[Planned],
    device: str,
    described: Described,
) -> None:
    """Write ``manifest.json`` into the run folder, replacing an earlier one as a whole."""
    data_sets = [
        {
            "name": data.name,
            "digest": data.digest,
            "images": len(data.x),
            "classes": list(data.class_names),
            "facts": dict(data.facts),
        }
        for _, data in parts
    ]
    models_by_part = [
        {name: _model(part, ref, data) for name, ref in refs.items()}
        for (part, data), refs in zip(parts, models, strict=True)
    ]
    several = len(parts) > 1
    manifest = {
        "sparring": metadata.version("sparring"),
        "suite": suite.model_dump(mode="json", exclude_none=True),
        "profile": described.profile,
        "reduced": described.reduced,
        "command": described.command,
        "home": str(base),
        "data": data_sets if several else data_sets[0],
        "models": {
            f"{name} on {data.name}" if several else name: value
            for (_, data), every in zip(parts, models_by_part, strict=True)
            for name, value in every.items()
        },
        "seeds": list(suite.seeds),
        "cells": [row.cell.id for row in planned],
        "device": device,
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "gpus": gpus(),
        },
        "packages": {dist.metadata["Name"]: dist.version for dist in _distributions()},
    }
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _model(part: Suite, ref: ModelRef, data: Dataset) -> dict[str, Any]:
    differs = picture_transforms.differences(data.facts, ref.facts.get("transforms", {}))
    spec = next(spec for spec in part.models if spec.name == ref.name)
    return {
        "digest": ref.digest,
        "framework": ref.framework,
        "architecture": ref.architecture,
        "dataset": data.name,
        "model": origin(spec),
        "defense": spec.defense,
        "attacked": spec in part.attacked,
        "members": [member.name for member in ref.members],
        "facts": {**ref.facts, **({"transforms_differ": differs} if differs else {})},
    }


def _distributions() -> list[metadata.Distribution]:
    """Every installed package, by name."""
    return sorted(metadata.distributions(), key=lambda dist: str(dist.metadata["Name"]).lower())


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs, as ``nvidia-smi`` lists them; empty without one."""
    try:
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return driver.stdout.split("\n")[:-1] if driver.returncode == 0 else []


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder. Raises ``InputError`` where there is none, or it is damaged."""
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no run here (manifest.json is missing)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("suite"), dict):
        raise InputError(f"{path}: not the manifest of a run")
    return content
