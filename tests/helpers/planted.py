"""Libraries with one defect each: copies of the referee's and of the three libraries' own code with a line changed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from models_for_tests import labels
from torch import nn

from sparring.adapters.attacks.library import Library
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.libraries.referee import attacks as referee

BIM: dict[str, Any] = {"eps": 0.1, "steps": 6, "eps_step": 0.03}
PGD: dict[str, Any] = {**BIM, "random_start": False}
L2: dict[str, Any] = {"eps": 1.0, "eps_step": 0.3, "steps": 6, "random_start": False}
DEEPFOOL: dict[str, Any] = {"steps": 10}
CW: dict[str, Any] = {"steps": 12, "search_steps": 2, "learning_rate": 0.05}
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("fgsm", "linf"): {"eps": 0.1},
    ("bim", "linf"): BIM,
    ("pgd", "linf"): PGD,
    ("pgd", "l2"): L2,
    ("mi-fgsm", "linf"): {"eps": 0.1, "steps": 6},
    ("ni-fgsm", "linf"): {"eps": 0.1, "steps": 6},
    ("deepfool", "l2"): DEEPFOOL,
    ("cw", "l2"): CW,
}


@dataclass(frozen=True)
class Planted:
    """A defect: the suspect that it is, the attack, and what is changed in whose source."""

    suspect: str
    attack: str
    norm: str
    changes: tuple[tuple[str, str], ...]
    library: str = "referee"
    module: str = ""
    cls: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.attack} {self.norm}: {self.suspect}: {self.changes[0][1].strip()[:40]}"

    def defective(self) -> Library:
        """The library with the defect, under another name."""
        if self.library == "referee":
            return _of_the_referee(self.changes)
        return _of_a_library(self.library, self.module, self.cls, self.changes)

    @property
    def params(self) -> dict[str, Any]:
        return SETTINGS[self.attack, self.norm]


def _changed(source: str, changes: tuple[tuple[str, str], ...]) -> str:
    for before, after in changes:
        assert before in source, f"the source no longer has {before!r}"
        source = source.replace(before, after)
    return source


def _of_the_referee(changes: tuple[tuple[str, str], ...]) -> Library:
    names: dict[str, Any] = {"__name__": "referee_with_a_defect"}
    exec(compile(_changed(inspect.getsource(referee), changes), "a defect in the referee", "exec"), names)
    return replace(names["LIBRARY"], name="defective")


PUBLIC = {"torchattacks": "torchattacks", "foolbox": "foolbox.attacks", "art": "art.attacks.evasion"}


def _of_a_library(library: str, module: str, cls: str, changes: tuple[tuple[str, str], ...]) -> Library:
    """A session in which the library's own class is replaced by the changed one."""
    whole = import_module(f"sparring.adapters.libraries.{library}.bridge").LIBRARY
    names: dict[str, Any] = {"__name__": f"{module}_with_a_defect", "__package__": module.rpartition(".")[0]}
    exec(compile(_changed(inspect.getsource(import_module(module)), changes), "a defect", "exec"), names)

    @contextmanager
    def session(classifier: Any, route: Any, counter: Any) -> Iterator[Any]:
        with whole.session(classifier, route, counter) as run:

            def with_the_defect(call: Any) -> Any:
                public = import_module(PUBLIC[library])
                before = getattr(public, cls)
                setattr(public, cls, names[cls])
                try:
                    return run(call)
                finally:
                    setattr(public, cls, before)

            yield with_the_defect

    return replace(whole, name="defective", session=session)


_STEP = 'x_adv = x_adv + eps_step * (np.sign(gradient) if norm == "linf" else unit(gradient))'
_BACK = "        x_adv = box(ball(x_adv, x, norm, eps))\n    return x_adv\n"
_LOOP = "    x_adv = start\n    for _ in range(steps):\n"


def _in_pgd(suspect: str, *changes: tuple[str, str], norm: str = "linf") -> Planted:
    return Planted(suspect, "pgd", norm, changes)


OF_THE_REFEREE = (
    _in_pgd("start", (_LOOP, _LOOP.replace("= start", "= box(start + 0.4 * eps_step)"))),
    _in_pgd("step", (_STEP, _STEP.replace("eps_step *", "1.1 * eps_step *"))),
    _in_pgd("number of steps", (_LOOP, _LOOP.replace("(steps)", "(steps - 1)"))),
    _in_pgd("projection order", (_BACK, _BACK.replace("box(ball(x_adv, ", "ball(box(x_adv), ").replace("))", ")")), norm="l2"),
    _in_pgd("projection order", (_BACK, _BACK.replace("box(ball(x_adv, x, norm, eps))", "box(x_adv)"))),
    _in_pgd("box clip", (_BACK, _BACK.replace("box(ball(x_adv, x, norm, eps))", "ball(x_adv, x, norm, eps)"))),
    _in_pgd("label source", (_LOOP, "    y = logits(model, x).argmax(axis=1)\n" + _LOOP)),
    _in_pgd("sign of zero", (_STEP, _STEP.replace("np.sign(gradient)", "np.where(gradient >= 0, 1.0, -1.0)"))),
    _in_pgd(
        "early stop",
        (_STEP, "on = (logits(model, x_adv).argmax(axis=1) == y).reshape(-1, 1, 1, 1)\n"
                "        x_adv = x_adv + on * eps_step * (np.sign(gradient) if norm == \"linf\" else unit(gradient))"),
    ),
    _in_pgd(
        "best against last iterate",
        (_LOOP, "    ends = [start]\n" + _LOOP),
        (_BACK, _BACK.replace("    return x_adv", "        ends.append(x_adv)\n    return lowest_margin(model, ends, y, targeted)")),
    ),
    _in_pgd("batch size", (_STEP, _STEP.replace("unit(gradient)", "gradient / lengths(gradient).max()")), norm="l2"),
    _in_pgd("dtype", (_BACK, _BACK.replace("eps))\n", "eps)).astype(np.float16).astype(float)\n"))),
    Planted("dtype", "bim", "linf", (("        x_adv = box(ball(x_adv, x, \"linf\", eps))\n    return x_adv", "        x_adv = box(ball(x_adv, x, \"linf\", eps))\n    return np.round(255 * x_adv) / 255"),)),
    Planted("step", "fgsm", "linf", (("box(x + eps *", "box(x + 0.9 * eps *"),)),
    Planted("step", "ni-fgsm", "linf", (("eps_step * np.sign(g)", "1.2 * eps_step * np.sign(g)"),)),
    Planted("momentum", "mi-fgsm", "linf", (("g = decay * g + unit(", "g = 0.5 * decay * g + unit("),)),
    Planted("overshoot", "deepfool", "l2", (("(1 + overshoot)", "1.05"),)),
    Planted("box clip", "deepfool", "l2", (("x_i[on] = box(", "x_i[on] = ("), ("return box(x + (1", "return (x + (1"))),
    Planted("loss reduction", "cw", "l2", (("gradient = 2 * (x_t - x[on]) +", "gradient = 2 * (x_t - x[on]) / x[0].size +"),)),
    Planted("best against last iterate", "cw", "l2", (("better = (margin < -confidence) & (distance < nearest[on])", "better = margin < -confidence"),)),
    Planted("step", "cw", "l2", (("learning_rate * (m /", "1.1 * learning_rate * (m /"),)),
)  # fmt: skip
"""At least one for each of the thirteen suspects."""

_TA = "torchattacks.attacks."
OF_THE_LIBRARIES = (
    Planted("step", "pgd", "linf", (("self.alpha * grad", "1.1 * self.alpha * grad"),), "torchattacks", _TA + "pgd", "PGD"),
    Planted("sign of zero", "pgd", "linf", (("grad.sign()", "torch.where(grad >= 0, 1.0, -1.0)"),), "torchattacks", _TA + "pgd", "PGD"),
    Planted("box clip", "bim", "linf", (("torch.clamp(c, max=1)", "c"), ("torch.clamp(ori_images - self.eps, min=0)", "ori_images - self.eps")), "torchattacks", _TA + "bim", "BIM"),
    Planted("batch size", "pgd", "l2", (("torch.norm(grad.view(batch_size, -1), p=2, dim=1)", "torch.norm(grad).repeat(batch_size)"),), "torchattacks", _TA + "pgdl2", "PGDL2"),
    Planted("dtype", "pgd", "l2", (("torch.clamp(images + delta, min=0, max=1)", "torch.clamp(images + delta, min=0, max=1).half().float()"),), "torchattacks", _TA + "pgdl2", "PGDL2"),
    Planted("number of steps", "ni-fgsm", "linf", (("range(self.steps)", "range(self.steps - 1)"),), "torchattacks", _TA + "nifgsm", "NIFGSM"),
    Planted("overshoot", "deepfool", "l2", (("(1 + self.overshoot)", "1.05"),), "torchattacks", _TA + "deepfool", "DeepFool"),
    Planted("best against last iterate", "cw", "l2", (("return best_adv_images", "return adv_images.detach()"),), "torchattacks", _TA + "cw", "CW"),
    Planted("overshoot", "deepfool", "l2", (("1.0 + self.overshoot", "1.1"),), "foolbox", "foolbox.attacks.deepfool", "L2DeepFoolAttack"),
    Planted("step", "cw", "l2", (("(delta, self.stepsize)", "(delta, self.stepsize * 0.5)"),), "foolbox", "foolbox.attacks.carlini_wagner", "L2CarliniWagnerAttack"),
    Planted("dtype", "deepfool", "l2", (("return x_adv", "return np.round(x_adv * 255).astype(np.float32) / 255"),), "art", "art.attacks.evasion.deepfool", "DeepFool"),
    Planted("best against last iterate", "cw", "l2", (("= best_x_adv_batch\n", "= x_adv_batch\n"),), "art", "art.attacks.evasion.carlini", "CarliniL2Method"),
)  # fmt: skip

_DEEP = ("foolbox", "foolbox.attacks.deepfool", "L2DeepFoolAttack")
_ART = "art.attacks.evasion.deepfool"
_CW = ("foolbox", "foolbox.attacks.carlini_wagner", "L2CarliniWagnerAttack")
OF_THE_END = (
    (Planted("early stop", "deepfool", "l2", (("atleast_kd(is_adv, x.ndim), x, x0", "atleast_kd(is_adv != is_adv, x.ndim), x, x0"),), *_DEEP), {"steps": 8}),
    (Planted("number of steps", "deepfool", "l2", (("range(self.steps)", "range(self.steps - 1)"),), *_DEEP), {"steps": 3}),
    (Planted("overshoot", "deepfool", "l2", (("(1 + self.epsilon) *", ""),), "art", _ART, "DeepFool"), {"steps": 8}),
    (Planted("early stop", "deepfool", "l2", (("if pre != label:", "if pre < 0:"),), "torchattacks", _TA + "deepfool", "DeepFool"), {"steps": 8}),
    (Planted("number of steps", "cw", "l2", (("range(self.steps)", "range(self.steps - 1)"),), "torchattacks", _TA + "cw", "CW"), {"steps": 3, "search_steps": 1, "learning_rate": 0.1, "initial_const": 20.0}),
    (Planted("best against last iterate", "cw", "l2", (("closer = norms < best_advs_norms", "closer = norms < ep.inf"),), *_CW), {"steps": 10, "search_steps": 2, "learning_rate": 0.05, "initial_const": 5.0}),
)  # fmt: skip
"""DeepFool and CW with defects after which both libraries visit the same points, as far as the shorter one goes."""


class Masked(nn.Module):
    """Some pixels never reach the network: their gradient is exactly zero."""

    def __init__(self, keep: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.keep


def _classifier(net: nn.Module, shape: tuple[int, int, int]) -> TorchClassifier:
    keep = torch.ones(shape)
    keep[:, 3, 2:5] = 0
    return TorchClassifier(nn.Sequential(Masked(keep), net), input_shape=shape, device="cpu")


@lru_cache
def convolutional() -> TorchClassifier:
    """One channel."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10))
    return _classifier(_centred(net, (1, 8, 8), 5), (1, 8, 8))


@lru_cache
def normalised(scale: float = 1.0) -> TorchClassifier:
    """Three channels, batch norm and average pooling; ``scale`` 40 saturates its logits."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 7))
    net.train()
    with torch.no_grad():
        for _ in range(10):
            net(torch.rand(32, 3, 8, 8))
    return _classifier(_centred(net.eval(), (3, 8, 8), 20 * scale), (3, 8, 8))


@lru_cache
def tied() -> TorchClassifier:
    """Two of its classes always have the same logit."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 6))
    with torch.no_grad():
        net[-1].weight *= 5  # type: ignore[operator]
        net[-1].weight[3], net[-1].bias[3] = net[-1].weight[2], net[-1].bias[2]  # type: ignore[index, operator]
    return _classifier(net, (1, 8, 8))


def _centred(net: nn.Sequential, shape: tuple[int, int, int], scale: float) -> nn.Sequential:
    """Boundaries near the images: every class is as likely as another."""
    with torch.no_grad():
        net[-1].weight *= scale  # type: ignore[operator]
        net[-1].bias.zero_()  # type: ignore[operator]
        net[-1].bias.copy_(-net(torch.rand(256, *shape)).mean(0))  # type: ignore[operator]
    return net


def data(classifier: Any, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Images over the whole box, its border too; the label of one is not what the model says."""
    x = np.random.default_rng(3).uniform(0, 1, (n, *classifier.input_shape)).astype(np.float32)
    x[:, :, :2], x[:, :, 6:] = 0, 1
    y = labels(classifier, x)
    y[1] = (y[1] + 1) % classifier.classes
    return x, y


@lru_cache
def recurrent() -> Any:
    """A Keras network that reads an image row by row."""
    import keras

    from sparring.adapters.frameworks.keras import keras_classifier

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Reshape((8, 8)),
            layers.LSTM(16),
            layers.Dense(6, kernel_initializer=keras.initializers.RandomNormal(stddev=3.0)),
        ]
    )
    return keras_classifier(network)
