"""torchattacks: how its attacks are run on a classifier, natively or over the protocol."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import Call, Library, RawAttack, Route, Run, blaming
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.libraries.torchattacks.reconcile_autoattack import RECONCILIATIONS as AUTOATTACK
from sparring.adapters.libraries.torchattacks.reconcile_gradient import RECONCILIATIONS as GRADIENT
from sparring.adapters.libraries.torchattacks.reconcile_search import RECONCILIATIONS as SEARCH
from sparring.adapters.libraries.torchattacks.table import ATTACKS
from sparring.adapters.protocol import Classifier, Counter, Images, TorchNative, counted

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
