"""What a run was made of: the suite, digests, seeds, the machine and the release of every package."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models.datasets import Dataset
from sparring.models.ref import ModelRef
from sparring.suites import store
from sparring.suites.plan import Planned
from sparring.suites.suite import Suite


def write(
    folder: Path, suite: Suite, base: Path, data: Dataset, models: dict[str, ModelRef], planned: list[Planned],
    device: str,
) -> None:  # fmt: skip
    """Write ``manifest.json`` into the run folder, replacing an earlier one as a whole."""
    manifest = {
        "sparring": metadata.version("sparring"),
        "suite": suite.model_dump(mode="json", exclude_none=True),
        "home": str(base),
        "data": {"name": data.name, "digest": data.digest, "images": len(data.x)},
        "models": {name: {"digest": ref.digest, "framework": ref.framework} for name, ref in models.items()},
        "seeds": list(suite.seeds),
        "cells": [row.cell.id for row in planned],
        "device": device,
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "gpus": _gpus(),
        },
        "packages": {dist.metadata["Name"]: dist.version for dist in _distributions()},
    }
    store.write_whole(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _distributions() -> list[metadata.Distribution]:
    """Every installed package, by name."""
    return sorted(metadata.distributions(), key=lambda dist: str(dist.metadata["Name"]).lower())


def _gpus() -> list[str]:
    """The names of the NVIDIA GPUs, asked of the driver's own tool; empty without one."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return told.stdout.split("\n")[:-1] if told.returncode == 0 else []


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run. Raises ``InputError`` when there is none, or it can't be read."""
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
