"""torchattacks: its names of the attacks, and how it runs them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import (
    AttackMapping,
    Call,
    Library,
    RawAttack,
    Route,
    Run,
    To,
    Unsupported,
    blaming,
    maps,
)
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.libraries.torchattacks.reconcile_autoattack import RECONCILIATIONS as AUTOATTACK
from sparring.adapters.libraries.torchattacks.reconcile_gradient import RECONCILIATIONS as GRADIENT
from sparring.adapters.libraries.torchattacks.reconcile_search import RECONCILIATIONS as SEARCH
from sparring.adapters.protocol import Classifier, Counter, Images, TorchNative, counted

ONE_START = Unsupported("it has one start only", unless=lambda value, context: value == 1)
ALL_CLASSES = Unsupported("it considers all classes", unless=lambda value, context: value >= context.classes)

MOMENTUM: dict[str, Any] = {"eps": "eps", "steps": "steps", "eps_step": "alpha", "decay": "decay"}


def _square(norm: str) -> AttackMapping:
    return maps(
        "Square",
        eps="eps",
        queries="n_queries",
        p_init="p_init",
        restarts="n_restarts",
        pinned={
            "norm": norm,
            "loss": lambda c: "ce" if c.targeted else "margin",  # section 3.1
            "resc_schedule": True,  # the source's schedule is made for 10,000 queries and rescaled to fewer
            "seed": lambda c: c.seed,
            "verbose": False,
        },
    )


def _apgd(norm: str) -> AttackMapping:
    return maps(
        "APGD",
        eps="eps",
        steps="steps",
        restarts="n_restarts",
        loss="loss",
        rho="rho",
        pinned={"norm": norm, "seed": lambda c: c.seed, "eot_iter": 1, "verbose": False},
        targeted=Unsupported("its APGD has no targeted version"),
    )


def _autoattack(norm: str) -> AttackMapping:
    return maps(
        "AutoAttack",
        eps="eps",
        steps="steps",
        queries="n_queries",
        targets=To("n_classes", lambda value, c: min(value, c.classes - 1) + 1),  # it aims at one class fewer
        pinned={"norm": norm, "version": "standard", "seed": lambda c: c.seed, "verbose": False},
        targeted=Unsupported("its AutoAttack has no targeted version"),
    )


NO_MIXTURE = Unsupported("torchattacks mixes its own attacks only: sparring's worst-of takes any library's")

ATTACKS: dict[tuple[str, str], AttackMapping | Unsupported] = {
    ("fgsm", "linf"): maps("FGSM", eps="eps"),
    ("bim", "linf"): maps("BIM", eps="eps", steps="steps", eps_step="alpha"),
    ("pgd", "linf"): maps(
        "PGD", eps="eps", steps="steps", eps_step="alpha", random_start="random_start", restarts=ONE_START
    ),
    ("pgd", "l2"): maps(
        "PGDL2",
        eps="eps",
        steps="steps",
        eps_step="alpha",
        random_start="random_start",
        restarts=ONE_START,
        pinned={"eps_for_division": 1e-10},
    ),
    ("mi-fgsm", "linf"): maps("MIFGSM", **MOMENTUM),
    ("ni-fgsm", "linf"): maps("NIFGSM", **MOMENTUM),
    ("si-ni-fgsm", "linf"): maps("SINIFGSM", **MOMENTUM, scales="m"),
    ("vmi-fgsm", "linf"): maps("VMIFGSM", **MOMENTUM, samples="N", beta="beta"),
    ("vni-fgsm", "linf"): maps("VNIFGSM", **MOMENTUM, samples="N", beta="beta"),
    ("deepfool", "l2"): maps(
        "DeepFool",
        steps="steps",
        overshoot="overshoot",
        candidates=ALL_CLASSES,
        targeted=Unsupported("its DeepFool has no targeted version"),
        note="overshoots each step by itself, not their sum: its images end on the boundary, to within rounding",
    ),
    ("cw", "l2"): maps(
        "CW",
        steps="steps",
        learning_rate="lr",
        confidence="kappa",
        initial_const="c",
        search_steps=Unsupported(
            "it does not search for c, which stays at initial_const", unless=lambda value, context: value == 1
        ),
        abort_early=Unsupported(
            "it always ends when the whole batch's loss no longer falls", unless=lambda value, context: value
        ),
        note="pixels at exactly 0 or 1 never move; gets its logits raised above 0, where alone its margin is right",
    ),
    ("jsma", "l0"): maps("JSMA", theta="theta", gamma="gamma"),
    ("square", "linf"): _square("Linf"),
    ("square", "l2"): _square("L2"),
    ("apgd", "linf"): _apgd("Linf"),
    ("apgd", "l2"): _apgd("L2"),
    ("autoattack", "linf"): _autoattack("Linf"),
    ("autoattack", "l2"): _autoattack("L2"),
    ("worst-of", "linf"): NO_MIXTURE,
    ("worst-of", "l2"): NO_MIXTURE,
    ("pixle", "l0"): maps(
        "Pixle",
        x_dimensions="x_dimensions",
        y_dimensions="y_dimensions",
        pixel_mapping="pixel_mapping",
        restarts="restarts",
        iterations="max_iterations",
        update_each_iteration="update_each_iteration",
    ),
    ("one-pixel", "l0"): maps(
        "OnePixel", pixels="pixels", steps="steps", population="popsize", pinned={"inf_batch": 128}
    ),
    ("hopskipjump", "l2"): Unsupported("torchattacks has no HopSkipJump"),
    ("hopskipjump", "linf"): Unsupported("torchattacks has no HopSkipJump"),
    ("boundary", "l2"): Unsupported("torchattacks has no boundary attack"),
    ("salt-and-pepper", "l2"): Unsupported("torchattacks has no salt-and-pepper noise"),
    ("pixel-swap", "l0"): Unsupported("torchattacks has no pixel swap"),
    ("patch", "l0"): Unsupported("torchattacks has no adversarial patches"),
    ("none", "linf"): Unsupported("torchattacks has no attack that changes nothing: it is sparring's own"),
    ("uniform-noise", "linf"): Unsupported("torchattacks has no uniform noise"),
    ("gaussian-noise", "l2"): Unsupported("torchattacks' GN has a standard deviation, not a length"),
}

NEEDS: dict[str, Any] = {
    "VANILA": "nothing",
    "GN": "nothing",
    "Square": "logits",
    "SPSA": "logits",
    "Pixle": "logits",
    "OnePixel": "logits",
}
"""Needs that a class doesn't say. All others need gradients."""

OF_THE_STAGES = {"AutoAttack": ("steps", "n_queries")}
"""Parameters that the attacks within an attack have, and its constructor doesn't take (10 steps would be few)."""
OF_LOGITS = {"APGDT": 4, "AutoAttack": 4}
"""The number of logits that the loss of an attack needs."""

UNSUPPORTED = {
    "MultiAttack": "it combines attacks that are already built: name them one by one",
    "LGV": "it trains: it needs a data loader and the model's weights",
}


@contextmanager
def session(
    classifier: Classifier, route: Route, counter: Counter, versions: Mapping[str, type] = MappingProxyType({})
) -> Iterator[Run]:
    """torchattacks on the classifier's own module, or on a ``TorchView`` of it.

    ``versions``: class names -> classes to run in place of torchattacks' own of that name.
    """
    guard()
    import torch
    import torchattacks

    def run(call: Call) -> Images:
        if not len(call.x):
            return call.x.copy()
        with blaming("torchattacks", call.target):
            needs_positive = call.canonical is not None and call.target == "CW"
            attack_class = versions.get(call.target) or getattr(torchattacks, call.target)
            attack = _build(attack_class, _positive(module) if needs_positive else module, call, classifier.classes)
            device = next(module.parameters()).device
            x, labels = torch.from_numpy(call.x).to(device), torch.from_numpy(call.labels).to(device)
            parts = [(x[i : i + 1], labels[i : i + 1]) for i in range(len(x))] if _singly(call) else [(x, labels)]
            results = torch.cat([attack(*part) for part in parts])
        return np.asarray(results.detach().cpu().numpy(), np.float32)

    if route == "bridged":
        from sparring.adapters.frameworks.torch_view import TorchView

        module: Any = TorchView(counted(classifier, counter))
        yield run
    elif isinstance(classifier, TorchNative):
        with classifier.torch_module(counter) as module:
            yield run
    else:
        raise NotSupported(f"torchattacks has no native route to a {type(classifier).__name__}: it speaks torch")


def _singly(call: Call) -> bool:
    # Pixle's other mode asserts that it gets one image
    return call.singly or (call.target == "Pixle" and bool(call.kwargs.get("update_each_iteration")))


def _positive(module: Any) -> Any:
    """The same classifier with logits of 1 and more: CW takes 0 for the largest of negative logits."""
    from torch import nn

    class Positive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            logits = self.module(x)
            return logits - logits.amin(dim=1, keepdim=True).detach() + 1

    return Positive().eval()


def _build(cls: Any, module: Any, call: Call, classes: int) -> Any:
    kwargs = dict(call.kwargs)
    of_the_stages = {
        keyword: kwargs.pop(keyword) for keyword in OF_THE_STAGES.get(call.target, ()) if keyword in kwargs
    }
    if "n_classes" in inspect.signature(cls.__init__).parameters:
        kwargs.setdefault("n_classes", classes)  # its default is 10, whatever the model
    if classes < OF_LOGITS.get(call.target, 0) or (kwargs.get("loss") == "dlr" and classes < 3):
        raise NotSupported(f"torchattacks' {call.target}: its loss (DLR) needs more logits than {classes} classes have")
    attack = cls(module, **kwargs)
    for keyword, value in of_the_stages.items():
        for stage in attack._autoattack.attacks:
            if hasattr(stage, keyword):
                setattr(stage, keyword, value)
    if call.targeted:
        if "targeted" not in attack.supported_mode:
            raise NotSupported(f"torchattacks' {call.target} has no targeted version")
        attack.set_mode_targeted_by_label(quiet=True)
    return attack


@lru_cache(maxsize=1)
def raw() -> Mapping[str, RawAttack]:
    """Every attack class of the installed torchattacks."""
    guard()
    import torchattacks

    return {name: _raw(name, getattr(torchattacks, name)) for name in torchattacks.__all__}


def _raw(name: str, cls: type) -> RawAttack:
    return RawAttack(
        name=name,
        needs=NEEDS.get(name, "gradients"),
        signature=inspect.signature(cls),
        unsupported=UNSUPPORTED.get(name),
        targeted='"targeted"' in inspect.getsource(cls),
        call_keywords=OF_THE_STAGES.get(name, ()),
    )


LIBRARY = Library(
    name="torchattacks",
    package="torchattacks",
    requires="torchattacks>=3.5.1",
    attacks=ATTACKS,
    session=session,
    raw=raw,
    native=frozenset({"torch", "keras-torch"}),
    reconciliations={**GRADIENT, **SEARCH, **AUTOATTACK},
)
