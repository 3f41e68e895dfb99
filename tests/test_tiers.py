"""The table of slow tests names tests that are there, and leaves a case of each file to the default tier."""

import subprocess
import sys
from pathlib import Path

import yaml

TESTS = Path(__file__).parent
SLOW = yaml.safe_load((TESTS / "slow.yaml").read_text("utf-8"))


def names(*words: str) -> list[str]:
    """The tests that pytest would run, by their paths below tests/, with their cases."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-n0", "-qq", "-p", "no:cacheprovider", *words]
    done = subprocess.run([*command, str(TESTS)], capture_output=True, text=True, cwd=TESTS.parent)
    return [line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line]


def test_every_entry_is_about_a_test_that_is_there():
    files = {name.partition("::")[0] for name in SLOW}
    slow = names("-m", "slow", *[str(TESTS / file) for file in sorted(files)])
    for name, entry in SLOW.items():
        assert entry["reason"]
        assert [one for one in slow if one.partition("[")[0] == name or one.startswith(f"{name}::")], name
