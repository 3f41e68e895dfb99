"""Before any framework is imported; and which tests are slow."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

# The tests run in as many processes as there are cores. One thread each, here and in every process that they start, so
# that sums are taken in the same order everywhere; and no spinning, which makes small networks thirty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# no time is asserted in a test, for machines are noisy; and CI tries the same examples each time
settings.register_profile("sparring", deadline=None, derandomize=True)
settings.load_profile("sparring")

TESTS = Path(__file__).parent
SLOW = yaml.safe_load((TESTS / "slow.yaml").read_text("utf-8"))


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are taken out
def pytest_collection_modifyitems(items):
    for item in items:
        test = item.nodeid.partition("tests/")[2].partition("[")[0]
        for name in (test, test.partition("::")[0]):
            entry = SLOW.get(name)
            if entry and not any(word in item.nodeid.partition("::")[2] for word in entry.get("but", ())):
                item.add_marker(pytest.mark.slow(entry["reason"]))
                break
