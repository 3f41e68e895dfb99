"""A member in another process: what it computes is what it computes here, and its errors come back as errors."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from sparring.adapters.errors import InputError
from sparring.adapters.process import ProcessDied, ProcessLost
from sparring.adapters.protocol import Differentiable
from sparring.models.model_spec import model_spec
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import prepare
from sparring.models.prepared.remote import open_remotely
from sparring.models.spec import DataSpec

DIGITS = DataSpec(name="digits", samples=20)


def prepared(**spec) -> ModelRef:
    return prepare(model_spec({"name": "m", **spec}), data=DIGITS, base=Path())


@pytest.fixture(scope="module")
def far():
    ref = prepared(architecture="dnn", framework="torch")
    return ref, open_remotely(ref.to_json(), keras_backend="tensorflow", device="cpu")


def test_the_numbers_are_those_of_this_process(far) -> None:
    ref, remote = far
    here = open_model(ref, device="cpu")
    x = np.random.default_rng(0).random((7, 1, 8, 8), np.float32)
    cotangent = np.random.default_rng(1).normal(size=(7, 10)).astype(np.float32)
    assert isinstance(remote, Differentiable)
    np.testing.assert_array_equal(remote.logits(x), here.logits(x))
    np.testing.assert_array_equal(remote.vjp(x, cotangent), here.vjp(x, cotangent))
    assert remote.logits(x[:0]).shape == (0, 10)
    assert (remote.input_shape, remote.classes, remote.framework) == (here.input_shape, here.classes, "torch")


def test_bad_images_are_bad_here_already(far) -> None:
    with pytest.raises(InputError, match=r"images must have shape \(N, 1, 8, 8\)"):
        far[1].logits(np.zeros((1, 3, 8, 8), np.float32))


def test_a_model_that_is_gone_is_bad_input(far, tmp_path) -> None:
    gone = {**far[0].to_json(), "artifact": str(tmp_path / "gone.safetensors")}
    with pytest.raises(InputError, match=r"gone\.safetensors is gone"):
        open_remotely(gone, keras_backend="tensorflow", device="cpu")


@pytest.mark.parametrize(
    ("sign", "kind"), [(signal.SIGSEGV, ProcessDied), (signal.SIGKILL, ProcessLost), (signal.SIGTERM, ProcessLost)]
)
def test_a_process_that_died_is_an_error_and_no_hang(sign, kind) -> None:
    """A crash is the member's failure; being ended from outside is nobody's, and no library may swallow it."""
    assert not issubclass(ProcessLost, Exception)
    remote = open_remotely(
        prepared(architecture="dnn", framework="torch").to_json(), keras_backend="tensorflow", device="cpu"
    )
    os.kill(remote._process.pid, sign)
    with pytest.raises(kind, match=rf"the process of an ensemble's member .*\({sign.name}\)"):
        remote.logits(np.zeros((1, 1, 8, 8), np.float32))


def test_an_ensemble_of_two_keras_backends(fresh) -> None:
    """Keras has one backend a process: the second member answers from another."""
    code = """
from pathlib import Path
import numpy as np
from sparring.adapters.conformance.classifiers import checks_for
from sparring.models.prepared.prepare import prepare
from sparring.models.prepared.open import open_model
from sparring.models.model_spec import model_spec
from sparring.models.spec import DataSpec
data = DataSpec(name="digits", samples=20)
import os, subprocess, sys, json
def made(framework):
    there = f'''
import json
from pathlib import Path
from sparring.models.prepared.prepare import prepare
from sparring.models.model_spec import model_spec
from sparring.models.spec import DataSpec
spec = model_spec(name="{framework}", architecture="dnn", framework="{framework}")
print(json.dumps(prepare(spec, data=DataSpec(name="digits", samples=20), base=Path()).to_json()))
'''
    backend = framework.partition("-")[2]
    done = subprocess.run([sys.executable, "-c", there], capture_output=True, text=True,
                          env={**os.environ, "KERAS_BACKEND": backend})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
from sparring.models.prepared.model_ref import ModelRef
refs = {name: ModelRef.from_json(made(name)) for name in ("keras-tensorflow", "keras-torch")}
spec = model_spec(name="both", ensemble=list(refs))
ref = prepare(spec, data=data, base=Path(), others=refs)
assert (ref.framework, ref.frameworks, ref.host) == ("ensemble", ("keras-tensorflow", "keras-torch"), "keras-tensorflow")
model = open_model(ModelRef.from_json(json.loads(json.dumps(ref.to_json()))), device="cpu")
assert [type(member).__name__ for member in model.members] == ["KerasTensorflowClassifier", "RemoteClassifier"]
for check in checks_for(model):
    check(model)
print("passed")
"""
    assert fresh(code, SPARRING_CACHE=os.environ["SPARRING_CACHE"]) == "passed"
