"""Ten times the pictures take no more memory: attacked, stored, read and judged."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np, torch
from sparring.adapters import wrap; from sparring.adapters import arrays as big
from sparring.adapters.attacks.run import attack
from sparring.models.data.datasets import array_digest
from sparring.suites.transfer import judge_cell as judging; from sparring.suites.results import store
from sparring.suites.plan.cell import Result

net = torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 4))
classifier = wrap(net, input_shape=(3, 224, 224), device="cpu")
big.LARGE = 8 << 20

def peak(n):
    x = big.empty_like(np.broadcast_to(np.float32(0), (n, 3, 224, 224)))
    for i in range(n):
        x[i] = np.random.default_rng(i).random((3, 224, 224), dtype=np.float32)
        big.let_go(x)
    array_digest(x)
    done = attack(classifier, x, np.arange(n) % 4, "fgsm", library="torchattacks", eps=0.05, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        store.write(Path(folder), "cell", {}, Result("done", arrays={"x": x, "x_adv": done.images, **done.samples}))
        judging.judge(classifier, Path(folder), "cell", "target", batch_size=8)
        stored = store.read(Path(folder), "cell", images=True).arrays
        assert np.array_equal(stored["x_adv"][-1], done.images[-1])
        assert np.array_equal(judging.read(Path(folder), "cell", "target")["pred_adv"], done.samples["pred_adv"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

print(peak(20), peak(200))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked in its own way")
def test_ten_times_the_pictures_take_no_more_memory():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = map(int, done.stdout.split())
    assert many - few < 60  # MB; each of the two arrays has 120
