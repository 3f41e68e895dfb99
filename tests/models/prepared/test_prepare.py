from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Differentiable
from sparring.models.data import datasets
from sparring.models.model_spec import ModelSpec, model_spec
from sparring.models.networks import build as networks
from sparring.models.networks import weights
from sparring.models.prepared import prepare as load
from sparring.models.prepared.open import open_network
from sparring.models.spec import DataSpec

BASE = Path(".")
DIGITS = DataSpec(name="digits")
SMALL = {"epochs": 1, "samples": 64}


def spec(**keys) -> ModelSpec:
    return model_spec(**{"name": "net", **keys})


def cnn(framework="torch", **keys) -> ModelSpec:
    return spec(architecture="cnn", framework=framework, **keys)


def prepare(model: ModelSpec, base: Path = BASE, **keys) -> load.ModelRef:
    return load.prepare(model, data=DIGITS, base=base, **keys)


@pytest.fixture(scope="module")
def digits():
    return datasets.load(DIGITS, base=BASE)


def accuracy(classifier, data) -> float:
    return float((classifier.logits(data.x).argmax(1) == data.y).mean())


# --- training, caching, exporting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_three_epochs_make_a_classifier_that_is_exported_unchanged(framework, digits):
    model = cnn(framework, train={"epochs": 3})
    assert load.is_prepared(model, data=DIGITS, base=BASE) is None
    steps = []
    ref = prepare(model, progress=lambda *step: steps.append(step))
    assert steps[-1][:2] == (135, 135)
    classifier = load.open_model(ref)
    assert isinstance(classifier, Differentiable)
    assert accuracy(classifier, digits) > 0.85
    assert (ref.framework, ref.architecture) == ("torch" if framework == "torch" else "keras-tensorflow", "cnn")
    assert (ref.input_shape, ref.classes) == ((1, 8, 8), 10)

    export = spec(export="net")
    assert load.is_prepared(export, data=DIGITS, base=BASE, others={}) is None
    exported = prepare(export, others={"net": ref})
    assert (exported.framework, exported.architecture) == ("onnx", "cnn")
    np.testing.assert_allclose(load.open_model(exported).logits(digits.x), classifier.logits(digits.x), atol=1e-4)
    assert load.is_prepared(export, data=DIGITS, base=BASE, others={"net": ref}) == exported


@pytest.mark.parametrize("name", ["dnn", "rnn"])
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_other_networks_train_and_export(name, framework, digits):
    ref = prepare(spec(architecture=name, framework=framework, train={"epochs": 2}))
    classifier = load.open_model(ref)
    assert accuracy(classifier, digits) > 0.5
    exported = load.open_model(prepare(spec(export="net"), others={"net": ref}))
    np.testing.assert_allclose(exported.logits(digits.x), classifier.logits(digits.x), atol=1e-4)


KERAS_TORCH = """
import sys, numpy as np; from pathlib import Path
sys.path.insert(0, {tests!r}); from test_prepare import *
ref = prepare(cnn("keras-torch", train={{"epochs": 3}}))
data = datasets.load(DIGITS, base=BASE)
classifier = load.open_model(ref)
exported = load.open_model(prepare(spec(export="net"), others={{"net": ref}}))
print(ref.framework, accuracy(classifier, data) > .85, np.abs(classifier.logits(data.x) - exported.logits(data.x)).max() < 1e-4)
"""


def test_keras_on_torch_trains_and_exports(fresh):
    assert fresh(KERAS_TORCH.format(tests=str(Path(__file__).parent)), "torch") == "keras-torch True True"


def test_a_keras_model_of_the_other_backend_is_refused():
    with pytest.raises(InputError, match="KERAS_BACKEND=torch"):
        prepare(cnn("keras-torch", train={"epochs": 1}))


def test_the_export_holds_the_preprocessing(digits):
    for framework in ("torch", "keras"):
        options = {"input_range": (0.0, 255.0), "mean": (33.0,), "std": (78.0,)}
        ref = prepare(cnn(framework, train=SMALL, **options))
        exported = prepare(spec(export="net"), others={"net": ref})
        assert not exported.options
        ours, theirs = (load.open_model(r).logits(digits.x) for r in (ref, exported))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        plain = load.open_model(prepare(cnn(framework, train=SMALL))).logits(digits.x)
        assert abs(ours - plain).max() > 0.01


def test_the_same_training_never_runs_twice():
    model = cnn(train={**SMALL, "seed": 5})
    ref = prepare(model)
    file = Path(ref.artifact)
    stamp = file.stat().st_mtime_ns

    def fail(*step):
        raise AssertionError("trained again")

    assert prepare(model, progress=fail) == ref
    assert load.is_prepared(model, data=DIGITS, base=BASE) == ref
    assert file.stat().st_mtime_ns == stamp
    renamed = load.is_prepared(model.model_copy(update={"name": "other"}), data=DIGITS, base=BASE)
    assert (renamed.name, renamed.digest, renamed.artifact) == ("other", ref.digest, ref.artifact)


@pytest.mark.parametrize(
    "change",
    [
        {"train": {**SMALL, "seed": 6}},
        {"train": {**SMALL, "epochs": 2}},
        {"train": {**SMALL, "samples": 65}},
        {"train": None},
        {"framework": "keras"},
        {"architecture": "dnn"},
        {"input_range": (0.0, 2.0)},
    ],
)
def test_what_changes_the_weights_is_another_training(change):
    model = {"name": "net", "architecture": "cnn", "framework": "torch", "train": {**SMALL, "seed": 5}}
    ref = prepare(model_spec(**model))
    changed = model_spec(**{**model, **change})
    assert load.is_prepared(model_spec(**model), data=DIGITS, base=BASE) == ref
    other = load.is_prepared(changed, data=DIGITS, base=BASE) or prepare(changed)
    assert other.artifact != ref.artifact
    assert other.digest != ref.digest


def test_a_half_written_entry_of_the_cache_is_made_anew():
    model = cnn(train={**SMALL, "seed": 8})
    ref = prepare(model)
    meta = Path(ref.artifact).parent / "ref.json"
    for content in ("", "{}", '{"name": 1}', meta.read_text()[:-20]):
        meta.write_text(content)
        assert load.is_prepared(model, data=DIGITS, base=BASE) is None
    assert prepare(model) == ref
    Path(ref.artifact).unlink()
    assert load.is_prepared(model, data=DIGITS, base=BASE) is None
    with pytest.raises(InputError, match="is gone"):
        load.open_model(ref)
    assert prepare(model).digest == ref.digest
    assert {p.name for p in meta.parent.iterdir()} <= {".lock", "ref.json", "weights.safetensors"}


TRAIN = """
import sys; from pathlib import Path
sys.path.insert(0, {tests!r}); from test_prepare import *
ran = []
ref = prepare(cnn(train={{"epochs": 2, "seed": 9}}), progress=lambda *a: ran.append(a))
print(len(ran), ref.digest)
"""


def test_two_processes_at_once_train_once():
    command = [sys.executable, "-c", TRAIN.format(tests=str(Path(__file__).parent))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    (n, digest), (m, other) = (p.communicate(timeout=900)[0].split() for p in both)
    assert digest == other
    assert sorted(map(int, (n, m))) == [0, 90]


def test_a_killed_training_leaves_nothing_that_is_taken_for_weights():
    model = cnn(train={"epochs": 200, "seed": 10})
    code = TRAIN.format(tests=str(Path(__file__).parent)).replace('"epochs": 2, "seed": 9', '"epochs": 200, "seed": 10')
    code = code.replace("lambda *a: ran.append(a)", "lambda *a: print(a, flush=True)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout.readline()
    process.kill()
    process.wait()
    assert load.is_prepared(model, data=DIGITS, base=BASE) is None


def test_a_ref_survives_json():
    ref = prepare(cnn(train=SMALL, mean=(0.1,), std=(0.3,)))
    again = load.ModelRef.from_json(json.loads(json.dumps(ref.to_json())))
    assert again == ref


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"the cache .*file.* can't be written.*SPARRING_CACHE"):
        prepare(cnn(train=SMALL))


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_device_by_name(digits, framework):
    model = cnn(framework, train={**SMALL, "seed": 12})
    ref = prepare(model, device="cpu")
    assert load.open_model(ref, device="cpu").logits(digits.x[:3]).shape == (3, 10)
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        load.open_model(ref, device="gpu")


def test_an_untrained_architecture_is_the_same_every_time(digits):
    model = spec(architecture="dnn")
    ref = prepare(model)
    assert load.is_prepared(model, data=DIGITS, base=BASE) == ref
    logits = load.open_model(ref).logits(digits.x[:5])
    Path(ref.artifact).unlink()
    again = prepare(model)
    assert again.digest == ref.digest
    np.testing.assert_array_equal(load.open_model(again).logits(digits.x[:5]), logits)


# --- files of weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return prepare(cnn(train=SMALL))


@pytest.fixture
def state(trained):
    import torch
    from safetensors.torch import load_file

    return dict(load_file(trained.artifact)), torch.save


@pytest.mark.parametrize("kind", ["plain.pt", "nested.pth", "parallel.pt", "copy.safetensors"])
def test_a_state_dict_with_its_architecture(tmp_path, trained, state, digits, kind):
    weights_of, save = state
    path = tmp_path / kind
    if kind == "copy.safetensors":
        path.write_bytes(Path(trained.artifact).read_bytes())
    elif kind == "nested.pth":
        save({"epoch": 3, "model_state_dict": weights_of}, path)
    else:
        save({f"module.{k}": v for k, v in weights_of.items()} if kind == "parallel.pt" else weights_of, path)
    model = cnn(weights=kind)
    ref = prepare(model, tmp_path)
    assert ref.artifact == str(path)
    np.testing.assert_array_equal(load.open_model(ref).logits(digits.x), load.open_model(trained).logits(digits.x))
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) == ref
    save({k: v + 1 for k, v in weights_of.items()}, path) if path.suffix != ".safetensors" else path.write_bytes(b"x")
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) is None  # other bytes are another model


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/sparring-was-here"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "conv2.bias"}, "it lacks 'conv2.bias'$"),
        (lambda s: {**s, "head.weight": s["conv1.bias"]}, "it has an unexpected 'head.weight'$"),
        (
            lambda s: {f"net.{k}": v for k, v in s.items()},
            "it lacks 'conv1.weight', .* and 5 more; it has an unexpected 'net",
        ),
        (lambda s: {**s, "logits.bias": s["logits.bias"][:3]}, r"'logits.bias' has shape \(3,\), wanted \(10,\)"),
        (lambda s: [1, 2], "holds no state dict"),
        (lambda s: {"a": 1}, "holds no state dict"),
        (lambda s: {**s, "evil": Evil()}, "would need unpickling"),
    ],
)
def test_a_state_dict_that_does_not_fit(tmp_path, state, change, message):
    weights_of, save = state
    save(change(weights_of), tmp_path / "my.pt")
    with pytest.raises(InputError, match=message) as error:
        prepare(cnn(weights="my.pt"), tmp_path)
    assert str(tmp_path / "my.pt") in str(error.value)
    assert not Path("/tmp/sparring-was-here").exists()


@pytest.mark.parametrize("name", ["my.pt", "my.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps(Evil()), None])
def test_a_damaged_file_of_weights(tmp_path, state, name, content):
    weights_of, save = state
    save(weights_of, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:5000] if content is None else content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        prepare(cnn(weights=name), tmp_path)
    assert not Path("/tmp/sparring-was-here").exists()


@pytest.mark.parametrize("suffix", [".npz", ".weights.h5"])
def test_keras_weights_with_their_architecture(tmp_path, digits, suffix):
    trained = prepare(cnn("keras", train=SMALL))
    network = open_network(trained)
    path = tmp_path / f"my{suffix}"
    weights.save_keras(network, path) if suffix == ".npz" else network.save_weights(path)
    ref = prepare(cnn("keras", weights=path.name), tmp_path)
    np.testing.assert_array_equal(load.open_model(ref).logits(digits.x), load.open_model(trained).logits(digits.x))
    with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
        prepare(spec(architecture="dnn", framework="keras", weights=path.name), tmp_path)


def test_a_second_network_of_a_process_has_the_same_names_of_weights():
    one, two = (networks.build("rnn", "keras-tensorflow", (1, 8, 8), 10) for _ in range(2))
    assert list(weights.keras_arrays(one)) == list(weights.keras_arrays(two))
    assert "logits/kernel" in weights.keras_arrays(two)


def test_a_keras_file(tmp_path, digits):
    import keras

    trained = prepare(cnn("keras", train=SMALL))
    open_network(trained).save(tmp_path / "my.keras")
    model = spec(weights="my.keras")
    ref = prepare(model, tmp_path)
    assert (ref.framework, ref.architecture, ref.classes) == ("keras-tensorflow", "my.keras", 10)
    np.testing.assert_array_equal(load.open_model(ref).logits(digits.x), load.open_model(trained).logits(digits.x))
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) == ref

    with_code = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with_code.save(tmp_path / "code.keras")
    with pytest.raises(InputError, match=r"code\.keras can't be loaded"):
        prepare(spec(weights="code.keras"), tmp_path)
    (tmp_path / "broken.keras").write_bytes((tmp_path / "my.keras").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"broken\.keras can't be loaded"):
        prepare(spec(weights="broken.keras"), tmp_path)


def test_weights_are_looked_for_in_three_places(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError) as error:
        prepare(cnn(weights="mine"), tmp_path)
    for place in (tmp_path / "mine", tmp_path / "data" / "mine", "ResNet50_Weights.IMAGENET1K_V2"):
        assert str(place) in str(error.value)
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("about")
    with pytest.raises(InputError, match="must hold one file of weights; it holds none"):
        prepare(cnn(weights="mine"), tmp_path)
    (folder / "a.safetensors").write_bytes(Path(trained.artifact).read_bytes())
    assert prepare(cnn(weights="mine"), tmp_path).artifact == str(folder / "a.safetensors")
    (folder / "b.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"it holds a\.safetensors, b\.pt"):
        prepare(cnn(weights="mine"), tmp_path)


# --- torchvision's weights ------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (70, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name / "1.png")
    return DataSpec(path=str(tmp_path / "pictures"), crop=64)


def test_published_weights_with_their_own_normalisation(tmp_path, pictures, monkeypatch):
    """The file lies where torch keeps its downloads; what comes out is what torchvision's own recipe gives."""
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    net = torchvision.models.resnet18().eval()
    place = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    torch.save(net.state_dict(), place)
    model = spec(architecture="resnet18", weights="ResNet18_Weights.IMAGENET1K_V1")
    ref = load.prepare(model, data=pictures, base=BASE)
    assert (ref.classes, ref.artifact) == (1000, str(place))
    assert load.is_prepared(model, data=pictures, base=BASE) == ref
    x = datasets.load(pictures, base=BASE).x
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        expected = net(normalise(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(load.open_model(ref).logits(x), expected, atol=1e-5)

    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    assert ref.facts["weights"] == {
        "enum": "ResNet18_Weights.IMAGENET1K_V1",
        "sha256": digest,
        "as_published": False,
    }
    assert ref.facts["transforms"] == {
        "resize": 256,
        "crop": 224,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    exported = load.prepare(spec(export="net"), data=pictures, base=BASE, others={"net": ref})
    assert exported.facts == ref.facts

    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18().state_dict(), place)
    assert load.is_prepared(model, data=pictures, base=BASE) is None
    assert load.prepare(model, data=pictures, base=BASE).digest != ref.digest


@pytest.mark.parametrize("content", ["pickle", "another", "text", "half", "list"])
def test_a_file_that_is_not_what_its_name_says(tmp_path, pictures, monkeypatch, content):
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    place = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"
    place.parent.mkdir(parents=True)
    net = torchvision.models.mobilenet_v3_small()
    why = {
        "pickle": "would need unpickling, which runs code from the file",
        "another": "does not fit the architecture: it lacks",
        "text": "can't be read|would need unpickling",
        "half": "can't be read",
        "list": "holds no state dict .* but a list",
    }[content]
    torch.save(
        {"pickle": {**net.state_dict(), "evil": Evil()}, "another": net.features[1].state_dict(), "list": [1, 2]}.get(
            content, net.state_dict()
        ),
        place,
    )
    whole = place.read_bytes()
    if content in ("text", "half"):
        place.write_bytes(b"<html>not found</html>" if content == "text" else whole[: len(whole) // 2])
    model = spec(architecture="mobilenet_v3_small", weights="MobileNet_V3_Small_Weights.IMAGENET1K_V1")
    with pytest.raises(InputError, match=rf"mobilenet_v3_small-047dcff4\.pth can't be loaded as .*({why})") as error:
        load.prepare(model, data=pictures, base=BASE)
    assert "\n" not in str(error.value)
    assert not Path("/tmp/sparring-was-here").exists()


@pytest.mark.parametrize("weights", ["ResNet50_Weights.DEFAULT", "DEFAULT", "ResNet50_Weights"])
def test_weights_that_another_release_may_take_for_others(pictures, weights):
    model = spec(architecture="resnet50", framework="torch", weights=weights)
    told = rf"'{weights}' means other weights .* ResNet50_Weights\.IMAGENET1K_V1, ResNet50_Weights\.IMAGENET1K_V2$"
    for do in (load.is_prepared, load.prepare):
        with pytest.raises(InputError, match=told):
            do(model, data=pictures, base=BASE)


def test_torchvisions_weights_in_keras(pictures):
    model = spec(architecture="mobilenet_v2", framework="keras", weights="MobileNet_V2_Weights.IMAGENET1K_V1")
    with pytest.raises(InputError, match="are for torch: `convert` moves them to keras-tensorflow"):
        load.is_prepared(model, data=pictures, base=BASE)


@pytest.mark.parametrize(
    ("architecture", "enum", "message"),
    [
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V7", "Did you mean 'ResNet18_Weights.IMAGENET1K_V1'"),
        ("resnet18", "ResNet50_Weights.IMAGENET1K_V1", "unknown weights of resnet18"),
        ("cnn", "ResNet18_Weights.IMAGENET1K_V1", "cnn has no published weights"),
    ],
)
def test_weights_of_another_network(pictures, architecture, enum, message):
    with pytest.raises(InputError, match=message):
        load.prepare(spec(architecture=architecture, framework="torch", weights=enum), data=pictures, base=BASE)


def test_published_weights_without_a_network(fresh, tmp_path, pictures):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_prepare import *
try: load.prepare(spec(architecture="resnet18", weights="ResNet18_Weights.IMAGENET1K_V1"), data=DataSpec(path={pictures.path!r}, crop=64), base=BASE)
except InputError as error: print(error)
"""
    nowhere = "http://127.0.0.1:9"
    said = fresh(code, TORCH_HOME=str(tmp_path), https_proxy=nowhere, http_proxy=nowhere, no_proxy="")
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert said.startswith("weights: resnet18-f37072fd.pth is not here and can't be downloaded")
    assert said.endswith(f"put https://download.pytorch.org/models/resnet18-f37072fd.pth at {place}")


# --- objects and ONNX files -----------------------------------------------------------------------------------------

MINE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

net = build()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        return self.layer(x.flatten(1))

def keras_net():
    import keras
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])

def softmax():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))

def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def flat():
    return nn.Flatten(0)

def fails():
    raise KeyError("no such file")

def number():
    return 3

three = 3
"""


@pytest.fixture
def mine(tmp_path):
    """A module of the user's beside the suite, with a name that no other test has imported."""
    name = f"my_models_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MINE)
    return name


@pytest.mark.parametrize(
    ("attribute", "framework"),
    [("build", "torch"), ("net", "torch"), ("Net", "torch"), ("keras_net", "keras-tensorflow")],
)
def test_an_object_of_the_users(tmp_path, mine, digits, attribute, framework):
    import keras  # noqa: F401

    model = spec(object=f"{mine}:{attribute}")
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) is None
    ref = prepare(model, tmp_path)
    assert (ref.framework, ref.architecture, ref.artifact) == (framework, f"object:{mine}:{attribute}", None)
    assert (ref.input_shape, ref.classes) == ((1, 8, 8), 10)
    assert prepare(model, tmp_path).digest == ref.digest
    assert load.open_model(ref).logits(digits.x).shape == (359, 10)
    assert prepare(model.model_copy(update={"input_range": (0.0, 255.0)}), tmp_path).digest != ref.digest
    assert str(tmp_path) not in sys.path


def test_an_object_with_weights(tmp_path, mine, digits):
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.save(net.state_dict(), tmp_path / "my.pt")
    ref = prepare(spec(object=f"{mine}:build", weights="my.pt"), tmp_path)
    expected = net(torch.from_numpy(digits.x)).detach().numpy()
    np.testing.assert_allclose(load.open_model(ref).logits(digits.x), expected, atol=1e-6)


def test_an_object_in_another_process_is_the_same(tmp_path, mine, fresh):
    ref = prepare(spec(object=f"{mine}:keras_net", framework="keras"), tmp_path)
    code = f"""
import json, keras; from sparring.models.prepared import prepare as load
print(load.open_model(load.ModelRef.from_json(json.loads({json.dumps(ref.to_json())!r}))).classes)
"""
    assert fresh(code) == "10"


def test_an_object_that_is_never_the_same(tmp_path, fresh):
    (tmp_path / "dice.py").write_text(
        "import os, torch\nfrom torch import nn\ntorch.manual_seed(int.from_bytes(os.urandom(4), 'big'))\n"
        "net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    ref = prepare(spec(object="dice:net"), tmp_path)
    code = f"""
import json; from sparring.models.prepared import prepare as load
try: load.open_model(load.ModelRef.from_json(json.loads({json.dumps(ref.to_json())!r})))
except ValueError as error: print(error)
"""
    assert "dice:net is another model in every process" in fresh(code)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("biuld", "unknown name in .* 'biuld'.*Did you mean 'build'"),
        ("fails", "failed when it was called: KeyError: 'no such file'"),
        ("number", "must be a torch module, a Keras model or a function that returns one, not builtins.int"),
        ("three", "must be a torch module, a Keras model or a function that returns one, not builtins.int"),
        ("softmax", "looks like probabilities"),
        ("few", "labels out of range: digits has 10 classes, the model 3"),
        ("flat", r"one row of class scores per image"),
    ],
)
def test_an_object_that_is_no_model(tmp_path, mine, attribute, message):
    with pytest.raises(InputError, match=message) as error:
        prepare(spec(object=f"{mine}:{attribute}"), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:build", "'no_such_module' can't be imported from .*ModuleNotFoundError"),
        ("broken_module:build", "ZeroDivisionError: division by zero"),
        ("module", "must be package.module:name"),
    ],
)
def test_a_module_that_is_none(tmp_path, name, message):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    with pytest.raises(InputError, match=message):
        prepare(spec(object=name), tmp_path)


def test_softmax_is_taken_off_when_it_is_said(tmp_path, mine, digits):
    logits = load.open_model(prepare(spec(object=f"{mine}:softmax", output="probabilities"), tmp_path)).logits(digits.x)
    assert logits.min() < 0


def test_an_onnx_file(tmp_path, digits, trained):
    exported = prepare(spec(export="net"), others={"net": trained})
    (tmp_path / "my.onnx").write_bytes(Path(exported.artifact).read_bytes())
    model = spec(onnx="my.onnx")
    ref = prepare(model, tmp_path)
    assert (ref.framework, ref.architecture, ref.classes) == ("onnx", "my.onnx", 10)
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) == ref
    np.testing.assert_allclose(
        load.open_model(ref).logits(digits.x), load.open_model(trained).logits(digits.x), atol=1e-4
    )
    (tmp_path / "my.onnx").write_bytes(b"no model")
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) is None
    with pytest.raises(InputError, match=r"my\.onnx"):
        prepare(model, tmp_path)


def test_the_digest_of_an_onnx_file_is_also_that_of_its_external_weights(tmp_path, trained):
    import onnx

    exported = prepare(spec(export="net"), others={"net": trained})
    onnx.save(onnx.load(exported.artifact), tmp_path / "big.onnx", save_as_external_data=True, location="big.bin")
    before = prepare(spec(onnx="big.onnx"), tmp_path)
    data = bytearray((tmp_path / "big.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "big.bin").write_bytes(data)
    assert prepare(spec(onnx="big.onnx"), tmp_path).digest != before.digest
    (tmp_path / "big.bin").unlink()
    with pytest.raises(InputError, match=r"big\.bin"):
        prepare(spec(onnx="big.onnx"), tmp_path)


# --- what doesn't go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architecture": "cnnn"}, "Did you mean.*'cnn'"),
        ({"architecture": "resnet34", "framework": "keras"}, "is there for torch"),
        ({"architecture": "cnn", "framework": "onnx"}, "framework: an ONNX model is a file"),
        ({"architecture": "cnn", "output": "probabilities"}, "output: cnn gives logits"),
        ({"architecture": "cnn", "layout": "channels-last"}, "layout: cnn has its own"),
        ({"architecture": "cnn", "weights": "x.keras"}, "leave `architecture`"),
        ({"weights": "x.keras", "framework": "torch"}, "is a Keras model"),
        ({"weights": "x.pt"}, "needs an `architecture`"),
        ({"onnx": "x.onnx", "weights": "x.pt"}, "an ONNX file has its own"),
        ({"onnx": "absent.onnx"}, "there is no file .*absent.onnx"),
        ({"export": "net", "mean": (0.5,)}, "mean: `export` takes it from 'net'"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        load.is_prepared(spec(**keys), data=DIGITS, base=tmp_path)
    with pytest.raises(ValueError, match=message):
        prepare(spec(**keys), tmp_path)


def test_an_export_of_nothing_and_of_an_export(trained):
    with pytest.raises(InputError, match=r"unknown model 'nett'.*Did you mean 'net'"):
        prepare(spec(export="nett"), others={"net": trained})
    exported = prepare(spec(export="net"), others={"net": trained})
    with pytest.raises(InputError, match="'net' is an ONNX model already"):
        prepare(spec(export="other"), others={"other": exported})
