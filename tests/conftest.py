"""Before any framework is imported."""

import os

from hypothesis import settings

# libgomp's threads spin while they wait; where other processes want the cores, small networks become thirty times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

settings.register_profile("shared-cores", deadline=None)  # no time is asserted in a test: machines are noisy
settings.load_profile("shared-cores")
