from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.adapters.frameworks.coexistence import guard

guard()  # some of these tests import TensorFlow, others torchvision, all in one process

DATA = os.environ.get("SPARRING_DATA")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """An empty cache for the whole session: a network is trained once."""
    before = os.environ.get("SPARRING_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["SPARRING_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SPARRING_CACHE"]
    else:
        os.environ["SPARRING_CACHE"] = before


@pytest.fixture
def real_data() -> Path:
    if not DATA:
        pytest.skip("SPARRING_DATA is not set: this test reads the real data")
    return Path(DATA)


@pytest.fixture
def fresh():
    """Run Python code in a process of its own, on one backend of Keras; its last line of output."""

    def run(code: str, backend: str = "tensorflow", **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "KERAS_BACKEND": backend, **environment},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1]

    return run
