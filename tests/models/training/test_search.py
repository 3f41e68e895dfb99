"""The search for hyperparameters, against scikit-learn's own search and against trainings by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid, StratifiedKFold

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.wrap import wrap
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.networks import build as networks
from sparring.models.prepared.kinds.table import kind_of
from sparring.models.spec import DataSpec, TrainSpec
from sparring.models.training import search
from sparring.models.training.train import trained

SHAPE = (1, 8, 8)
OPTIONS = {
    "torch": {"layout": "channels-first"},
    "keras": {"layout": "channels-last"},
}


def model(framework="torch", architecture="dnn(units=(8, 6))", train=None, **how):
    given = {"over": {"lr": [1e-6, 0.01], "dropout": [0.0, 0.1]}, "folds": 2, "samples": 160, **how}
    train = {"epochs": 3, "seed": 7, **(train or {})}
    return model_spec(
        {"name": "net", "architecture": architecture, "framework": framework, "train": train, "search": given}
    )


def digits():
    data = datasets.load_train(DataSpec(name="digits"), base=Path("."))
    return data.x, data.y


def searched(spec, **more):
    return search.search(spec, SHAPE, 10, *digits(), OPTIONS[spec.runtime.partition("-")[0]], device="cpu", **more)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_best_of_a_grid_is_found_and_reported(framework):
    spec = model(framework)
    seen = []
    best, trials = searched(spec, progress=lambda done, total, what: seen.append((done, total, what)))
    assert [trial["parameters"] for trial in trials] == list(ParameterGrid({"lr": [1e-6, 0.01], "dropout": [0.0, 0.1]}))
    assert [trial["accuracy"] for trial in trials] == [pytest.approx(np.mean(trial["folds"])) for trial in trials]
    assert [trial["deviation"] for trial in trials] == [pytest.approx(np.std(trial["folds"])) for trial in trials]
    winner = trials[int(np.argmax([trial["accuracy"] for trial in trials]))]
    assert [trial["best"] for trial in trials] == [trial is winner for trial in trials]
    assert winner["parameters"]["lr"] == 0.01  # with the other one nothing is learned
    assert (best.train.lr, best.train.seed, best.train.epochs) == (0.01, 7, 3)
    assert best.architecture == f"dnn(units=(8, 6), dropout={winner['parameters']['dropout']!r})"
    assert seen[0] == (0, 8, "search: trial 1/4, fold 1/2")
    assert [done for done, _, _ in seen] == list(range(9))


def test_a_trial_is_a_training_on_the_other_folds():
    spec = model(over={"lr": [0.01]}, seed=3, folds=3)
    _, (trial,) = searched(spec)
    x, y = digits()
    drawn = np.random.default_rng(3).permutation(len(x))[:160]
    x, y = x[drawn], y[drawn]
    accuracies = []
    for rest, held in StratifiedKFold(3, shuffle=True, random_state=3).split(x, y):
        network, _ = trained(
            lambda: networks.build("dnn(units=(8, 6))", "torch", SHAPE, 10),
            "torch",
            x[rest],
            y[rest],
            TrainSpec(epochs=3, seed=3, lr=0.01),
            before=preprocessing(SHAPE, layout="channels-first"),
            options=OPTIONS["torch"],
            device="cpu",
        )
        decided = wrap(network, input_shape=SHAPE, device="cpu").logits(x[held]).argmax(1)
        accuracies.append(float((decided == y[held]).mean()))
    assert trial["folds"] == accuracies


def test_the_seed_of_the_model_changes_nothing_and_that_of_the_search_does():
    small = {"over": {"lr": [0.003, 0.01], "units": [[4, 4], [8, 4]]}, "how": "random", "trials": 2, "samples": 60}
    bare = {"architecture": "dnn", "train": {"epochs": 1}}

    def told(seed, train_seed):
        spec = model(**{**bare, "train": {"epochs": 1, "seed": train_seed}}, **small, seed=seed)
        return [(trial["parameters"], trial["folds"]) for trial in searched(spec)[1]]

    assert told(0, 1) == told(0, 2) != told(5, 1)


def test_random_points_are_different_ones_of_the_grid():
    spec = model(how="random", trials=3, seed=1)
    drawn = search.points(spec.search)
    assert len(drawn) == 3
    assert drawn == search.points(spec.search)
    everything = list(ParameterGrid({"lr": [1e-6, 0.01], "dropout": [0.0, 0.1]}))
    assert all(drawn.count(point) == 1 and point in everything for point in drawn)
    many = search.points(model(how="random", trials=50).search)
    assert len(many) == 4  # no more than there are, and no warning


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"dropuot": [0.1]}, "search.over: unknown hyperparameter 'dropuot'.*'dropout'"),
        ({"seed": [1, 2]}, "unknown hyperparameter 'seed'"),
        ({"lr": []}, "search.over.lr: no values to try"),
        ({"lr": [0.1, -1]}, r"search\.over\.lr: Input should be greater than 0.*lr=-1"),
        ({"dropout": [0.1, "much"]}, "dropout: 'much' is not a number"),
        ({"units": [[1, 2], 3]}, "units: 3 is not a tuple"),
        ({"keep": ["last", "best"]}, r"search\.over: .*needs a `validation` share \(keep=best\)"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_trained(over, message):
    with pytest.raises(InputError, match=message):
        search.check(model(over=over))
    with pytest.raises(InputError, match=message):
        kind_of(model(over=over)).check(model(over=over))


def test_too_few_images():
    with pytest.raises(InputError, match=r"search\.samples: 5000 images asked for, but there are 1438"):
        searched(model(samples=5000))
    with pytest.raises(InputError, match=r"search\.folds: 9 folds, but no class has more than \d of the 20 images"):
        searched(model(samples=20, folds=9))


def test_a_trial_that_breaks_down_is_told_and_not_chosen():
    broken = {"over": {"lr": [1e30, 0.01]}, "samples": 100}
    best, trials = searched(model(train={"epochs": 1, "optimizer": "sgd"}, **broken))
    assert "no longer finite" in trials[0]["failed"]
    assert (trials[0]["accuracy"], trials[0]["best"], trials[1]["best"]) == (None, False, True)
    assert best.train.lr == 0.01
    with pytest.raises(InputError, match=r"search: no trial could be trained; the first: .*no longer finite"):
        searched(model(train={"epochs": 1, "optimizer": "sgd"}, over={"lr": [1e30]}, samples=100))
