"""Before any framework is imported; and which tests are slow."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, settings

# The tests run in as many processes as there are cores. One thread each, here and in every process that they start, so
# that sums are taken in the same order everywhere; and no spinning, which makes small networks thirty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# no time is asserted in a test, for machines are noisy; and CI tries the same examples each time
settings.register_profile("sparring", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sparring")

TESTS = Path(__file__).parent
SLOW = yaml.safe_load((TESTS / "slow.yaml").read_text("utf-8"))


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are taken out
def pytest_collection_modifyitems(config, items):
    """Mark what ``slow.yaml`` lists. An entry that is about no test ends the run: it would hide what became of it."""
    marked, files = set(), set()
    for item in items:
        test, _, _ = item.nodeid.partition("tests/")[2].partition("[")
        file, _, case = item.nodeid.partition("tests/")[2].partition("::")
        files.add(file)
        for name in {test, file} & {*SLOW}:
            if not any(word in case for word in SLOW[name].get("but", ())):
                item.add_marker(pytest.mark.slow(SLOW[name]["reason"]))
                marked.add(name)
    whole = not config.option.keyword and not any("::" in word for word in config.args)
    stale = [name for name in SLOW if name not in marked and (whole and name.partition("::")[0] in files)]
    stale += [name for name in SLOW if not (TESTS / name.partition("::")[0]).is_file()]
    if stale:
        raise pytest.UsageError(f"tests/slow.yaml: no such test: {', '.join(stale)}")
