"""torchvision's networks from one file to the table, without a network: their weights lie in torch hub's cache."""

import hashlib
import json
import os

import numpy as np
import pytest
import yaml

from sparring.adapters.frameworks.coexistence import guard

guard()

import torch  # noqa: E402
import torchvision  # noqa: E402
from torchvision.transforms import Normalize  # noqa: E402

NOWHERE = "http://127.0.0.1:9"
OFFLINE = {"https_proxy": NOWHERE, "http_proxy": NOWHERE, "no_proxy": ""}
NETS = {
    "squeezenet1_1": ("SqueezeNet1_1_Weights.IMAGENET1K_V1", "squeezenet1_1-b8a52dc0.pth"),
    "mobilenet_v3_small": ("MobileNet_V3_Small_Weights.IMAGENET1K_V1", "mobilenet_v3_small-047dcff4.pth"),
}
SUITE = {
    "name": "published",
    "data": {"name": "imagenet-samples", "samples": 2},
    "models": [
        {"name": name, "architecture": name, "framework": "torch", "weights": enum} for name, (enum, _) in NETS.items()
    ],
    "libraries": ["torchattacks"],
    "attacks": [{"attack": "fgsm", "eps": 0.01}],
}


@pytest.fixture
def hub(tmp_path):
    """Networks of random weights, saved by torch under the names of the published files."""
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    nets = {}
    for name, (_, file) in NETS.items():
        torch.manual_seed(3)
        nets[name] = torchvision.models.get_model(name).eval()
        torch.save(nets[name].state_dict(), place / file)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    return place, nets


@pytest.mark.skipif(
    not os.environ.get("SPARRING_DATA"), reason="SPARRING_DATA is not set: this test reads the real data"
)
def test_the_whole_way_without_a_network(sparring, hub, tmp_path):
    place, nets = hub
    offline = {**OFFLINE, "TORCH_HOME": str(tmp_path / "torch"), "SPARRING_CACHE": str(tmp_path / "cache")}
    done = sparring("run", "suite.yaml", "--out", "out", "--workers", "1", **offline)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    used = manifest["data"]["facts"]
    assert (used["resize"], used["crop"], used["interpolation"]) == (256, 224, "bilinear")  # both weights' own
    assert used["transforms"] == NETS["squeezenet1_1"][0]
    digests = {}
    for cell in (tmp_path / "out" / "cells").iterdir():
        told = json.loads((cell / "result.json").read_text())["cell"]["model"]
        digests[told["weights"]["enum"]] = told["weights"]["sha256"]
        name = next(name for name, (enum, _) in NETS.items() if enum == told["weights"]["enum"])
        with np.load(cell / "images.npz", allow_pickle=False) as stored, torch.no_grad():
            normalise = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            for images, logits in (("x", "logits_clean"), ("x_adv", "logits_adv")):
                theirs = nets[name](normalise(torch.from_numpy(stored[images]))).numpy()
                np.testing.assert_allclose(stored[logits], theirs, atol=1e-4)
    assert digests == {enum: hashlib.sha256((place / file).read_bytes()).hexdigest() for enum, file in NETS.values()}
    assert {name: told["facts"]["weights"]["sha256"] for name, told in manifest["models"].items()} == {
        name: digests[enum] for name, (enum, _) in NETS.items()
    }
