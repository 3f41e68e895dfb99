"""The defenses that sparring ships, each with every parameter, its valid range, its default and its source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sparring.adapters.parameters import Parameter
from sparring.adapters.protocol import Classifier
from sparring.models.defenses.defense import Defense, called

Parameters = dict[str, Parameter]

EXACT = ("exact", "straight-through", "none")
ESTIMATED = ("straight-through", "none")
EXPECTED = ("expectation", "none")
HOW = {
    "exact": "the derivative",
    "straight-through": "as if nothing had been done to the image (BPDA)",
    "expectation": "the mean over draws (EOT)",
    "none": "not at all",
}


def gradients(choices: tuple[str, ...]) -> Parameters:
    """The parameter that says how gradients pass; the first is the default."""
    meanings = "; ".join(f"{one}: {HOW[one]}" for one in choices)
    return {"gradients": Parameter(str, f"how they pass to an aware attacker. {meanings}", choices[0], choices=choices)}


def draws(default: int = 10) -> Parameters:
    """The parameter of what an expectation is taken over."""
    return {"draws": Parameter(int, "draws that an aware attacker's gradient is the mean of", default, low=1)}


def _transforming(place: str, classifier: Classifier, *, seed: int, **params: Any) -> Classifier:
    from sparring.adapters.wrappers.transformed import defended

    how, count = params.pop("gradients"), params.pop("draws", 1)
    return defended(classifier, called(place)(**params), seed=seed, gradients=how, draws=count)


def _transform(
    name: str, description: str, source: str, parameters: Parameters, *, choices: tuple[str, ...]
) -> Defense:
    """A function of that name in ``adapters/wrappers/transforms.py`` or ``random_transforms.py`` changes the image."""
    module, random = ("random_transforms", True) if choices == EXPECTED else ("transforms", False)
    build: Callable[..., Any] = partial(_transforming, f"sparring.adapters.wrappers.{module}:{name.replace('-', '_')}")
    every = {**parameters, **gradients(choices), **(draws() if random else {})}
    return Defense(name, "wrapper", description, source, every, build, gradients=choices[0], random=random)


def _trains(name: str, description: str, source: str, parameters: Parameters) -> Defense:
    place = f"sparring.models.defenses.training:{name.replace('-', '_')}"
    check = "sparring.models.defenses.training:check" if "attack" in parameters else None
    return Defense(name, "training", description, source, parameters, place, check=check)


ROTATION = Parameter(float, "largest angle, degrees, either way", 15.0, low=0, high=180)
SHIFT = Parameter(float, "largest shift, share of the side, any way", 0.1, low=0, high=1)
ZOOM = Parameter(float, "largest change of the size, share of it, either way and each side apart", 0.2, low=0, high=0.9)
NOISE = Parameter(float, "standard deviation of the noise, in units of [0, 1]", 0.1, low=0, high=1)

WRAPPERS = (
    _transform(
        "bit-depth",
        "as many levels of brightness, evenly spread",
        "Xu, Evans, Qi 2018, Feature Squeezing, section 4.1; straight-through: Athalye et al. 2018, section 4.1",
        {"levels": Parameter(int, "levels of a channel: 32 is a depth of 5 bits", 32, low=2, high=256)},
        choices=ESTIMATED,
    ),
    _transform(
        "median-smoothing",
        "the median of a square around each pixel",
        "Xu, Evans, Qi 2018, Feature Squeezing, section 4.2 (local smoothing)",
        {
            "size": Parameter(
                int, "side of the square, pixels; of an even one the pixel is right of and below the middle", 2, low=1
            )
        },
        choices=EXACT,
    ),
    _transform(
        "mean-smoothing",
        "the mean of a square around each pixel",
        "Xu, Evans, Qi 2018, Feature Squeezing, section 4.2 (local smoothing), with a mean",
        {
            "size": Parameter(
                int, "side of the square, pixels; of an even one the pixel is right of and below the middle", 2, low=1
            )
        },
        choices=EXACT,
    ),
    _transform(
        "gaussian-blur",
        "a Gaussian filter",
        "scipy.ndimage.gaussian_filter; as a defense: Campbell, Lasselle (feature smoothing)",
        {"sigma": Parameter(float, "standard deviation of the filter, pixels", 1.0, above=0, high=100)},
        choices=EXACT,
    ),
    _transform(
        "jpeg",
        "JPEG there and back",
        "Dziugaite, Ghahramani, Roy 2016, A Study of the Effect of JPG Compression; Pillow; "
        "straight-through: Athalye et al. 2018, section 4.1",
        {"quality": Parameter(int, "Pillow's quality", 75, low=1, high=95)},
        choices=ESTIMATED,
    ),
    _transform(
        "total-variation",
        "pixels are dropped at random, and the image is found again that varies least",
        "Guo et al. 2018, Countering Adversarial Images Using Input Transformations, section 4.3, with the squared "
        "distance; solved as in Chambolle, Pock 2011, algorithm 1; straight-through: Athalye et al. 2018, section 5.4",
        {
            "weight": Parameter(float, "of the variation against half the squared distance", 0.03, above=0),
            "keep": Parameter(float, "share of the pixels that are kept", 0.5, above=0, high=1),
            "steps": Parameter(int, "steps of the solver", 50, low=1),
        },
        choices=EXPECTED,
    ),
    _transform(
        "random-resize-pad",
        "shrunk to a random size, and put at a random place on black",
        "Xie et al. 2018, Mitigating Adversarial Effects Through Randomization, section 3, shrinking where it "
        "enlarges, for the network's images keep their size",
        {"smallest": Parameter(float, "least side after shrinking, share of the side", 0.9, above=0, high=1)},
        choices=EXPECTED,
    ),
    _transform(
        "random-rotation",
        "rotated by a random angle",
        "Guliani (randomization); bilinear, edges repeated; expectation: Athalye et al. 2018, section 4.2",
        {"rotation": ROTATION},
        choices=EXPECTED,
    ),
    _transform(
        "random-shift",
        "shifted by a random part of a pixel, and of pixels",
        "Guliani (randomization); bilinear, edges repeated; expectation: Athalye et al. 2018, section 4.2",
        {"shift": SHIFT},
        choices=EXPECTED,
    ),
    _transform(
        "random-noise",
        "normal noise, cut off at the box",
        "Cohen, Rosenfeld, Kolter 2019, Certified Adversarial Robustness via Randomized Smoothing, one copy; "
        "expectation: Athalye et al. 2018, section 4.2",
        {"std": NOISE},
        choices=EXPECTED,
    ),
    _transform(
        "randomization",
        "rotated, shifted and zoomed at random at once, then noise",
        "Guliani (randomization); bilinear, edges repeated; expectation: Athalye et al. 2018, section 4.2",
        {
            "rotation": ROTATION,
            "shift": SHIFT,
            "zoom": ZOOM,
            "std": Parameter(float, NOISE.help, 0.0, low=0, high=1),
        },
        choices=EXPECTED,
    ),
    Defense(
        "gradient-noise",
        "wrapper",
        "the logits are as they are, but the derivative of each that an attacker gets has noise on it",
        "Campbell, Lasselle (gradient masking); expectation: Athalye et al. 2018, section 4.2",
        {
            "eps": Parameter(
                float, "standard deviation of the noise on the derivative of a logit by a pixel", 0.1, low=0
            ),
            **draws(),
        },
        "sparring.adapters.wrappers.gradient_noise:averaged",
        unaware="sparring.adapters.wrappers.gradient_noise:unaware",
        gradients="expectation",
        random=True,
    ),
)

EPS = Parameter(
    float,
    "largest change of a pixel, or length of the change (norm l2), in units of [0, 1]; .1 for fgsm (linf)",
    lambda p: 0.1 if p["attack"] == "fgsm" and p["norm"] in (None, "linf") and p["attacks"] is None else None,
    above=0,
)
STEPS = Parameter(int, "steps of the attack", None, low=1)
STEP = Parameter(float, "length of one of its steps", None, above=0)
ATTACK = Parameter(str, "a canonical attack, or library:ClassName", "fgsm")
LIBRARY = Parameter(str, "whose attack it is", "art")
NORM = Parameter(str, "of the attack; its first one when left out", None)
MORE = Parameter(dict, "any other parameters of the attack", None)
MIX = Parameter(
    list,
    "several attacks in place of one, each {attack: ..., library: ..., and its parameters}; "
    "one of them is drawn for each batch",
    None,
)
OF_AN_ATTACK = {
    "attack": ATTACK,
    "library": LIBRARY,
    "norm": NORM,
    "eps": EPS,
    "eps_step": STEP,
    "steps": STEPS,
    "params": MORE,
    "attacks": MIX,
}

TRAINING = (
    _trains(
        "adversarial-training",
        "a share of every batch is adversarial images, with the true labels",
        "Goodfellow, Shlens, Szegedy 2015, Explaining and Harnessing Adversarial Examples, section 6; "
        "ART's AdversarialTrainer (ratio)",
        {
            **OF_AN_ATTACK,
            "ratio": Parameter(float, "share of adversarial images", 0.5, above=0, high=1),
            "when": Parameter(
                str,
                "made of the network as it is, batch by batch, or once before the training",
                "batch",
                choices=("batch", "beforehand"),
            ),
            "epochs": Parameter(int, "so many epochs more, after the training without; 0: throughout it", 0, low=0),
        },
    ),
    _trains(
        "madry",
        "every batch is the images that PGD makes of it",
        "Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, section 2.1",
        {
            "eps": Parameter(float, EPS.help, 0.1, above=0),
            "eps_step": Parameter(float, STEP.help, lambda p: min(2.5 * p["eps"] / p["steps"], p["eps"]), above=0),
            "steps": Parameter(int, STEPS.help, 7, low=1),
            "norm": Parameter(str, "of the attack", "linf", choices=("linf", "l2")),
            "random_start": Parameter(bool, "start from a random point of the ball", True),
        },
    ),
    _trains(
        "adversarial-fine-tuning",
        "after the training, a few epochs on adversarial images, the learning rate rising slowly and falling fast",
        "Jeddi, Shafiee, Wong 2020, A Simple Fine-tuning Is All You Need, section 3",
        {
            **OF_AN_ATTACK,
            "samples": Parameter(int, "training images, drawn by the seed; all when left out", 500, low=1),
            "epochs": Parameter(int, "epochs of the fine-tuning", 1, low=1),
            "lr": Parameter(float, "highest learning rate; that of the training when left out", None, above=0),
            "schedule": Parameter(
                str, "of the learning rate", "slow-start-fast-decay", choices=("slow-start-fast-decay", "constant")
            ),
        },
    ),
    _trains(
        "distillation",
        "an equal network is trained on the probabilities of the first, both at a temperature, and used at 1",
        "Papernot et al. 2016, Distillation as a Defense to Adversarial Perturbations, section IV",
        {"temperature": Parameter(float, "divides the logits while training", 100.0, above=0)},
    ),
    _trains(
        "noisy-gradients",
        "normal noise on the gradients of the weights while training, less with every epoch",
        "Neelakantan et al. 2015, Adding Gradient Noise Improves Learning; decay by epoch: Guliani (gradient masking)",
        {
            "std": Parameter(float, "standard deviation of the noise in the first epoch", 0.1, low=0),
            "decay": Parameter(float, "share by which it shrinks with every epoch", 0.05, low=0, high=1),
        },
    ),
    _trains(
        "noisy-weights",
        "normal noise on the weights in every step of the training",
        "An 1996, The Effects of Adding Noise During Backpropagation Training, section 3; Guliani (randomization)",
        {
            "std": Parameter(float, "standard deviation of the noise in the first epoch", 0.01, low=0),
            "decay": Parameter(float, "share by which it shrinks with every epoch", 0.0, low=0, high=1),
        },
    ),
    _trains(
        "augmentation",
        "training images are rotated, shifted, zoomed and mirrored at random",
        "Keras' ImageDataGenerator; Guliani (randomization)",
        {
            "rotation": ROTATION,
            "shift": SHIFT,
            "zoom": ZOOM,
            "flip": Parameter(bool, "mirror half of the images, left to right", False),
        },
    ),
)

SHIPPED = (*WRAPPERS, *TRAINING)
