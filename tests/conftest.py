"""Before any framework is imported."""

import os

# libgomp's threads spin while they wait; where other processes want the cores, small networks become thirty times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
