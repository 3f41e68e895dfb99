"""Before any framework is imported."""

import os

from hypothesis import settings

# The tests run in as many processes as there are cores. One thread each, here and in every process that they start, so
# that sums are taken in the same order everywhere; and no spinning, which makes small networks thirty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# no time is asserted in a test, for machines are noisy; and CI tries the same examples each time
settings.register_profile("sparring", deadline=None, derandomize=True)
settings.load_profile("sparring")
