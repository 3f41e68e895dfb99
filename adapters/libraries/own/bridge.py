"""sparring's own attacks on the protocol: those that studies used and no library has.

They are attacks to run; the referee's are there to be compared with the libraries'.
"""

from __future__ import annotations

from sparring.adapters.attacks.catalogue import ATTACKS as CANONICAL
from sparring.adapters.attacks.library import AttackMapping, Unsupported, load_library, maps
from sparring.adapters.attacks.request import Request, parts
from sparring.adapters.libraries.functions import Function, function_library
from sparring.adapters.libraries.own.autoattack import autoattack
from sparring.adapters.libraries.own.jsma import jsma
from sparring.adapters.libraries.own.patch import patch
from sparring.adapters.libraries.own.patch import session as patch_session
from sparring.adapters.libraries.own.pixel_swap import pixel_swap
from sparring.adapters.libraries.own.worst_of import worst_of
from sparring.adapters.protocol import Classifier, Images, Labels


def unchanged(classifier: Classifier, x: Images, y: Labels, *, targeted: bool) -> Images:
    """A control: the images (N, C, H, W) clipped to [0, 1], where they lie anyway.

    With images that are normalized first (``wrappers/units.py``) it shows what clipping alone changes.
    """
    return x.clip(0, 1)


FUNCTIONS: dict[str, Function] = {
    "jsma": jsma,
    "unchanged": unchanged,
    "pixel_swap": pixel_swap,
    "patch": patch,
    "autoattack": autoattack,
    "worst_of": worst_of,
}


def _ensemble(name: str, function: str, norm: str) -> AttackMapping:
    return AttackMapping(
        function,
        {parameter: parameter for parameter in CANONICAL[name, norm].parameters},
        pinned={"norm": norm, "part_seed": lambda c: c.seed},
        targeted=Unsupported("its parts leave the label: there is no targeted version"),
    )


MAPPINGS: dict[tuple[str, str], AttackMapping] = {
    ("none", "linf"): maps("unchanged"),
    ("jsma", "l0"): maps(
        "jsma",
        theta="theta",
        gamma="gamma",
        pinned={"outputs": "probabilities", "pairs": 3},
        note="derivatives of the probabilities, up to three pairs a turn (sparring:jsma has the source's, too)",
    ),
    ("pixel-swap", "l0"): maps("pixel_swap", steps="steps"),
    ("patch", "l0"): AttackMapping("patch", {name: name for name in CANONICAL["patch", "l0"].parameters}),
    **{("autoattack", norm): _ensemble("autoattack", "autoattack", norm) for norm in ("linf", "l2")},
    **{("worst-of", norm): _ensemble("worst-of", "worst_of", norm) for norm in ("linf", "l2")},
}


def packages(request: Request) -> tuple[str, ...]:
    """The packages beside sparring that one of these attacks computes with: those of the libraries of its parts."""
    if request.canonical is None or request.canonical.name not in ("autoattack", "worst-of"):
        return ()
    if request.canonical.name == "autoattack":
        return ("torchattacks",)
    names = []
    for part, library in parts(request.canonical.norm, request.params):
        names += [load_library(library).package, *(packages(part) if library == "sparring" else ())]
    return tuple(dict.fromkeys(name for name in names if name != "sparring"))


LIBRARY = function_library(
    "sparring",
    FUNCTIONS,
    MAPPINGS,
    why_missing=lambda attack: f"sparring has no {attack.name} of its own: take a library's",
    sessions={"patch": patch_session},
)
