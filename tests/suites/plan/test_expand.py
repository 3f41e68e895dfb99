"""Every data set, every model, every chain of defenses: what a suite becomes before it is run."""

from __future__ import annotations

import pytest

from sparring.adapters.errors import InputError
from sparring.models.defenses.catalogue import undefended, wrappers
from sparring.suites.plan.expand import origin, parts, single
from sparring.suites.plan.file import load_suite
from sparring.suites.plan.profiles import reduced

CNN = {"name": "cnn", "architecture": "cnn", "train": {"epochs": 1, "seed": 5}}
AT = {"defense": "adversarial-training", "attack": "fgsm", "eps": 0.1}
BLUR = {"defense": "gaussian-blur", "sigma": 1.0}


def suite(**keys):
    told = {"name": "s", "data": {"name": "digits"}, "models": [CNN], "attacks": [{"attack": "fgsm", "eps": 0.1}]}
    return load_suite({**told, **keys})


def names(found):
    return [spec.name for spec in found.models]


def test_without_defenses_a_suite_is_what_it_was():
    (part,) = parts(suite())
    assert names(part) == ["cnn"]
    assert part.models == suite().models
    assert part.attacked == part.models


def test_every_model_under_every_chain_and_their_names_lead_back():
    (part,) = parts(suite(defenses=[[], BLUR, {"name": "both", "chain": [AT, BLUR]}]))
    assert names(part) == ["cnn", "cnn [gaussian-blur(sigma=1.0)]", "cnn [both]"]
    assert [origin(spec) for spec in part.models] == ["cnn"] * 3
    assert [spec.defense for spec in part.models] == ["none", "gaussian-blur(sigma=1.0)", "both"]
    assert [[one.defense for one in wrappers(spec.defenses)] for spec in part.models] == [[], *[["gaussian-blur"]] * 2]
    assert [one.defense for one in undefended(part.models[2]).defenses] == ["adversarial-training"]


def test_a_model_may_have_brackets_in_its_own_name():
    (part,) = parts(suite(models=[{**CNN, "name": "cnn [old]"}], defenses=[[], BLUR]))
    assert [origin(spec) for spec in part.models] == ["cnn [old]"] * 2


def test_members_are_trained_from_seeds_of_their_own_and_under_the_training_defenses_alone():
    (part,) = parts(suite(models=[{**CNN, "members": 2}], defenses=[{"name": "both", "chain": [AT, BLUR]}]))
    first, second, whole = part.models
    assert [first.train.seed, second.train.seed] == [5, 6]
    assert [[one.defense for one in spec.defenses] for spec in (first, second)] == [["adversarial-training"]] * 2
    assert whole.ensemble == (first.name, second.name)
    assert [one.defense for one in wrappers(whole.defenses)] == ["gaussian-blur"]
    assert part.attacked == (whole,)


def test_members_with_and_without_a_wrapper_are_the_same():
    (part,) = parts(suite(models=[{**CNN, "members": 2}], defenses=[[], BLUR]))
    assert names(part) == ["cnn/1", "cnn/2", "cnn", "cnn [gaussian-blur(sigma=1.0)]"]
    assert part.models[2].ensemble == part.models[3].ensemble


def test_what_is_made_of_others_is_made_of_the_defended_ones():
    models = [CNN, {"name": "onnx", "export": "cnn"}, {"name": "two", "ensemble": ["cnn", "onnx"]}]
    (part,) = parts(suite(models=models, defenses=[[], {"name": "AT", "chain": [AT]}]))
    by_name = {spec.name: spec for spec in part.models}
    assert by_name["onnx [AT]"].export == "cnn [adversarial-training(attack=fgsm, eps=0.1)]"
    assert by_name["two [AT]"].ensemble[1].startswith("onnx [adversarial")
    order = list(by_name)
    assert all(order.index(source) < order.index(name) for name, spec in by_name.items() for source in spec.sources)
    assert {origin(spec) + "/" + spec.defense for spec in part.attacked} == {
        f"{model}/{defense}" for model in ("cnn", "onnx", "two") for defense in ("none", "AT")
    }


def test_a_chain_may_be_for_some_models_only():
    models = [CNN, {**CNN, "name": "dnn"}]
    (part,) = parts(suite(models=models, defenses=[[], {"chain": [BLUR], "models": ["dnn"]}]))
    assert names(part) == ["cnn", "dnn", "dnn [gaussian-blur(sigma=1.0)]"]


def test_a_chain_may_be_for_some_data_sets_only():
    data = [{"name": "digits"}, {"name": "mnist"}]
    weak, strong = (
        {"name": "blur", "chain": [{**BLUR, "sigma": s}], "data": [d]} for s, d in ((1, "digits"), (2, "mnist"))
    )
    found = parts(suite(data=data, defenses=[weak, strong]))
    assert [[spec.defenses[0].given["sigma"] for spec in part.models] for part in found] == [[1], [2]]
    with pytest.raises(InputError, match=r"defenses.0.data: unknown data set 'mnits'"):
        suite(data=data, defenses=[{**weak, "data": ["mnits"]}])


def test_a_file_can_not_be_trained():
    with pytest.raises(InputError, match=r"adversarial-training.*trains the model, and 'file' has no `train`"):
        parts(suite(models=[{"name": "file", "onnx": "a.onnx"}], defenses=[AT]))


def test_data_sets_are_parts_with_the_attacks_that_are_meant_for_them():
    attacks = [{"attack": "fgsm", "eps": 0.1}, {"attack": "fgsm", "eps": 0.3, "data": ["mnist"]}]
    whole = suite(data=[{"name": "digits"}, {"name": "mnist"}], attacks=attacks)
    digits, mnist = parts(whole)
    assert (len(digits.attacks), len(mnist.attacks)) == (1, 2)
    assert single(whole, "mnist").one_data.name == "mnist"
    with pytest.raises(InputError, match="say which of digits, mnist"):
        single(whole)
    with pytest.raises(InputError, match="several data sets"):
        _ = whole.one_data


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": []}, "data: an empty list"),
        ({"data": [{"name": "digits"}, {"name": "digits"}]}, "two data sets are called 'digits'"),
        ({"data": [{"name": "digits"}, {"name": "mnist"}], "transfer": {}}, "transfer: .*say which: transfer.data"),
        ({"data": [{"name": "digits", "sampels": 3}]}, "data.0.sampels: unknown key"),
        ({"data": {"name": "digits", "sampels": 3}}, "data.sampels: unknown key"),
        ({"defenses": ["gausian-blur"]}, "defenses.0: unknown defense 'gausian-blur'.*gaussian-blur"),
        ({"defenses": [{"defense": "gaussian-blur", "sigma": -1}]}, "defenses.0: .*sigma"),
        ({"defenses": [{"chain": [BLUR], "models": ["cn"]}]}, "defenses.0.models: unknown model 'cn'"),
        ({"attacks": [{"attack": "fgsm", "eps": 0.1, "data": ["mnist"]}]}, "attacks.0.data: unknown data set 'mnist'"),
        ({"attackers": ["blind"]}, "attackers.0"),
        ({"models": [{**CNN, "members": 1}]}, "members"),
        ({"models": [{"name": "a", "onnx": "a.onnx", "members": 2}]}, "`members` needs an `architecture` and `train`"),
        ({"models": [{**CNN, "train": {"keep": "best"}}]}, "`keep: best` needs a `validation` share"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(keys, said):
    with pytest.raises(InputError, match=said):
        suite(**keys)


def test_what_a_profile_makes_smaller_is_told_key_by_key():
    source = {
        "name": "s",
        "data": [{"name": "digits", "samples": 100}],
        "models": [CNN],
        "attacks": [{"attack": "fgsm", "eps": [0.1, 0.2]}, {"attack": "pgd", "eps": 0.1, "steps": 40}],
        "profiles": {
            "paper": {"data": [{"name": "digits"}]},
            "small": {
                "data": [{"name": "digits", "samples": 20}],
                "attacks": [{"attack": "fgsm", "eps": 0.1}, {"attack": "pgd", "eps": 0.1, "steps": 5}],
            },
        },
    }
    told = {
        one["key"]: (one["here"], one["paper"])
        for one in reduced(source, load_suite(source, profile="small"), "small", ())
    }
    assert told == {
        "data.digits.samples": (20, None),
        "attacks.fgsm.eps": (0.1, [0.1, 0.2]),
        "attacks.pgd.steps": (5, 40),
    }
    assert reduced(source, load_suite(source, profile="paper"), "paper", ()) == []
    fewer = {**source, "profiles": {**source["profiles"], "small": {"attacks": source["attacks"][:1]}}}
    told = reduced(fewer, load_suite(fewer, profile="small"), "small", ())
    assert {"key": "attacks", "here": "1 of them", "paper": "2 of them"} in told
