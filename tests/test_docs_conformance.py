"""docs/conformance.md: its two files are written down as they stand there, and pytest passes on them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from little import environment

from sparring.adapters.conformance import libraries

TEXT = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text("utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block)
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_my_package.py"]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=900)


def test_the_documented_package_passes_every_check(package: Path) -> None:
    done = run(package)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_fault_in_it_fails_the_check_that_it_should(package: Path) -> None:
    mine = package / "my_package.py"
    mine.write_text(mine.read_text().replace("100 * value", "200 * value"))
    done = run(package)
    assert done.returncode == 1
    assert re.findall(r"FAILED \S+\[(\w+)\]", done.stdout) == ["check_budget"]


def test_the_documented_checks_are_those_there_are() -> None:
    told = set(re.findall(r"`(check_\w+)`", TEXT))
    assert told == {check.__name__ for check in libraries.LIBRARY_CHECKS}
