"""A checked request for an attack, and whether it can run on a library and a framework. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparring.adapters.attacks import catalogue as attacks
from sparring.adapters.attacks.catalogue import Attack
from sparring.adapters.attacks.library import Library, RawAttack, Unsupported, library_names, load_library
from sparring.adapters.errors import InputError, unknown
from sparring.adapters.parameters import Params


@dataclass(frozen=True)
class Request:
    """One attack with checked parameters: canonical under a norm, or a library's own class (``norm`` is None).

    ``params`` are all canonical parameters, or just the library's keyword arguments that the user gave.
    """

    name: str
    norm: str | None
    params: Params
    targeted: bool
    canonical: Attack | None
    raw_library: str | None = None

    @property
    def aims(self) -> bool:
        """Whether the labels that a library gets are classes to reach."""
        return self.targeted or (self.canonical is not None and self.canonical.aims)

    @property
    def eps(self) -> float | None:
        """The budget, where there is one."""
        eps = self.params.get("eps")
        return float(eps) if isinstance(eps, int | float) and not isinstance(eps, bool) else None


def request(
    name: str, *, norm: str | None = None, targeted: bool = False, params: Mapping[str, Any] | None = None
) -> Request:
    """Check an attack's name, norm and parameters. Raises ``InputError`` with what is wrong and what is valid."""
    keywords = dict(params or {})
    if ":" not in name:
        canonical = attacks.find(name, norm)
        resolved = canonical.resolve(keywords)
        if canonical.name == "worst-of":
            # every parameter of every part is part of the request, as those of one attack are
            resolved["attacks"] = [as_mapping(part, library) for part, library in parts(canonical.norm, resolved)]
        return Request(name, canonical.norm, resolved, targeted, canonical)
    library_name, _, class_name = name.partition(":")
    if library_name not in library_names():
        raise InputError(unknown("library", library_name, library_names()))
    raw = raw_attack(load_library(library_name), class_name)
    _check_keywords(name, raw, keywords)
    return Request(name, norm, keywords, targeted, None, library_name)


def parts(norm: str, params: Mapping[str, Any]) -> list[tuple[Request, str]]:
    """The attacks of a ``worst-of``, each checked and with its library's name. Raises ``InputError``.

    ``params`` are those of the ``worst-of``. A part of the same norm inherits norm and eps. A part under another norm,
    or a library's own class, has its own; its images are later brought into the budget.
    """
    requests = []
    if not params["attacks"]:
        raise InputError("worst-of: attacks is an empty list: name two attacks or more")
    for index, part in enumerate(params["attacks"]):
        place = f"worst-of: attacks[{index}]"
        if not isinstance(part, Mapping) or "attack" not in part:
            raise InputError(f"{place}: {part!r} is not a mapping {{attack: ..., library: ..., parameters}}")
        keywords = dict(part)
        name, library = str(keywords.pop("attack")), keywords.pop("library", None)
        try:
            attack = _part(name, norm, params["eps"], keywords)
            library = library or attack.raw_library
            if library is None:
                raise InputError(f"{name} needs a library: library: one of {', '.join(library_names())}")
            load_library(library)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        requests.append((attack, str(library)))
    return requests


def _part(name: str, norm: str, eps: float, keywords: dict[str, Any]) -> Request:
    if ":" in name:
        return request(name, params=keywords)
    canonical = attacks.find(name, keywords.pop("norm", norm))
    if canonical.fits:
        raise InputError(f"{name} is trained on other images first, and no part of a worst-of")
    if canonical.norm == norm and "eps" in canonical.parameters:
        keywords.setdefault("eps", eps)
    return request(name, norm=canonical.norm, params=keywords)


def as_mapping(request: Request, library: str) -> dict[str, Any]:
    """The mapping from which ``parts`` makes this attack again."""
    norm = {} if request.canonical is None else {"norm": request.norm}
    return {"attack": request.name, "library": library, **norm, **request.params}


def raw_attack(library: Library, class_name: str) -> RawAttack:
    """The attack class of that name. Raises ``InputError`` with the nearest names."""
    classes = library.raw()
    if class_name not in classes:
        raise InputError(unknown(f"attack class of {library.name}", class_name, classes))
    return classes[class_name]


def _check_keywords(name: str, raw: RawAttack, keywords: Mapping[str, Any]) -> None:
    valid = [key for key in raw.signature.parameters if key not in ("self", "model", "classifier", "estimator")]
    valid += list(raw.call_keywords)
    for key in keywords:
        if key not in valid:
            raise InputError(f"{name}: {unknown('parameter', key, valid)}")
    for key, parameter in raw.signature.parameters.items():
        if key in valid and key not in keywords and parameter.default is parameter.empty and parameter.kind in (1, 3):
            raise InputError(f"{name} needs a value for {key}")


def why_not(library: Library, request: Request, framework: str, lacks: Mapping[str, str] | None = None) -> str | None:
    """Why this library can't run this attack on a model of this framework; None when it can.

    ``lacks`` says which of ``gradients`` and ``logits`` the model lacks, and why.
    """
    if request.canonical is None:
        if request.raw_library != library.name:
            return f"{request.name} is a class of {request.raw_library}"
        raw = raw_attack(library, request.name.partition(":")[2])
        if raw.unsupported:
            return raw.unsupported
        if request.targeted and not raw.targeted:
            return f"{library.name}'s {raw.name} has no targeted version"
        if framework not in raw.runs_on:
            return f"{library.name}'s {raw.name} runs on {', '.join(raw.runs_on)} only"
        needs = raw.needs
    else:
        mapping = library.find(request.canonical)
        if isinstance(mapping, Unsupported):
            return mapping.reason
        if request.targeted and mapping.targeted is not None:
            return mapping.targeted.reason
        needs = request.canonical.needs
    # a model without logits has no gradients either, and its reason for that says more
    lacking = (lacks or {}).get(needs)
    return f"{request.name} {lacking}" if lacking else None
