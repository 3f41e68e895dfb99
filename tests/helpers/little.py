"""A suite that runs in seconds, and the command line as a process of its own."""

import sys

SPARRING = [sys.executable, "-c", "from sparring.suites.cli.app import main; main()"]

SUITE = """\
name: little
data: {name: digits, samples: 24}
models:
  - {name: net, architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}}
attacks:
  - {attack: fgsm, eps: [0.1, 0.2]}
  - {attack: square, eps: 0.2, queries: 20, libraries: [art, torchattacks]}
"""
