"""The published studies that ship: every profile is a whole suite, and every published value has its row."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest

from sparring.suites.plan.expand import origin, parts
from sparring.suites.plan.file import PROFILES, load_suite
from sparring.suites.plan.plan import every_attack
from sparring.suites.plan.profiles import reduced

STUDIES = ("four-attacks-four-defenses", "keras-ensembles-defenses", "adversarial-fine-tuning")
ATTACKS = {"adversarial-fine-tuning": {"fgsm", "jsma"}}
"""What every profile of a study has to run."""


@pytest.mark.parametrize(("study", "profile"), product(STUDIES, PROFILES))
def test_every_profile_has_what_the_study_names(study, profile):
    suite = load_suite(study, profile=profile)
    for part in parts(suite):
        attacked = {(origin(spec), spec.defense) for spec in part.attacked}
        assert (suite.models[0].name, "none") in attacked
        assert any(defense != "none" for _, defense in attacked)
        assert ATTACKS.get(study, {"deepfool"}) <= {attack.attack for attack in part.attacks}
    assert bool(reduced(study, suite, profile, ())) == (profile != "paper")


@pytest.mark.parametrize(("study", "profile"), product(STUDIES, ("small", "paper")))
def test_every_published_value_is_measured(study, profile):
    suite = load_suite(study, profile=profile)
    rows = {
        (part.one_data.label, origin(spec), spec.defense, attack.attack)
        for part in parts(suite)
        for spec in part.attacked
        for attack in part.attacks
        if attack.models is None or origin(spec) in attack.models
    }
    assert suite.published is not None
    for value in suite.published.values:
        data, model = value.data or suite.datasets[0].label, value.model or suite.models[0].name
        wanted, attack = (data, model, value.defense), value.attack.split()[0]  # its label may say eps, too
        assert any(row[:3] == wanted and attack in ("none", row[3]) for row in rows), value


@pytest.mark.parametrize("study", STUDIES)
def test_the_three_libraries_run_the_studys_attacks(study):
    suite = load_suite(study)
    assert suite.libraries == ("art", "foolbox", "torchattacks")
    named = {
        "four-attacks-four-defenses": {"mi-fgsm", "deepfool"},
        "keras-ensembles-defenses": {"fgsm", "bim", "deepfool"},
        "adversarial-fine-tuning": {"fgsm"},
    }
    assert named[study] <= {attack.attack for attack in suite.attacks if attack.libraries is None}


NETWORKS = ("torchattacks-resnet50", "fgsm-patch-distillation")
"""Studies whose networks and pictures can't be had without a network: profiles put others in their place."""


@pytest.mark.parametrize(("study", "profile"), product(NETWORKS, ("small", "paper")))
def test_every_published_value_has_a_row_or_one_in_its_place(study, profile):
    suite = load_suite(study, profile=profile)
    assert suite.published is not None
    instead = suite.published.instead
    rows = {
        (part.one_data.label, row.model.name, row.variant.name, row.label)
        for part in parts(suite)
        for row in planned_of(part)
    }
    for value in suite.published.values:
        data, model = (instead.get(name, name) for name in (value.data, value.model))
        mine = [row for row in rows if row[:2] == (data, model)]
        assert mine, value
        if value.attack != "none":
            assert any(
                value.attack.split()[0] == row[3].split()[0]
                and (row[2] == value.variant or value.variant is None)
                and ("→" not in value.attack or value.attack.split(" size")[0] == row[3])
                for row in mine
            ), value


def planned_of(part):
    """What a part of a suite would run: model, variant and the attack's name with its target."""
    for spec in part.attacked:
        for one in every_attack(part, spec):
            label = f"{one.asked.name} → {one.target}" if one.target is not None else one.asked.name
            yield SimpleNamespace(
                model=SimpleNamespace(name=origin(spec)), variant=one.variant, label=label, defense=spec.defense
            )


@pytest.mark.parametrize("profile", PROFILES)
def test_the_published_run_clamps_and_the_corrected_one_does_not(profile):
    suite = load_suite("torchattacks-resnet50", profile=profile)
    assert {way.name: way.space for way in suite.variants} == {
        "as-published": "normalised-first",
        "corrected": "pixels",
    }
    (part,) = parts(suite)
    ways = {(row.label, row.variant.name) for row in planned_of(part)}
    assert {attack for attack, way in ways if way == "as-published"} == {
        attack for attack, way in ways if way == "corrected"
    }
    if profile != "smoke":
        assert {attack for attack, _ in ways} == {
            "none",
            "fgsm",
            "pgd",
            "cw",
            "ni-fgsm",
            "pixle",
            "si-ni-fgsm",
            "vmi-fgsm",
            "vni-fgsm",
        }


def test_the_paper_profile_has_the_three_parts_of_the_second_study():
    suite = load_suite("fgsm-patch-distillation", profile="paper")
    imagenet, mnist = parts(suite)
    rows = list(planned_of(imagenet))
    assert {row.model.name for row in rows} == {"resnet101", "alexnet", "regnet-y-400mf"}
    assert {row.label for row in rows if row.label.startswith("patch")} == {
        f"patch → {name}" for name in ("saltshaker", "soap dispenser", "digital clock", "piggy bank", "toaster")
    }
    assert {row.variant.space for row in rows if row.label == "fgsm"} == {"pixels", "normalised"}
    told = {(row.defense, row.variant.name, row.label) for row in planned_of(mnist)}
    for way, attack in (
        ("eps on pixels", "fgsm"),
        ("logits / 100", "fgsm"),
        ("logits / 100", "pgd"),
        ("eps on pixels", "cw"),
        ("eps on pixels", "apgd"),
        ("eps on pixels", "square"),
        ("eps on pixels", "autoattack"),
    ):
        assert ("distillation", way, attack) in told
    assert imagenet.transfer is not None
    assert mnist.transfer is None


def test_the_small_studies_keep_the_tables_of_the_whole_ones():
    for study in STUDIES:
        labels = {}
        for profile in ("small", "paper"):
            labels[profile] = [
                (part.one_data.label, sorted({(origin(spec), spec.defense) for spec in part.attacked}))
                for part in parts(load_suite(study, profile=profile))
            ]
        for (data, small), (other, paper) in zip(labels["small"], labels["paper"], strict=True):
            assert data == other
            beyond = {("cnn", "distillation + smoothing"), ("cnn", "PGD training")}
            assert set(paper) - set(small) <= beyond, "only what goes beyond the study may be left out"
