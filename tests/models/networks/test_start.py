"""Training that starts from published weights: here random ones, under the official name in torch hub's cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from sparring.adapters.errors import InputError
from sparring.models import recipes
from sparring.models.model_spec import model_spec
from sparring.models.networks import build as networks
from sparring.models.networks import published
from sparring.models.networks import start as starting
from sparring.models.networks.determinism import seeded
from sparring.models.prepared import prepare as load
from sparring.models.prepared.open import open_network
from sparring.models.spec import DataSpec

NET, ENUM = "shufflenet_v2_x0_5", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
DATA = DataSpec(name="digits", channels=3, size=32, samples=4)
TRAIN = {"epochs": 1, "samples": 16, "batch_size": 8, "lr": 1e-9}


def put(seed):
    """A state of random weights where the published ones would lie."""
    torch.manual_seed(seed)
    state = torchvision.models.get_model(NET, weights=None).state_dict()
    path = published.place(NET, ENUM)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def spec(**train):
    return model_spec(name="net", architecture=NET, framework="torch", train={**TRAIN, **train})


def prepared(model):
    return load.prepare(model, data=DATA, base=Path("."), device="cpu")


def test_all_but_the_last_layer_is_the_files(hub):
    state = put(1)
    with seeded(3, "torch"):
        begun = starting.begun(NET, ENUM, (3, 32, 32), 10).state_dict()
    with seeded(3, "torch"):
        fresh = networks.build(NET, "torch", (3, 32, 32), 10).state_dict()
    assert set(begun) == set(state)
    for key, value in begun.items():
        assert torch.equal(value, (fresh if key.startswith("fc.") else state)[key])
    assert begun["fc.weight"].shape == (10, 1024)


def test_the_training_starts_there(hub):
    state = put(1)
    ref = prepared(spec(start=ENUM))
    made = open_network(ref).state_dict()
    kernels = [key for key, value in state.items() if value.ndim == 4]
    assert all(np.allclose(made[key], state[key], atol=1e-6) for key in kernels)
    path = published.place(NET, ENUM)
    assert ref.facts["start"] == {"enum": ENUM, "sha256": recipes.file_digest(path)}
    from_chance = open_network(prepared(spec())).state_dict()
    assert not any(np.allclose(from_chance[key], state[key], atol=1e-6) for key in kernels)


def test_another_file_is_another_training(hub):
    put(1)
    one = prepared(spec(start=ENUM))
    assert prepared(spec(start=ENUM)) == one
    put(2)
    assert prepared(spec(start=ENUM)).digest != one.digest


def test_where_the_file_is_missing_the_message_says_where_it_goes(hub, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(InputError, match=r"shufflenetv2_x0.5-\w+.pth is not here.*put https://.* at "):
        prepared(spec(start=ENUM))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "cnn", "framework": "torch"}, "cnn has no published weights"),
        (
            {"architecture": "resnet18", "framework": "keras"},
            "train.start: torchvision's weights are for its networks in torch",
        ),
        ({"architecture": "resnet18", "framework": "torch"}, "unknown weights of resnet18 'ShuffleNet"),
    ],
)
def test_weights_that_no_such_network_has(hub, model, message):
    with pytest.raises(InputError, match=message):
        prepared(model_spec(name="net", train={**TRAIN, "start": ENUM}, **model))


def test_weights_without_a_member_are_refused(hub):
    with pytest.raises(InputError, match=r"train.start: 'DEFAULT' means other weights.*IMAGENET1K_V1"):
        prepared(spec(start="DEFAULT"))
