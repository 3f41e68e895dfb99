"""Training defenses as defenses: what each costs on clean images, and what it does against an attack that knows it.

The networks are small and so are the images (8x8 digits), but the effects are those of the papers: each threshold lies
well inside of what was measured.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sparring.adapters import attack
from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.wrap import wrap
from sparring.models.data import datasets
from sparring.models.defenses import training as training_defenses
from sparring.models.defenses.catalogue import training_changes
from sparring.models.networks import build as networks
from sparring.models.networks.determinism import seeded
from sparring.models.spec import DataSpec, DefenseSpec, TrainSpec
from sparring.models.training import loop as training
from sparring.models.training.train import _plain, trained

SHAPE = (1, 8, 8)
EPS = 0.15
BOTH = ["torch", "keras-tensorflow"]


def said(defense, **params):
    return DefenseSpec(defense=defense, **params)


PLAIN = ()
ADVERSARIAL = (said("adversarial-training", library="torchattacks", eps=EPS),)
AFTERWARDS = (said("adversarial-training", library="torchattacks", eps=EPS, epochs=3),)
MADRY = (said("madry", eps=EPS, steps=5),)
FINE_TUNED = (said("adversarial-fine-tuning", library="torchattacks", eps=EPS, epochs=3, samples=1000),)
DISTILLED = (said("distillation"),)


@cache
def digits():
    train, test = DataSpec(name="digits"), DataSpec(name="digits", samples=200)
    return datasets.load_train(train, base=Path(".")), datasets.load(test, base=Path("."))


_done = {}


def run(framework, defenses=PLAIN, **train):
    """The classifier, what its network's weights are, and the facts; trained once for all tests."""
    key = framework, repr(defenses), repr(train)
    if key not in _done:
        _done[key] = fresh(framework, defenses, **train)
    return _done[key]


def fresh(framework, defenses=PLAIN, samples=None, **train):
    if framework != "torch":
        networks.use_keras(framework)
    options = {"layout": "channels-first" if framework == "torch" else "channels-last"}
    data = digits()[0]
    network, facts = trained(
        lambda: networks.build("dnn", framework, SHAPE, 10),
        framework,
        data.x[:samples],
        data.y[:samples],
        TrainSpec(**{"epochs": 10, **train}),
        defenses=training_changes(defenses),
        before=preprocessing(SHAPE, **options),
        options=options,
        device="cpu",
    )
    return wrap(network, input_shape=SHAPE, device="cpu", **options), networks.digest_of(network), facts


def clean(classifier):
    test = digits()[1]
    return float((classifier.logits(test.x).argmax(axis=1) == test.y).mean())


def under(classifier, name, library="torchattacks", images=200, **params):
    """Accuracy under an attack."""
    x, y = digits()[1].x[:images], digits()[1].y[:images]
    return 1 - float(attack(classifier, x, y, name, library=library, **params).samples["success"].mean())


def pgd(classifier):
    return under(classifier, "pgd", eps=EPS, steps=20)


# What they do


@pytest.mark.parametrize("framework", BOTH)
@pytest.mark.parametrize("defenses", [ADVERSARIAL, AFTERWARDS, MADRY], ids=["while", "afterwards", "madry"])
def test_adversarial_training_helps_against_pgd_and_does_not_come_for_nothing(framework, defenses):
    plain, _, _ = run(framework)
    defended, _, facts = run(framework, defenses)
    assert pgd(defended) > pgd(plain) + 0.15
    assert 0.8 < clean(defended) <= clean(plain) + 0.02
    assert facts["defenses"] == [defenses[0].label]


@pytest.mark.parametrize("framework", BOTH)
def test_fine_tuning_helps_after_the_training(framework):
    plain, _, _ = run(framework)
    tuned, _, facts = run(framework, FINE_TUNED)
    assert pgd(tuned) > pgd(plain) + 0.1
    assert 0.85 < clean(tuned) <= clean(plain) + 0.02
    assert [row.get("stage") for row in facts["history"]] == [None] * 10 + ["fine-tuning"] * 3


@pytest.mark.parametrize("framework", BOTH)
def test_distillation_stops_fgsm_by_vanishing_gradients_only(framework):
    """Papernot et al. 2016; Carlini, Wagner 2016: divide the logits by the temperature, or attack the logits."""
    plain, _, _ = run(framework)
    student, _, facts = run(framework, DISTILLED)
    test = digits()[1]
    masked = under(student, "fgsm", eps=EPS)
    assert masked > under(plain, "fgsm", eps=EPS) + 0.2
    residue = training.probabilities(student.logits(test.x)) - np.eye(10, dtype=np.float32)[test.y]
    assert (student.vjp(test.x, residue) == 0).all(axis=(1, 2, 3)).mean() > 0.3
    images = attack(Divided(student, 100), test.x, test.y, "fgsm", library="torchattacks", eps=EPS).images
    assert (student.logits(images).argmax(axis=1) == test.y).mean() < masked - 0.25
    assert under(student, "cw", library="foolbox", images=30, steps=100, search_steps=5, learning_rate=0.05) < 0.05
    assert [row["stage"] for row in facts["history"]] == ["teacher"] * 10 + ["student"] * 10


class Divided:
    """What an attacker sees who knows the temperature."""

    framework = "torch"

    def __init__(self, inner, temperature):
        self.inner, self.temperature = inner, np.float32(temperature)
        self.input_shape, self.classes = inner.input_shape, inner.classes

    def logits(self, x):
        return self.inner.logits(x) / self.temperature

    def vjp(self, x, cotangent):
        return self.inner.vjp(x, cotangent / self.temperature)


@pytest.mark.parametrize("framework", BOTH)
@pytest.mark.parametrize(
    "defense", [said("noisy-gradients", std=0.01), said("noisy-weights"), said("augmentation", rotation=10)]
)
def test_noise_and_augmentation_still_train_a_useful_network_and_stop_no_attack(framework, defense):
    plain, unlike, _ = run(framework)
    classifier, digest, _ = run(framework, (defense,))
    assert digest != unlike
    assert clean(classifier) > 0.8
    assert pgd(classifier) < pgd(plain) + 0.15


def test_a_mix_of_attacks_of_several_libraries():
    attacks = [{"attack": "fgsm", "eps": EPS}, {"attack": "pgd", "library": "foolbox", "eps": EPS, "steps": 3}]
    mixed, _, _ = run("torch", (said("adversarial-training", library="torchattacks", attacks=attacks),))
    assert pgd(mixed) > pgd(run("torch")[0]) + 0.15


def test_beforehand_a_share_of_the_images_is_attacked_once_against_a_plain_network():
    spec, data = TrainSpec(epochs=10), digits()[0]
    made = training_defenses.adversarial_training(
        plain_training(spec), when="beforehand", ratio=0.25, library="torchattacks", eps=EPS
    )
    changed = (made.x != data.x).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(made.x - data.x).max() <= EPS + 1e-6
    np.testing.assert_array_equal(made.y, data.y)
    plain, _, _ = run("torch")
    accuracy = (plain.logits(made.x[changed]).argmax(axis=1) == data.y[changed]).mean()
    assert accuracy < 0.5  # of that very network


def test_arts_trainer_helps_as_well():
    trained, _, facts = run("torch", (said("art:AdversarialTrainer", params={"eps": EPS}),))
    assert pgd(trained) > pgd(run("torch")[0]) + 0.15
    assert facts["history"][0]["epoch"] == 10
    assert facts["history"][0]["accuracy"] > 0.8


# The same numbers, in order


@pytest.mark.parametrize("framework", BOTH)
@pytest.mark.parametrize(
    "defenses",
    [ADVERSARIAL, MADRY, DISTILLED, (said("noisy-gradients"), said("noisy-weights"), said("augmentation"))],
    ids=["adversarial", "madry", "distilled", "noisy"],
)
def test_the_same_seed_gives_the_same_weights(framework, defenses):
    one, two, other = (fresh(framework, defenses, epochs=1, seed=seed, samples=200)[1] for seed in (3, 3, 4))
    assert one == two != other


def test_the_order_of_defenses_is_the_order_in_which_they_are_applied():
    turned = said("augmentation", rotation=10)
    one, two = fresh("torch", (*MADRY, turned), epochs=1)[1], fresh("torch", (turned, *MADRY), epochs=1)[1]
    assert one != two
    _, _, facts = fresh("torch", (*AFTERWARDS, said("distillation", temperature=20)), epochs=2)
    stages = [row["stage"] for row in facts["history"]]
    assert stages == ["teacher"] * 2 + ["teacher, adversarial"] * 3 + ["student"] * 2
    _, _, facts = fresh("torch", (said("distillation", temperature=20), *AFTERWARDS), epochs=2)
    assert [row["stage"] for row in facts["history"]] == ["teacher"] * 2 + ["student"] * 2 + ["adversarial"] * 3


def test_wrappers_are_none_of_the_trainings_business():
    _, digest, facts = fresh("torch", (said("gaussian-blur"),), epochs=1)
    assert digest == fresh("torch", epochs=1)[1]
    assert facts["defenses"] == []


# The parts


def linear(framework):
    if framework == "torch":
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    networks.use_keras(framework)
    import keras

    return keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def plain_training(spec, framework="torch", build=None):
    data = digits()[0]
    options = {"layout": "channels-first" if framework == "torch" else "channels-last"}
    return _plain(
        build or (lambda: networks.build("dnn", framework, SHAPE, 10)),
        framework.partition("-")[0],
        data.x,
        data.y,
        spec,
        preprocessing(SHAPE, **options),
        options,
        "cpu",
        None,
    )


def one_step(framework, l2=0.0, **settings):
    """The weights (kernel and bias) before and after a step of SGD at rate 1, from the same start; and its loss."""
    spec = TrainSpec(optimizer="sgd", lr=1.0, l2=l2)
    made = plain_training(spec, framework, lambda: linear(framework))
    with seeded(0, made.family):
        learner = made.fresh()
        start = learner.weights()
        settings = {"lr": 1.0, **settings}
        loss, _ = learner.step(made.x[:64], made.y[:64], **settings)
    kernel_last = sorted([*zip(start, learner.weights(), strict=True)], key=lambda pair: pair[0].ndim)
    (bias, new_bias), (kernel, new_kernel) = kernel_last
    return kernel, new_kernel - kernel, new_bias - bias, loss, learner


@pytest.mark.parametrize("framework", BOTH)
def test_l2_pulls_the_kernels_and_nothing_else(framework):
    kernel, plain, plain_bias, loss, _ = one_step(framework)
    _, pulled, bias, same_loss, _ = one_step(framework, l2=0.05)
    np.testing.assert_allclose(pulled - plain, -2 * 0.05 * kernel, atol=1e-6)
    np.testing.assert_allclose(bias, plain_bias, atol=1e-6)
    assert same_loss == pytest.approx(loss, abs=1e-6)  # what is reported is the cross-entropy


@pytest.mark.parametrize("framework", BOTH)
def test_noise_on_gradients_has_its_deviation_and_no_bias(framework):
    _, plain, _, _, _ = one_step(framework)
    _, noisy, _, _, _ = one_step(framework, gradient_noise=0.1)
    difference = noisy - plain
    assert difference.std() == pytest.approx(0.1, rel=0.15)
    assert abs(difference.mean()) < 0.02


@pytest.mark.parametrize("framework", BOTH)
def test_noise_on_weights_is_gone_when_the_step_is_made(framework):
    _, still, bias, _, _ = one_step(framework, lr=1e-12, weight_noise=0.5)
    assert abs(still).max() < 1e-6
    assert abs(bias).max() < 1e-6
    _, plain, _, _, _ = one_step(framework)
    _, noisy, _, _, _ = one_step(framework, weight_noise=0.5)
    assert abs(noisy - plain).max() > 1e-3  # but the gradient is that of the noisy ones


@pytest.mark.parametrize("framework", BOTH)
def test_the_loss_of_a_step_is_the_cross_entropy_at_the_temperature(framework):
    _, _, _, loss, learner = one_step(framework, lr=1e-12, temperature=5.0)
    data = digits()[0]
    expected, _ = training.evaluate(learner.classifier(), data.x[:64], data.y[:64], temperature=5.0)
    assert loss == pytest.approx(expected, rel=1e-4)
    soft = np.eye(10, dtype=np.float32)[data.y[:64]]
    fresh_learner = plain_training(TrainSpec(), framework, lambda: learner.network).fresh()
    assert fresh_learner.step(data.x[:64], soft, lr=1e-12, temperature=5.0)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("framework", BOTH)
def test_a_learners_gradient_is_that_of_its_live_view(framework):
    made = plain_training(TrainSpec(), framework)
    with seeded(0, made.family):
        learner = made.fresh()
        for _ in range(2):
            learner.step(made.x[:64], made.y[:64], lr=0.05)
            view = learner.classifier()
            x, y = made.x[:16], made.y[:16]
            residue = training.probabilities(view.logits(x)) - np.eye(10, dtype=np.float32)[y]
            np.testing.assert_allclose(learner.gradient(x, y), view.vjp(x, residue), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_inner_maximum_stays_within_its_budget_and_raises_the_loss(norm):
    made = plain_training(TrainSpec())
    eps = 0.1 if norm == "linf" else 0.8
    with seeded(0, "torch"):
        learner = made.fresh()
        for i in range(20):
            learner.step(made.x[i * 32 : i * 32 + 32], made.y[i * 32 : i * 32 + 32], lr=1e-3)
    x, y = made.x[:50], made.y[:50]
    found = training_defenses._pgd(learner, x, y, np.random.default_rng(0), eps, eps / 4, 7, norm, True)
    change = (found - x).reshape(50, -1)
    length = abs(change).max(1) if norm == "linf" else np.linalg.norm(change, axis=1)
    assert length.max() <= eps + 1e-5
    assert length.mean() > 0.5 * eps
    assert found.min() >= 0
    assert found.max() <= 1
    view = learner.classifier()
    assert training.evaluate(view, found, y)[0] > training.evaluate(view, x, y)[0] + 0.1


def test_the_slow_start_and_the_fast_decay():
    factors = [training_defenses.slow_start_fast_decay(done) for done in np.linspace(0, 0.999, 200)]
    top = int(np.argmax(factors))
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1, abs=0.02)
    assert 45 < top < 55  # a quarter
    assert (np.diff(factors[: top + 1]) > 0).all()
    assert (np.diff(factors[top + 1 :]) < 0).all()
    assert factors[-1] == pytest.approx(0.01, rel=0.05)


def test_noise_shrinks_by_its_share_every_epoch():
    made = training_defenses.noisy_gradients(plain_training(TrainSpec()), std=0.1, decay=0.05)
    assert made.gradient_noise is not None
    assert [made.gradient_noise(epoch) for epoch in (0, 1, 10)] == pytest.approx([0.1, 0.095, 0.1 * 0.95**10])


# Errors


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        (said("adversarial-training", attack="fgms"), "unknown attack 'fgms'"),
        (said("adversarial-training", library="torchatack"), "unknown library 'torchatack'"),
        (said("adversarial-training", ratio=0), "ratio: 0 is not a number above 0 and at most 1"),
        (said("adversarial-training", ratio=1.5), "ratio: 1.5 is not"),
        (said("adversarial-training", attack="pgd"), "pgd needs a value for eps"),
        (said("adversarial-training", attack="jsma", library="foolbox"), "foolbox"),
        (said("adversarial-training", attacks=[]), "attacks: give at least one"),
        (said("adversarial-training", attacks=["fgsm"]), "is not a mapping with the key `attack`"),
        (said("adversarial-training", attacks=[{"attack": "fgsm"}]), "fgsm needs a value for eps"),
        (said("adversarial-training", attacks=[{"attack": "fgsm", "eps": 0.1}], eps=0.1), "say it in each of"),
        (said("adversarial-training", when="beforehand", epochs=2), "leave `when` out"),
        (said("madry", steps=0), "steps: 0 is not"),
        (said("distillation", temperature=0), "temperature: 0 is not"),
        (said("noisy-gradients", decay=2), "decay: 2 is not"),
        (said("art:AdversarialTrainerFBFPyTorch"), "`optimizer: sgd`"),
        (said("art:AdversarialTrainerOAATPyTorch"), "needs a perceptual network"),
    ],
)
def test_what_cannot_be_meant_is_said(defense, message):
    with pytest.raises(InputError) as caught:
        fresh("torch", (defense,), epochs=1)
    assert message in str(caught.value)


def test_arts_loop_is_changed_by_no_other_defense():
    with pytest.raises(InputError, match="trains by its own loop"):
        fresh("torch", (*MADRY, said("art:AdversarialTrainer", params={"eps": EPS})), epochs=1)
    with pytest.raises(InputError, match="its own loop, which knows no `schedule: plateau`"):
        fresh("torch", (said("art:AdversarialTrainer", params={"eps": EPS}),), schedule="plateau", validation=0.2)
