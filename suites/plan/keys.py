"""The keys of a suite below its own: attacks, variants, draws, transfer, published values; each a validated value."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from sparring.adapters.attacks import catalogue as attacks
from sparring.adapters.attacks.request import Request, request
from sparring.adapters.errors import InputError
from sparring.adapters.wrappers.units import Space
from sparring.models.spec import Spec

Attacker = Literal["unaware", "aware"]


class AttackSpec(Spec):
    """One attack with its parameters; a list of values makes a grid. ``library:ClassName`` takes ``params`` instead."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra=lambda schema: schema["properties"].update(_parameter_schema()),
    )

    attack: str = Field(description="a canonical name (`sparring list attacks`), or library:ClassName")
    norm: str | None = Field(None, description="linf, l2 or l0; the attack's first when absent")
    targeted: bool = Field(False, description="towards another class of each image, drawn by the seed")
    libraries: tuple[str, ...] | None = Field(None, description="only these, instead of the suite's")
    params: dict[str, Any] | None = Field(None, description="of library:ClassName: its own keyword arguments")
    data: tuple[str, ...] | None = Field(None, min_length=1, description="only on these data sets, instead of all")
    models: tuple[str, ...] | None = Field(None, min_length=1, description="only on these models, instead of all")
    attackers: tuple[Attacker, ...] | None = Field(None, min_length=1, description="instead of the suite's")
    variants: tuple[str, ...] | None = Field(None, min_length=1, description="only in these variants, instead of all")
    target: str | int | tuple[str | int, ...] | None = Field(
        None,
        description="the class, by name or number, that every image is to be taken for; a list makes a grid",
    )

    @property
    def targets(self) -> tuple[str | int | None, ...]:
        """The classes aimed at, each with rows of its own; (None,) where none is said."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters as written."""
        return {**(self.params or {}), **(self.model_extra or {})}

    def requests(self) -> tuple[Request, ...]:
        """One checked request for each point of the grid, in the order of the values. Raises ``InputError``."""
        grids = {key: self._values(key, value) for key, value in self.given.items()}
        return tuple(
            request(
                self.attack,
                norm=self.norm,
                targeted=self.targeted or self.target is not None,
                params=dict(zip(grids, point, strict=True)),
            )
            for point in product(*grids.values())
        )

    def _values(self, key: str, value: Any) -> list[Any]:
        if ":" in self.attack and key in (self.params or {}):
            return [value]  # a library's own argument may itself be a list
        if not isinstance(value, list):
            return [value]
        if not value:
            raise InputError(f"{self.attack}: {key} is an empty list")
        if ":" not in self.attack:
            known = attacks.find(self.attack, self.norm).parameters.get(key)
            if known is not None and known.type in (tuple, list) and not isinstance(value[0], list):
                return [value]
        return value


class VariantSpec(Spec):
    """A way of running the attacks: what they are shown of the model."""

    name: str = Field(min_length=1, description="what it is called in tables")
    space: Space = Field(
        "pixels",
        description="normalised: eps is in units of the standardised input; normalised-first: pictures are "
        "standardised before they are handed to libraries that clamp to [0, 1], as some scripts do",
    )
    temperature: float = Field(1.0, gt=0, description="the attacker divides the logits by it")
    libraries: tuple[str, ...] | None = Field(None, min_length=1, description="only these, of those an attack has")
    attacks: tuple[str, ...] | None = Field(None, min_length=1, description="only these, by name; all when absent")
    models: tuple[str, ...] | None = Field(None, min_length=1, description="only on these models, instead of all")
    data: tuple[str, ...] | None = Field(None, min_length=1, description="only on these data sets, instead of all")
    defenses: tuple[str, ...] | None = Field(
        None, min_length=1, description="only under these defenses, as tables call them (none: undefended)"
    )

    def takes(self, attack: AttackSpec) -> bool:
        """Whether that attack is run in this variant, on some model and by some library."""
        return self.name in (attack.variants or (self.name,)) and attack.attack in (self.attacks or (attack.attack,))


PLAIN = VariantSpec.model_construct(
    name="", space="pixels", temperature=1.0, libraries=None, attacks=None, models=None, data=None, defenses=None
)
"""The only variant of a suite that names none."""


class DrawsSpec(Spec):
    """Small samples out of the one that is attacked, to see how far a mean over so many images can be trusted."""

    sizes: tuple[int, ...] = Field(min_length=1, description="images a draw")
    count: int = Field(3, ge=2, description="draws of each size, of other images each")

    @field_validator("sizes")
    @classmethod
    def _positive(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in sizes):
            raise ValueError("a size is at least 1")
        return sizes


class TransferSpec(Spec):
    """Which models are attacked, and which judge what comes out: the transfer matrix of a suite."""

    data: str | None = Field(None, description="of a suite with several data sets: the one whose images travel")
    attacks: tuple[str, ...] | None = Field(
        None, min_length=1, description="only the images of these attacks, by name; all when absent"
    )

    surrogates: tuple[str, ...] | None = Field(
        None, min_length=1, description="models that are attacked; all when absent"
    )
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="models that judge the surrogates' adversarial images; all when absent"
    )


class PublishedValue(Spec):
    """What a publication printed for one model under one attack and defense."""

    data: str = Field(description="the data set's name")
    model: str = Field(description="the model's name in this suite")
    attack: str = Field("none", description="the attack's name; none: on the clean images")
    variant: str | None = Field(None, description="the variant's name; the suite's first when absent")
    defense: str = Field("none", description="the label of the defenses, joined by ' + '; none: undefended")
    attacker: Attacker | None = Field(None, description="of a defended model; whoever there is when absent")
    metrics: dict[str, float] = Field(min_length=1, description="accuracy, precision, recall, f1, auroc, ...: values")


class PublishedSpec(Spec):
    """What was published, beside which a report puts what is measured."""

    source: str = Field(description="the publication")
    library: str | None = Field(None, description="whose attacks are compared; the suite's first when absent")
    remarks: str = Field("", description="what the publication leaves open, or says twice")
    instead: dict[str, str] = Field(
        default_factory=dict,
        description="names of models and data sets that a profile has replaced, and what is measured in their place",
    )
    values: tuple[PublishedValue, ...] = Field(min_length=1)


def _parameter_schema() -> dict[str, Any]:
    """The canonical parameters for editors: each takes a value or a list of values."""
    kinds = {float: "number", int: "integer", bool: "boolean", str: "string", tuple: "array", list: "array"}
    kinds |= {dict: "object"}
    properties: dict[str, Any] = {}
    for attack in attacks.catalogue().values():
        for name, parameter in attack.parameters.items():
            one = {"type": [kinds[parameter.type], "string"] if parameter.type is float else kinds[parameter.type]}
            properties.setdefault(
                name, {"description": parameter.help, "anyOf": [one, {"type": "array", "items": one}]}
            )
    return properties
