"""One cache of trained models for all tests of this folder, so that a network is trained once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from little import SPARRING, SUITE


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    given = os.environ.get("SPARRING_CACHE")
    os.environ["SPARRING_CACHE"] = given or str(tmp_path_factory.mktemp("cache"))
    yield
    if given is None:
        del os.environ["SPARRING_CACHE"]


@pytest.fixture
def suite_file(tmp_path) -> Path:
    path = tmp_path / "little.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def sparring(tmp_path):
    """Run the command line in a process of its own, in an empty folder."""

    def call(*words, timeout=900, **environment):
        return subprocess.run(
            [*SPARRING, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
        )

    return call


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """A suite file with attacks of the library `helpers/hostile.py`, each of which does its own harm."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    monkeypatch.syspath_prepend(helpers)
    monkeypatch.setenv("PYTHONPATH", helpers, prepend=os.pathsep)
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "mark"))

    def suite(*attacks: str) -> Path:
        path = tmp_path / "hostile.yaml"
        text = SUITE[: SUITE.index("attacks:")] + 'libraries: ["hostile:LIBRARY"]\nattacks:\n'
        for name in attacks:
            text += f"  - {{attack: {name}, {'norm: linf' if name == 'hopskipjump' else 'eps: 0.1'}}}\n"
        path.write_text(text)
        return path

    return suite


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty folder: what it says is the same, and no process is started."""
    from sparring.suites.cli.app import main

    def call(*words, **environment):
        monkeypatch.chdir(tmp_path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["sparring", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, errors = capsys.readouterr()
        return subprocess.CompletedProcess(words, end.value.code or 0, out, errors)

    return call
