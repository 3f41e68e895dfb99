from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.models.data import datasets
from sparring.models.defenses.catalogue import training_changes
from sparring.models.networks import build as networks
from sparring.models.networks.determinism import seeded
from sparring.models.spec import DataSpec, DefenseSpec, TrainSpec
from sparring.models.training import loop as training
from sparring.models.training import train as training_of

SHAPE = (1, 8, 8)

TRAINED = """
from pathlib import Path
from sparring.models.data import datasets; from sparring.models.networks import build as networks; from sparring.models.training.train import trained
from sparring.models.spec import DataSpec, TrainSpec
from sparring.adapters.frameworks.preprocessing import preprocessing
framework, train = {framework!r}, TrainSpec(**{train!r})
family = framework.partition("-")[0]
data = datasets.load_train(DataSpec(name="digits"), base=Path("."), samples=200)
LAYOUTS = dict(torch="channels-first", keras="channels-last")
before = preprocessing((1, 8, 8), layout=LAYOUTS[family])
if family == "keras":
    networks.use_keras(framework)
network, _ = trained(
    lambda: networks.build({architecture!r}, framework, (1, 8, 8), 10), framework, data.x, data.y, train,
    before=before, options=dict(layout=LAYOUTS[family]), device="cpu",
)
print(networks.digest_of(network))
"""


@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow", "keras-torch"])
def test_two_processes_train_the_same_weights(fresh, framework):
    """Initial weights, order, dropout and augmentation all follow from the seed; the number of cores does not matter."""
    train = {"epochs": 2, "augment": "flip-crop", "seed": 3}
    code = TRAINED.format(framework=framework, train=train, architecture="cnn")
    backend = "torch" if framework == "keras-torch" else "tensorflow"
    one, two = fresh(code, backend), fresh(code, backend, OMP_NUM_THREADS="1")
    assert one == two


def trained(framework, train, x, y, architecture="cnn", defenses=(), progress=None, **options):
    return run(framework, train, x, y, architecture, defenses, progress, **options)[0]


def run(framework, train, x, y, architecture="cnn", defenses=(), progress=None, **options):
    """The network and the facts; x (N, 1, 8, 8)."""
    options["layout"] = "channels-first" if framework == "torch" else "channels-last"
    return training_of.trained(
        lambda: networks.build(architecture, framework, SHAPE, 10),
        framework,
        x,
        y,
        train,
        defenses=training_changes(defenses),
        before=preprocessing(SHAPE, **options),
        options=options,
        device="cpu",
        progress=progress,
    )


@pytest.fixture(scope="module")
def digits():
    return datasets.load_train(DataSpec(name="digits"), base=Path("."), samples=200)


@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow"])
def test_every_setting_changes_the_weights(framework, digits):
    settings = [
        {},
        {"seed": 1},
        {"optimizer": "sgd"},
        {"lr": 0.01},
        {"batch_size": 64},
        {"augment": "shift"},
        {"augment": "flip-crop"},
        {"augment": "rotate-shift-zoom"},
        {"l2": 0.01},
        {"validation": 0.2},
    ]
    found = [
        networks.digest_of(trained(framework, TrainSpec(epochs=1, **s), digits.x, digits.y, "dnn")) for s in settings
    ]
    assert len(set(found)) == len(settings)


def test_the_loss_is_the_cross_entropy_and_goes_down(digits):
    import torch

    seen = []
    with seeded(0, "torch"):
        net = networks.build("dnn", "torch", SHAPE, 10)
        start = torch.nn.functional.cross_entropy(net.eval()(torch.from_numpy(digits.x)), torch.from_numpy(digits.y))
    spec = TrainSpec(epochs=5, batch_size=10)
    trained("torch", spec, digits.x, digits.y, "dnn", progress=lambda *a: seen.append(a))
    assert [done for done, _, _ in seen] == list(range(1, 101))
    losses = [float(what.rpartition(" ")[2]) for _, _, what in seen]
    assert seen[-1][1:] == (100, f"epoch 5/5, loss {losses[-1]:.3f}")
    assert abs(losses[0] - float(start.detach())) < 0.3  # the first batch, with dropout
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow"])
def test_a_loss_that_explodes_is_an_error(framework, digits):
    spec = TrainSpec(epochs=20, optimizer="sgd", lr=3e38)
    with pytest.raises(InputError, match=r"loss is no longer finite in epoch \d+: lower train\.lr \(3e\+38\)"):
        trained(framework, spec, digits.x, digits.y)


def test_a_last_batch_of_one_does_not_stop_batch_normalisation():
    import torch
    from torch import nn

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))
    before = net[1].weight.detach().clone()
    x = np.random.default_rng(0).random((9, *SHAPE), np.float32)
    spec = TrainSpec(epochs=1, batch_size=4)
    training_of.trained(lambda: net, "torch", x, np.arange(9) % 2, spec, before=preprocessing(SHAPE), options={})
    assert not torch.equal(before, net[1].weight)


def test_the_network_learns_what_it_will_see(digits):
    """A network that wants 0..255 is trained on 0..255: the first step on the scaled images is another one."""
    spec = TrainSpec(epochs=1)
    plain, scaled = (
        trained("torch", spec, digits.x, digits.y),
        trained("torch", spec, digits.x, digits.y, input_range=(0, 255)),
    )
    by_hand = trained("torch", spec, digits.x * np.float32(255), digits.y)
    assert networks.digest_of(plain) != networks.digest_of(scaled) == networks.digest_of(by_hand)


@pytest.mark.parametrize("family", ["torch", "keras"])
def test_the_generators_are_as_before(family):
    import torch

    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    torch.manual_seed(1)
    expected = np.random.random(), random.random(), float(torch.rand(()))  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    with seeded(7, family):
        np.random.random(), random.random(), torch.rand(())  # noqa: NPY002
    assert (np.random.random(), random.random()) == expected[:2]  # noqa: NPY002
    if family == "torch" or os.environ.get("KERAS_BACKEND") == "torch":
        assert float(torch.rand(())) == expected[2]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


@given(
    st.lists(st.sampled_from([0.5, 0.7, 0.69999, 0.6, 0.9, float("inf")]) | st.floats(1e-3, 10), max_size=40),
    st.sampled_from([1e-4, 0.3, 3e-8, 2e-9]),
)
def test_the_learning_rate_falls_as_torch_lets_it(losses, rate):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=3)
    ours = training.Plateau()
    for loss in losses:
        theirs.step(loss)
        rate = ours.after(loss, rate)
        assert rate == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow"])
def test_a_plateau_lowers_the_learning_rate(framework, digits):
    """A rate so low that the loss hardly falls; until the first plateau the epochs are those without a schedule."""
    said = {"epochs": 7, "lr": 1e-7, "validation": 0.2, "batch_size": 64}
    plain, lowered = (
        run(framework, TrainSpec(**said, **more), digits.x, digits.y, "dnn")[1]["history"]
        for more in ({}, {"schedule": "plateau"})
    )
    expected, falling = [1e-7], training.Plateau()
    for row in lowered:
        expected.append(falling.after(row["validation_loss"], expected[-1]))
    rates = [row["learning_rate"] for row in lowered]
    assert rates == expected[:-1]
    assert rates[4] == 1e-7 > rates[-1]
    fell = next(i for i, rate in enumerate(rates) if rate < 1e-7)
    assert [row["loss"] for row in lowered[:fell]] == [row["loss"] for row in plain[:fell]]
    assert lowered[fell]["loss"] != plain[fell]["loss"]
    assert "learning_rate" not in plain[0]


def test_a_teacher_and_its_student_each_have_the_schedule(digits):
    spec = TrainSpec(epochs=5, lr=0.3, validation=0.2, schedule="plateau", batch_size=64)
    _, facts = run("torch", spec, digits.x, digits.y, "dnn", (DefenseSpec(defense="distillation", temperature=100.0),))
    rates = {}
    for row in facts["history"]:
        rates.setdefault(row["stage"], []).append(row["learning_rate"])
    assert list(rates) == ["teacher", "student"]
    assert rates["teacher"][0] == rates["student"][0] == 0.3


def test_a_schedule_needs_something_to_go_by():
    with pytest.raises(ValueError, match="`schedule: plateau` needs a `validation` share"):
        TrainSpec(schedule="plateau")


def test_shift_moves_an_image_by_a_tenth_at_most():
    x = np.zeros((200, 1, 21, 41), np.float32)
    x[:, :, 10, 20] = 1
    moved = training.AUGMENT["shift"](x, np.random.default_rng(0))
    assert moved.dtype == np.float32
    assert moved.shape == x.shape
    np.testing.assert_allclose(moved.sum((1, 2, 3)), 1, atol=1e-5)  # bilinear: nothing is lost
    down = (moved.sum((1, 3)) * np.arange(21)).sum(1) - 10
    right = (moved.sum((1, 2)) * np.arange(41)).sum(1) - 20
    assert abs(down).max() <= 2.1 + 1e-4
    assert abs(right).max() <= 4.1 + 1e-4
    assert down.std() > 1
    assert right.std() > 2


def test_flip_crop_gives_every_crop_of_the_padded_image_and_its_mirror():
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) / 64 + 0.01
    many = training.AUGMENT["flip-crop"](np.repeat(x, 2000, 0), np.random.default_rng(0))
    padded = [np.pad(image, ((0, 0), (1, 1), (1, 1))) for image in (x[0], x[0, ..., ::-1])]
    every = {p[:, i : i + 8, j : j + 8].tobytes() for p in padded for i in range(3) for j in range(3)}
    assert {image.tobytes() for image in many} == every
    assert len(every) == 18
