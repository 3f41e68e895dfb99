"""Where data lie: the folder of the user's, and the cache; and how a file is written."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def data_folder() -> Path | None:
    """``$SPARRING_DATA``, where data sets and weights are looked for first."""
    value = os.environ.get("SPARRING_DATA")
    return Path(value).expanduser().absolute() if value else None


def cache_folder() -> Path:
    """``$SPARRING_CACHE``, by default ``~/.cache/sparring``: downloaded data, decoded pictures and trained models."""
    return Path(os.environ.get("SPARRING_CACHE") or "~/.cache/sparring").expanduser().absolute()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file under another name, then rename it: a reader sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a text (as UTF-8) or bytes ``atomically``."""
    encoded = content.encode() if isinstance(content, str) else content
    atomically(path, lambda temporary: temporary.write_bytes(encoded))


TIMEOUT_SECONDS = 15.0


@contextmanager
def short_timeout() -> Iterator[None]:
    """Without a network, torchvision's urllib waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
