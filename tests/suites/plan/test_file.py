"""The suite file: its shape is a contract, and every mistake in it gets one message that names file, key and choices."""

import json
from pathlib import Path

import pytest

from sparring.adapters.errors import InputError
from sparring.suites.plan.file import Suite, load_suite, studies

CONTRACT = """\
name: my-study
data: {name: digits, split: test, samples: 200}
models:
  - {name: cnn-torch, architecture: cnn, framework: torch, train: {epochs: 3, seed: 0}}
  - {name: cnn-keras, architecture: cnn, framework: keras, train: {epochs: 3, seed: 0}}
  - {name: mine, object: "my_models:build"}
  - {name: theirs, onnx: model.onnx}
  - {name: imagenet, architecture: mobilenet_v2, framework: keras, weights: imagenet-mobilenet}
libraries: [art, foolbox, torchattacks]
attacks:
  - {attack: fgsm, eps: [0.05, 0.1]}
  - {attack: pgd, norm: linf, eps: 0.1, eps_step: 0.01, steps: 20, random_start: false}
  - {attack: deepfool, steps: 50, overshoot: 0.02}
  - {attack: "torchattacks:VNIFGSM", params: {eps: 0.1, alpha: 0.02, steps: 10}}
seeds: [0]
profiles:
  smoke: {data: {samples: 20}}
"""


@pytest.fixture
def suite_file(tmp_path: Path):
    def write(old: str = "", new: str = "") -> Path:
        assert old in CONTRACT, f"the test is stale: {old!r}"
        path = tmp_path / "study.yaml"
        path.write_text(CONTRACT.replace(old, new) if old else CONTRACT)
        return path

    return write


def test_the_contract_of_the_issue_loads(suite_file):
    suite = load_suite(suite_file())
    assert [model.runtime for model in suite.models] == [
        "torch",
        "keras-tensorflow",
        "torch",
        "onnx",
        "keras-tensorflow",
    ]
    assert [asked.eps for asked in suite.attacks[0].requests()] == [0.05, 0.1]
    (pgd,) = suite.attacks[1].requests()
    assert pgd.params == {"eps": 0.1, "steps": 20, "eps_step": 0.01, "random_start": False, "restarts": 1}
    (raw,) = suite.attacks[3].requests()
    assert (raw.raw_library, raw.params) == ("torchattacks", {"eps": 0.1, "alpha": 0.02, "steps": 10})


def test_a_grid_is_the_product_of_its_lists_in_order(suite_file):
    suite = load_suite(suite_file("eps: 0.1, eps_step: 0.01, steps: 20", "eps: [0.1, 8/255], steps: [5, 10]"))
    grid = [(asked.params["eps"], asked.params["steps"]) for asked in suite.attacks[1].requests()]
    assert grid == [(0.1, 5), (0.1, 10), (8 / 255, 5), (8 / 255, 10)]


def test_a_profile_and_then_overrides_replace_keys(suite_file):
    assert load_suite(suite_file(), profile="smoke").data.samples == 20
    overridden = load_suite(
        suite_file(), profile="smoke", overrides=["data.samples=7", "attacks.0.eps=[0.3]", "models.0.train.epochs=9"]
    )
    assert overridden.data.samples == 7
    assert overridden.attacks[0].requests()[0].eps == 0.3
    assert overridden.models[0].train is not None
    assert overridden.models[0].train.epochs == 9
    assert overridden.data.split == "test"


BAD = {
    "misspelt attack": (("attack: fgsm", "attack: fgms"), ["attacks.0", "fgms", "'fgsm'"]),
    "unknown key": (("seeds: [0]", "seedz: [0]"), ["seedz", "'seeds'", "libraries"]),
    "unknown key below": (("samples: 200", "sampels: 200"), ["data.sampels", "'samples'"]),
    "unknown training key": (
        ("train: {epochs: 3, seed: 0}}\n  - {name: cnn-k", "train: {epoch: 3}}\n  - {name: cnn-k"),
        ["models.0.train.epoch", "'epochs'"],
    ),
    "unknown library": (("[art, f", "[arrt, f"), ["libraries", "arrt", "'art'"]),
    "unknown parameter": (("overshoot: 0.02", "overshot: 0.02"), ["attacks.2", "overshot", "'overshoot'"]),
    "unknown norm": (("norm: linf", "norm: l1"), ["attacks.1", "l1", "linf", "l2"]),
    "negative eps": (("[0.05, 0.1]", "-0.1"), ["attacks.0", "eps", "-0.1", "above 0"]),
    "eps on the 0-255 scale": (("[0.05, 0.1]", "8"), ["eps", "8", "0-255", "8/255", "0.03137"]),
    "eps on the 0-255 scale in a grid": (("[0.05, 0.1]", "[0.05, 8]"), ["eps", "0-255"]),
    "eps missing": (("eps: 0.1, eps_step", "eps_step"), ["attacks.1", "eps"]),
    "eps a word": (("[0.05, 0.1]", "much"), ["eps", "much", "a number"]),
    "steps not whole": (("steps: 20", "steps: 2.5"), ["steps", "2.5", "whole"]),
    "no value in a grid": (("[0.05, 0.1]", "[]"), ["eps", "empty"]),
    "two sources": (
        ('object: "my_models:build"', 'object: "my_models:build", onnx: m.onnx'),
        ["models.2", "exactly one"],
    ),
    "no source": ((', object: "my_models:build"', ""), ["models.2", "exactly one"]),
    "same name twice": (("name: cnn-keras", "name: cnn-torch"), ["two models", "cnn-torch"]),
    "unknown framework": (
        ("framework: keras, train", "framework: keraz, train"),
        ["models.1.framework", "keraz", "keras-torch"],
    ),
    "no models": (("models:\n", "models: []\nmodelz:\n"), ["models"]),
    "negative seed": (("seeds: [0]", "seeds: [-1]"), ["seeds"]),
    "zero samples": (("samples: 200", "samples: 0"), ["data.samples", "0"]),
    "raw class unknown": (("torchattacks:VNIFGSM", "torchattacks:VNIFGM"), ["VNIFGM", "'VNIFGSM'"]),
    "raw library unknown": (("torchattacks:VNIFGSM", "torchatacks:VNIFGSM"), ["torchatacks", "'torchattacks'"]),
    "raw parameter unknown": (("alpha: 0.02", "alfa: 0.02"), ["alfa", "'alpha'"]),
    "broken YAML": (("models:\n", "models: ][\n"), ["not valid YAML", "line 3"]),
    "a list at the top": ((CONTRACT, "- 1\n"), ["mapping", "models"]),
    "unknown export": (("onnx: model.onnx", "export: nobody"), ["theirs", "nobody"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_gets_one_message_that_names_file_key_and_choices(name, suite_file):
    (old, new), words = BAD[name]
    path = suite_file(old, new)
    with pytest.raises(InputError) as caught:
        load_suite(path)
    message = str(caught.value)
    assert all(line.startswith(str(path)) for line in message.splitlines())
    for word in words:
        assert word in message


def test_an_attack_that_no_chosen_library_has_says_who_has_it(suite_file):
    path = suite_file("attack: deepfool, steps: 50, overshoot: 0.02", "attack: pixle, libraries: [art, foolbox]")
    with pytest.raises(InputError, match=r"attacks\.2: none of art, foolbox has pixle.*torchattacks"):
        load_suite(path)


def test_a_missing_file_and_an_unknown_study():
    with pytest.raises(InputError, match=r"no-such\.yaml: there is no such suite file.*quickstart"):
        load_suite("no-such.yaml")
    with pytest.raises(InputError, match=r"unknown suite 'quikstart'\. Did you mean 'quickstart'"):
        load_suite("quikstart")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.samples", ["path=value"]),
        ("attacks.9.eps=1", ["attacks", "0 to 3"]),
        ("name.x=1", ["name", "my-study"]),
        ("data.sampels=1", ["sampels", "'samples'"]),
        ("data.samples=[", ["not valid YAML"]),
    ],
)
def test_a_wrong_override_says_what_is_there(override, words, suite_file):
    with pytest.raises(InputError) as caught:
        load_suite(suite_file(), overrides=[override])
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_profile_names_the_files_own(suite_file):
    with pytest.raises(InputError, match=r"unknown profile 'paper'\..*Valid: smoke"):
        load_suite(suite_file(), profile="paper")


def test_yaml_never_builds_python_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch " + str(tmp_path / "owned") + "']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load_suite(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", studies())
def test_every_study_that_ships_is_valid_in_every_profile(name):
    suite = load_suite(name)
    assert suite.description
    for profile in suite.profiles:
        load_suite(name, profile=profile)


def test_the_schema_knows_the_parameters_of_the_attacks():
    schema = Suite.model_json_schema()
    json.dumps(schema)
    attack = schema["$defs"]["AttackSpec"]
    assert {"attack", "eps", "overshoot", "queries"} <= set(attack["properties"])
    assert schema["additionalProperties"] is False
