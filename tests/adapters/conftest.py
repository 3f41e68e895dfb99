from __future__ import annotations

from sparring.adapters.frameworks.coexistence import guard

guard()  # some of these tests import TensorFlow, others torchvision, all in one process
