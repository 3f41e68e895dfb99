"""Where data lie: the folder of the user's, and the cache."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path | None:
    """``$SPARRING_DATA``, where data sets and weights are looked for first."""
    value = os.environ.get("SPARRING_DATA")
    return Path(value).expanduser().absolute() if value else None


def cache_folder() -> Path:
    """``$SPARRING_CACHE``, by default ``~/.cache/sparring``: downloaded data, decoded pictures and trained models."""
    return Path(os.environ.get("SPARRING_CACHE") or "~/.cache/sparring").expanduser().absolute()
