"""Each case is a process of its own: what is tested is whether it survives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

USE_BOTH = """
import torch, torchvision, tensorflow as tf
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adam([weight], lr=1.0)
weight.sum().backward()
optimizer.step()
print("torch", round(weight.sum().item()), "tensorflow", tf.reduce_sum(tf.ones(3)).numpy().item())
"""
GUARD = "from sparring.adapters.frameworks.coexistence import guard; guard(); guard()\n"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("first", ["tensorflow", "torch"])
def test_both_work_in_either_order_with_the_guard_between(first: str) -> None:
    done = python(f"import {first}\n{GUARD}{USE_BOTH}")
    assert (done.returncode, done.stdout) == (0, "torch 0 tensorflow 3.0\n"), done.stderr[-2000:]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install 'sparring[jax]'")
def test_jax_after_both() -> None:
    """Before both it is wherever Keras runs on it: ``test_keras_jax.py``."""
    code = f"import tensorflow\n{GUARD}{USE_BOTH}import jax\nprint('jax', jax.jit(jax.numpy.sum)(jax.numpy.ones(3)))"
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "torch 0 tensorflow 3.0\njax 3.0\n"), done.stderr[-2000:]


def test_without_the_guard_the_process_dies() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("this torch brings no triton: there is nothing to guard against")
    done = python(f"import tensorflow\n{USE_BOTH}")
    if done.returncode == 0:
        pytest.skip("these versions of TensorFlow and triton get along: the guard could go")
    assert done.returncode < 0  # by which signal differs from machine to machine


def test_without_triton_the_guard_does_nothing() -> None:
    code = f"import sys; sys.modules['triton'] = None\n{GUARD}print([m for m in sys.modules if 'triton' in m])"
    assert python(code).stdout == "['triton']\n"
