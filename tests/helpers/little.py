"""A suite that runs in seconds, and the command line as a process of its own."""

import os
import sys
from pathlib import Path

SPARRING = [sys.executable, "-m", "sparring"]

SUITE = """\
name: little
data: {name: digits, samples: 24}
models:
  - {name: net, architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}}
attacks:
  - {attack: fgsm, eps: [0.1, 0.2]}
  - {attack: square, eps: 0.2, queries: 20, libraries: [art, torchattacks]}
"""


def environment(modules: str | Path, **more: str) -> dict[str, str]:
    """The environment of a process in which Python also finds the modules of that folder."""
    path = os.pathsep.join(filter(None, [str(modules), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}
