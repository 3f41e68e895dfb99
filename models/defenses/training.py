"""Defenses that change how a network is trained: each a function from a ``Training`` to another one.

In a list they are applied in order: what comes later changes what the earlier ones have made of the training. Of a
training of several stages it changes the last, but ``distillation``, whose teacher goes through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import load_library
from sparring.adapters.attacks.request import Request, request, why_not
from sparring.adapters.attacks.run import crafting
from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images, Labels
from sparring.models.spec import facts
from sparring.models.training.augmentation import rotate_shift_zoom
from sparring.models.training.learner import History, Learner, Targets
from sparring.models.training.loop import Batch, Change, Training, evaluate, probabilities, row_of, train

TEACHER = 1 << 20
"""Added to the seed: a teacher and its student start from other weights."""


def adversarial_training(
    training: Training, *, ratio: float = 0.5, when: str = "batch", epochs: int = 0, **attack: Any
) -> Training:
    """A share ``ratio`` of the images is replaced by adversarial ones, with their true labels.

    ``when='batch'``: of every batch, attacked as the network is at that moment (Goodfellow, Shlens, Szegedy 2015,
    "Explaining and Harnessing Adversarial Examples", section 6; the share as in ART's ``AdversarialTrainer``).
    ``when='beforehand'``: once, against a network that is trained as it was so far (Szegedy et al. 2014, "Intriguing
    properties of neural networks", section 4.3). With ``epochs`` the training as it was so far comes first, and then
    so many epochs with adversarial images (Campbell, Lasselle). ``attack``, ``library``, ``norm``, ``eps``,
    ``eps_step``, ``steps`` and ``params`` say which attack; ``attacks`` is a list of several, each a mapping with the
    same keys, one of which is drawn for each batch. The attack sees the network in evaluation mode.
    """
    chosen = attacks_of(**attack)
    if when == "beforehand":
        return _beforehand(training, chosen, ratio)
    changed = replace(training, changes=(*training.changes, _adversarial(chosen, ratio)))
    if not epochs:
        return changed
    spec = training.spec.model_copy(update={"epochs": epochs})
    return replace(changed, spec=spec, first=training, past=(), stage="adversarial")


def madry(
    training: Training, *, eps: float, eps_step: float, steps: int, norm: str = "linf", random_start: bool = True
) -> Training:
    """Every batch is what projected gradient descent on the cross-entropy makes of it, with the true labels.

    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1 (equation 2.1, the
    inner maximum by PGD). ``eps`` and ``eps_step`` are in units of [0, 1]; ``norm`` is linf or l2. PGD is sparring's
    own, on the learner's gradients, in evaluation mode.
    """

    @contextmanager
    def change(learner: Learner) -> Iterator[Batch]:
        def batch(x: Images, targets: Targets, rng: np.random.Generator) -> tuple[Images, Targets]:
            return _pgd(learner, x, _classes(targets), rng, eps, eps_step, steps, norm, random_start), targets

        yield batch

    return replace(training, changes=(*training.changes, change))


def adversarial_fine_tuning(
    training: Training,
    *,
    samples: int | None = 500,
    epochs: int = 1,
    lr: float | None = None,
    schedule: str = "slow-start-fast-decay",
    **attack: Any,
) -> Training:
    """The training as it was so far, and then ``epochs`` on ``samples`` images, all of them adversarial.

    Jeddi, Shafiee, Wong 2020, "A Simple Fine-tuning Is All You Need: Towards Robust Deep Learning Via Adversarial
    Fine-tuning", section 3: the learning rate rises slowly and falls fast; see ``slow_start_fast_decay``. ``lr`` is its
    highest value, that of the training where it is None. The attack as for ``adversarial_training``.
    """
    x, y, seed = training.x, training.y, training.spec.seed
    if samples is not None and samples < len(x):
        chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(x))[:samples])
        x, y = x[chosen], y[chosen]
    update = {"epochs": epochs, "lr": lr or training.spec.lr}
    return replace(
        training,
        first=training,
        x=x,
        y=y,
        spec=training.spec.model_copy(update=update),
        changes=(*training.changes, _adversarial(attacks_of(**attack), 1.0)),
        schedule=slow_start_fast_decay if schedule == "slow-start-fast-decay" else None,
        stage="fine-tuning",
        past=(),
    )


def distillation(training: Training, *, temperature: float = 100.0) -> Training:
    """A student of the same architecture, trained on the probabilities that a teacher gives the training images.

    Papernot et al. 2016, "Distillation as a Defense to Adversarial Perturbations against Deep Neural Networks", section
    IV: the teacher is trained as it was so far, its logits divided by ``temperature``; its probabilities at that
    temperature are the student's targets, who is trained at the same one; deployed is the student at temperature 1. A
    teacher may have gone through several stages: the student is trained as the first of them was.
    """
    student = training
    while student.first is not None:
        student = student.first
    student = replace(student, temperature=temperature, stage="student")
    teacher, past = train(_seen_at(training, temperature))
    view = teacher.classifier()
    logits = [view.logits(student.x[i : i + 256]) for i in range(0, len(student.x), 256)]
    return replace(student, y=probabilities(np.concatenate(logits), temperature), past=past)


def noisy_gradients(training: Training, *, std: float = 0.1, decay: float = 0.05) -> Training:
    """Gaussian noise on the gradients of the weights, of deviation ``std`` that shrinks by ``decay`` every epoch.

    Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep Networks", section 3 (whose noise
    decays with the steps by a power law); the decay by epochs is that of Guliani. As a defense it is a *masking* of
    gradients at best.
    """
    return replace(training, gradient_noise=_decaying(std, decay))


def noisy_weights(training: Training, *, std: float = 0.01, decay: float = 0.0) -> Training:
    """Gaussian noise on the weights while a step's gradient is computed; the step is made from the weights without.

    An 1996, "The Effects of Adding Noise During Backpropagation Training on a Generalization Performance", section 3
    (weight noise); deviation ``std``, shrinking by ``decay`` every epoch.
    """
    return replace(training, weight_noise=_decaying(std, decay))


def augmentation(
    training: Training, *, rotation: float = 15.0, shift: float = 0.1, zoom: float = 0.2, flip: bool = False
) -> Training:
    """Every training image turned, moved, zoomed and, with ``flip``, mirrored at random, anew in every epoch.

    Keras' ``ImageDataGenerator``; see ``augmentation.rotate_shift_zoom``. ``rotation`` is in degrees, ``shift`` and
    ``zoom`` are shares of the sides.
    """

    @contextmanager
    def change(learner: Learner) -> Iterator[Batch]:
        def batch(x: Images, targets: Targets, rng: np.random.Generator) -> tuple[Images, Targets]:
            if flip:
                x = np.where(rng.random(len(x))[:, None, None, None] < 0.5, x[..., ::-1], x)
            return rotate_shift_zoom(x, rng, degrees=rotation, shift=shift, zoom=zoom), targets

        yield batch

    return replace(training, changes=(*training.changes, change))


def art_trainer(training: Training, *, name: str, **params: Any) -> Training:
    """ART's trainer of that name (``adapters/libraries/art/trainers.py``) in place of sparring's loop.

    ART keeps no history: there is one row, of the end. Raises ``InputError``, when it is carried out, for what ART's
    loops can't do: augmentation, keeping the best weights, and another training defense in the same training.
    """
    from sparring.adapters.libraries.art import trainers

    def loop(learner: Learner, training: Training) -> History:
        spec, y = training.spec, training.y
        other = training.changes or training.gradient_noise or training.weight_noise or training.schedule
        if other or training.temperature != 1 or y.ndim == 2:
            raise InputError(f"art:{name} trains by its own loop, which no other training defense can change")
        unknown_keys = [f"{key}: {getattr(spec, key)}" for key in ("augment", "keep", "schedule") if key in facts(spec)]
        if unknown_keys:
            raise InputError(f"art:{name} trains by its own loop, which knows no `{unknown_keys[0]}`")
        how = trainers.Fit(spec.epochs, spec.batch_size, spec.optimizer, spec.lr, spec.l2)
        view = learner.classifier()
        trainers.fit(
            name, view, learner.network, learner.kernels, learner.before, training.x, _classes(y), how, **params
        )
        return (row_of(learner, training, spec.epochs, *evaluate(view, training.x, _classes(y))),)

    return replace(training, loop=loop)


def slow_start_fast_decay(done: float) -> float:
    """What the learning rate is multiplied by when this share of the steps, in [0, 1), is done.

    A tenth at first, rising linearly to 1 within the first quarter, then falling exponentially to a hundredth. The
    shape is that of Jeddi et al. 2020, section 3; they give no numbers for a run of one epoch: these are ours.
    """
    if done < 0.25:
        return 0.1 + 0.9 * done / 0.25
    return math.exp(math.log(0.01) * (done - 0.25) / 0.75)


# --- attacks --------------------------------------------------------------------------------------------------------

Chosen = tuple[str, Request]
"""A library and what is asked of it."""


def attacks_of(
    *, attack: str = "fgsm", library: str = "art", attacks: Sequence[Mapping[str, Any]] | None = None, **params: Any
) -> tuple[Chosen, ...]:
    """The attacks that these parameters of a defense say. Raises ``InputError`` for what can't be run in a training."""
    if attacks is None:
        return (_attack(attack=attack, library=library, **params),)
    common = [key for key, value in params.items() if value is not None]
    if common or not attacks:
        raise InputError(f"{common[0]}: say it in each of `attacks`" if common else "attacks: give at least one")
    requests = []
    for one in attacks:
        if not isinstance(one, Mapping):
            raise InputError(f"attacks: {one!r} is not a mapping with the key `attack`")
        requests.append(_attack(**{"library": library, **one}))
    return tuple(requests)


def check(**params: Any) -> None:
    """Raise ``InputError`` unless the parameters of a defense say attacks that can be run in a training."""
    own = ("ratio", "when", "epochs", "samples", "lr", "schedule")
    attacks_of(**{key: value for key, value in params.items() if key not in own})
    if params.get("when") == "beforehand" and params.get("epochs"):
        raise InputError("epochs: after the training without, images are attacked batch by batch: leave `when` out")


def _attack(
    *,
    attack: str = "",
    library: str = "",
    norm: str | None = None,
    params: Mapping[str, Any] | None = None,
    **more: Any,
) -> Chosen:
    given = {**{key: value for key, value in more.items() if value is not None}, **(params or {})}
    if not attack:
        raise InputError("attacks: each needs the key `attack`")
    wanted = request(attack, norm=norm, params=given)
    chosen = load_library(wanted.raw_library or library)
    reason = why_not(chosen, wanted, "torch")
    if reason:
        raise InputError(f"attack: {chosen.name}: {reason}")
    return chosen.name, wanted


def _adversarial(attacks: tuple[Chosen, ...], ratio: float) -> Change:
    @contextmanager
    def change(learner: Learner) -> Iterator[Batch]:
        with ExitStack() as stack:
            # bridged: a native session would freeze the weights for as long as it is open
            crafts = [stack.enter_context(crafting(learner.classifier(), a, of, route="bridged")) for of, a in attacks]

            def batch(x: Images, targets: Targets, rng: np.random.Generator) -> tuple[Images, Targets]:
                craft = crafts[int(rng.integers(len(crafts)))] if len(crafts) > 1 else crafts[0]
                # the batch is in random order: its first images are as good as any
                n = math.ceil(ratio * len(x))
                made = craft(np.ascontiguousarray(x[:n]), _classes(targets)[:n], int(rng.integers(2**31)))
                return np.concatenate([made, x[n:]]), targets

            yield batch

    return change


def _beforehand(training: Training, attacks: tuple[Chosen, ...], ratio: float) -> Training:
    """The training on images of which a share was attacked once, each attack its part, against a network before it."""
    learner, past = train(replace(training, stage=training.stage or "plain"))
    rng = np.random.default_rng([training.spec.seed, 3])
    x, classes = training.x.copy(), _classes(training.y)
    chosen = rng.permutation(len(x))[: math.ceil(ratio * len(x))]
    for (library, asked), whose in zip(attacks, np.array_split(chosen, len(attacks)), strict=True):
        with crafting(learner.classifier(), asked, library, route="bridged") as craft:
            for start in range(0, len(whose), 256):
                part = whose[start : start + 256]
                x[part] = craft(training.x[part], classes[part], int(rng.integers(2**31)))
    return replace(training, x=x, past=past, stage="adversarial")


def _pgd(
    learner: Learner,
    x: Images,
    y: Labels,
    rng: np.random.Generator,
    eps: float,
    eps_step: float,
    steps: int,
    norm: str,
    random_start: bool,
) -> Images:
    """Images (N, C, H, W) of the box within ``eps`` of x, where PGD has made the cross-entropy large."""
    if random_start and norm == "linf":
        moved = x + rng.uniform(-eps, eps, x.shape).astype(np.float32)
    elif random_start:
        moved = x + eps * rng.random((len(x), 1, 1, 1), np.float32) * _unit(rng.standard_normal(x.shape, np.float32))
    else:
        moved = x
    moved = moved.clip(0, 1)
    for _ in range(steps):
        gradient = learner.gradient(moved, y)
        if norm == "linf":
            moved = (moved + np.float32(eps_step) * np.sign(gradient)).clip(x - np.float32(eps), x + np.float32(eps))
        else:
            change = moved + np.float32(eps_step) * _unit(gradient) - x
            length = np.sqrt(np.square(change).sum((1, 2, 3), keepdims=True))
            moved = x + change * np.minimum(1, eps / np.maximum(length, 1e-12)).astype(np.float32)
        moved = moved.clip(0, 1)
    return moved


def _unit(x: Images) -> Images:
    length = np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True))
    unit: Images = x / np.maximum(length, np.float32(1e-12))
    return unit


# --- small things ---------------------------------------------------------------------------------------------------


def _classes(targets: Targets) -> Labels:
    """The class of each image: of soft targets the most probable."""
    classes: Labels = (targets if targets.ndim == 1 else targets.argmax(axis=1)).astype(np.int64)
    return classes


def _seen_at(training: Training, temperature: float) -> Training:
    """Every stage of a training with its logits divided by ``temperature``, as a teacher."""
    first = None if training.first is None else _seen_at(training.first, temperature)
    spec = training.spec.model_copy(update={"seed": training.spec.seed + TEACHER})
    stage = f"teacher, {training.stage}" if training.stage else "teacher"
    return replace(training, first=first, temperature=temperature, spec=spec, stage=stage)


def _decaying(std: float, decay: float) -> Callable[[int], float]:
    return lambda epoch: std * (1 - decay) ** epoch
