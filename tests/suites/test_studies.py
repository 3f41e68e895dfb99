"""The published studies that ship: every profile is a whole suite, and every published value has its row."""

from __future__ import annotations

from itertools import product

import pytest

from sparring.suites.expand import origin, parts
from sparring.suites.reduced import reduced
from sparring.suites.suite import PROFILES, load_suite

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
