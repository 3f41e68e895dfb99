"""The suite file: YAML in, one validated value out, and errors that say where and what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from sparring.adapters.attacks.library import Unsupported, load_library
from sparring.adapters.attacks.request import Request
from sparring.adapters.errors import InputError, unknown
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import KINDS, MODEL_KEYS, ModelSpec
from sparring.models.spec import ChainSpec, DataSpec, Spec
from sparring.suites.plan.keys import Attacker, AttackSpec, DrawsSpec, PublishedSpec, TransferSpec, VariantSpec

Route = Literal["native", "bridged"]
_ONE, _SEVERAL = "one", "several"
Data = Annotated[
    Annotated[DataSpec, Tag(_ONE)] | Annotated[tuple[DataSpec, ...], Tag(_SEVERAL)],
    Discriminator(lambda value: _SEVERAL if isinstance(value, list | tuple) else _ONE),
]
PROFILES = ("smoke", "small", "paper")


class Suite(Spec):
    """What is run: data, models, attacks with grids of values, libraries, seeds."""

    name: str = Field(
        min_length=1, pattern=r"^[\w.-]+$", description="letters, digits, dots, dashes; names the run folder"
    )
    description: str = Field("", description="the question that the suite answers")
    protocol: str = Field("", description="what is done and why, in words; a report begins with it")
    data: Data = Field(description="a data set, or a list of them: every model is trained and attacked on each")
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    defenses: tuple[ChainSpec, ...] = Field(
        (),
        description="every model is run with each of these: a defense by name, a mapping with its parameters, a list "
        "of them in order, or {name: ..., chain: [...]}; [] is no defense",
    )
    attackers: tuple[Attacker, ...] = Field(
        ("unaware", "aware"),
        min_length=1,
        description="who attacks a model that defends itself when it is used: one who does not know, one who does",
    )
    libraries: tuple[str, ...] = Field(("art", "foolbox", "torchattacks"), min_length=1)
    routes: tuple[Route, ...] | None = Field(None, min_length=1, description="native where there is one, when absent")
    attacks: tuple[AttackSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    transfer: TransferSpec | None = Field(
        None, description="judge every adversarial image on other models too; {} takes all models as both"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="images an attack gets at once, part of what is computed; 128 when absent, fewer of large images",
    )
    reconcile: bool | Literal["each"] = Field(
        False,
        description="take away every difference of a library from an attack's source that the ledger can; "
        "each: one at a time, a row for each that may or may not show",
    )
    nudge: int = Field(
        0, ge=0, description="move every image by a rounding of float32, drawn by this seed; 0: leave them alone"
    )
    variants: tuple[VariantSpec, ...] = Field((), description="every attack is run in each of these ways")
    draws: DrawsSpec | None = Field(None, description="tabulate samples of these sizes out of the one attacked")
    pictures: tuple[str, ...] = Field(
        (), description="classes whose first picture a report shows with the five most confident classes"
    )
    published: PublishedSpec | None = Field(None, description="values to compare with")
    profiles: dict[Literal["smoke", "small", "paper"], dict[str, Any]] = Field(
        default_factory=dict, description="overrides of any key above"
    )

    @field_validator("defenses", mode="before")
    @classmethod
    def _chains(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        are_chains = [
            isinstance(item, ChainSpec) or (isinstance(item, dict) and "defense" not in item) for item in value
        ]
        return [item if whole else {"chain": item} for item, whole in zip(value, are_chains, strict=True)]

    @field_validator("seeds")
    @classmethod
    def _not_negative(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(seed < 0 for seed in seeds):
            raise ValueError("a seed is at least 0")
        return seeds

    @model_validator(mode="after")
    def _names_once(self) -> Suite:
        seen: set[str] = set()
        held = [spec.label for spec in self.datasets]
        if not held:
            raise ValueError("data: an empty list")
        for label in held:
            if held.count(label) > 1:
                raise ValueError(f"two data sets are called {label!r}")
        if self.transfer is not None and self.transfer.data is not None and self.transfer.data not in held:
            raise ValueError(f"transfer.data: {unknown('data set', self.transfer.data, held)}")
        if self.transfer is not None and self.transfer.data is None and len(held) > 1:
            raise ValueError("transfer: images travel between models on one data set; say which: transfer.data")
        for model in self.models:
            if model.name in seen:
                raise ValueError(f"two models are called {model.name!r}")
            for source in model.sources:
                if source not in seen:
                    verb = {"export": "exports", "convert": "converts"}.get(model.kind, "takes in")
                    raise ValueError(f"models: {model.name} {verb} {source!r}, which is no model above it")
            seen.add(model.name)
        if self.transfer is not None:
            for key in ("surrogates", "targets"):
                for name in getattr(self.transfer, key) or ():
                    if name not in seen:
                        raise ValueError(f"transfer.{key}: {unknown('model', name, seen)}")
        ways = [variant.name for variant in self.variants]
        for way in ways:
            if ways.count(way) > 1:
                raise ValueError(f"two variants are called {way!r}")
        named: list[tuple[str, tuple[str, ...] | None, Iterable[str]]] = []
        for index, attack in enumerate(self.attacks):
            place = f"attacks.{index}"
            named += [(f"{place}.data", attack.data, held), (f"{place}.models", attack.models, seen)]
            named += [(f"{place}.variants", attack.variants, ways)]
        for index, whole in enumerate(self.defenses):
            place = f"defenses.{index}"
            named += [(f"{place}.data", whole.data, held), (f"{place}.models", whole.models, seen)]
        for index, variant in enumerate(self.variants):
            place = f"variants.{index}"
            named += [(f"{place}.data", variant.data, held), (f"{place}.models", variant.models, seen)]
            named += [(f"{place}.attacks", variant.attacks, [attack.attack for attack in self.attacks])]
        for index, model in enumerate(self.models):
            named += [(f"models.{index} ({model.name}): data", model.data, held)]
        for where, names, known in named:
            for name in names or ():
                if name not in known:
                    kind = where.rpartition(".")[2].rpartition(" ")[2].rstrip("s")
                    raise ValueError(f"{where}: {unknown('data set' if kind == 'data' else kind, name, known)}")
        for label in held:
            if not any(label in (model.data or (label,)) and model.attack for model in self.models):
                raise ValueError(f"data: no model is attacked on {label!r}")
        if self.draws is not None:
            for spec in self.datasets:
                wanted = max(self.draws.sizes) * self.draws.count
                if spec.samples is not None and spec.samples < wanted:
                    raise ValueError(
                        f"draws: {self.draws.count} draws of {max(self.draws.sizes)} other images each need "
                        f"{wanted} images, and {spec.label} has {spec.samples} samples"
                    )
        return self

    @property
    def datasets(self) -> tuple[DataSpec, ...]:
        """The data sets, in their order."""
        return self.data if isinstance(self.data, tuple) else (self.data,)

    @property
    def one_data(self) -> DataSpec:
        """The only data set. Raises ``InputError`` where there are several."""
        if len(self.datasets) > 1:
            names = ", ".join(spec.label for spec in self.datasets)
            raise InputError(f"{self.name} has several data sets ({names}), and this takes one")
        return self.datasets[0]

    @property
    def travels(self) -> str | None:
        """The data set whose adversarial images other models judge; None without a transfer matrix."""
        return (self.transfer.data or self.datasets[0].label) if self.transfer is not None else None

    @property
    def attacked(self) -> tuple[ModelSpec, ...]:
        """The models that are attacked, in their order: the surrogates of a transfer matrix, or all that are to be."""
        only = self.transfer.surrogates if self.transfer else None
        return tuple(model for model in self.models if (model.attack if only is None else model.name in only))

    @property
    def targets(self) -> tuple[ModelSpec, ...]:
        """The models that judge the adversarial images of others, in their order; none without a transfer matrix."""
        only = self.transfer.targets if self.transfer else ()
        return tuple(model for model in self.models if (model.attack if only is None else model.name in only))


def studies() -> dict[str, str]:
    """The suites that ship: name -> description."""
    descriptions = {}
    for entry in sorted(resources.files("sparring.suites").joinpath("studies").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".yaml"):
            descriptions[entry.name[:-5]] = str(yaml.safe_load(entry.read_text("utf-8")).get("description", "")).strip()
    return descriptions


def load_suite(
    source: str | Path | Mapping[str, Any], *, profile: str | None = None, overrides: Iterable[str] = ()
) -> Suite:
    """Read, override and validate a suite: a file, the name of a study that ships, or the same as a dictionary.

    ``profile`` names one of the file's own profiles; ``overrides`` are ``path=value`` (``data.samples=20``,
    ``attacks.0.eps=[0.1]``), applied last. Raises ``InputError`` with one message that names the file, the key, the
    value and what is valid.
    """
    if isinstance(source, Mapping):
        where, content = "the suite", dict(source)
    else:
        where, content = _read(str(source))
    profiles = content.get("profiles") or {}
    if profile is not None:
        if not isinstance(profiles, dict) or profile not in profiles:
            raise InputError(f"{where}: {unknown('profile', profile, profiles if isinstance(profiles, dict) else ())}")
        content = _merge(content, profiles[profile])
    for override in overrides:
        content = _override(content, override)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(f"{where}: {line}" for line in _explain(error))) from None
    _check_attacks(where, suite)
    _check_defenses(where, suite)
    _check_variants(where, suite)
    return suite


def home(source: str | Path | Mapping[str, Any]) -> Path:
    """The folder to which a suite's relative paths refer: the file's, that of the studies, or the working directory."""
    if isinstance(source, Mapping):
        return Path.cwd()
    if Path(source).is_file():
        return Path(source).resolve().parent
    return Path(str(resources.files("sparring.suites").joinpath("studies"))).resolve()


def _read(source: str) -> tuple[str, dict[str, Any]]:
    path = Path(source)
    if path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source}: can't be read: {error}") from None
    elif source in studies():
        text = resources.files("sparring.suites").joinpath("studies", f"{source}.yaml").read_text("utf-8")
    elif path.suffix in (".yaml", ".yml") or path.is_dir() or len(path.parts) > 1:
        raise InputError(f"{source}: there is no such suite file. Studies that ship: {', '.join(studies())}")
    else:
        raise InputError(unknown("suite", source, studies()) + ", or the path of a suite file")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{source}: not valid YAML{place}: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{source}: a suite is a mapping with the keys {', '.join(Suite.model_fields)}")
    return source, content


def _merge(below: Any, above: Any) -> Any:
    """Mappings key by key; anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}
    return above


def _override(content: dict[str, Any], override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"--set {override!r}: write path=value, as in data.samples=20 or attacks.0.eps=[0.1]")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {override!r}: the value is not valid YAML") from None

    def replaced(node: Any, keys: list[str], seen: str) -> Any:
        if not keys:
            return value
        key, rest = keys[0], keys[1:]
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise InputError(
                    f"--set {override!r}: {seen} is a list of {len(node)}: its keys are 0 to {len(node) - 1}"
                )
            return [replaced(item, rest, f"{seen}.{key}") if i == int(key) else item for i, item in enumerate(node)]
        if node is not None and not isinstance(node, dict):
            raise InputError(f"--set {override!r}: {seen} is the value {node!r} and has no keys")
        return {**(node or {}), key: replaced((node or {}).get(key), rest, f"{seen}.{key}".lstrip("."))}

    result: dict[str, Any] = replaced(content, path.split("."), "")
    return result


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for detail in error.errors():
        location = _without_tags(detail["loc"])
        place = ".".join(map(str, location))
        value, kind = detail.get("input"), detail["type"]
        if kind == "extra_forbidden":
            keys = MODEL_KEYS if _is_model(location) else _model_at(detail["loc"][:-1]).model_fields
            lines.append(f"{place}: {unknown('key', detail['loc'][-1], keys)}")
        elif kind == "missing":
            lines.append(f"{place}: this key is missing")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(value, dict | list | BaseModel) else f" (got {value!r})"
            lines.append(f"{place}: {message}{shown}" if place else message)
    return lines


def _without_tags(location: tuple[int | str, ...]) -> list[int | str]:
    """The place as the file has it: pydantic also names which of several kinds stands there."""
    tags = {("data", 1): (_ONE, _SEVERAL), ("models", 2): tuple(KINDS)}
    return [part for i, part in enumerate(location) if part not in tags.get((str(location[0]), i), ())]


def _is_model(location: list[int | str]) -> bool:
    """Whether a key of a model itself stands there: ``models``, its number, the key."""
    return len(location) == 3 and location[0] == "models"


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The pydantic model that stands at a place of a suite."""
    model: type[BaseModel] = Suite
    for part in location:
        if part in KINDS:
            model = KINDS[str(part)]
        elif isinstance(part, str) and part in model.model_fields:
            for candidate in _models_in(model.model_fields[part].annotation):
                model = candidate
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _check_variants(where: str, suite: Suite) -> None:
    """A library's own parameters have no units that could be changed."""
    for index, spec in enumerate(suite.attacks):
        for variant in suite.variants:
            if variant.space == "normalised" and ":" in spec.attack and variant.takes(spec):
                raise InputError(
                    f"{where}: attacks.{index}: {spec.attack} has parameters of its own, which can't be put in units "
                    f"of the normalised input: say `variants` without {variant.name!r}"
                )


def _check_attacks(where: str, suite: Suite) -> None:
    """Every attack, parameter and library by name, and that somebody in the suite has each attack."""
    for place, names in [("libraries", suite.libraries)] + [
        (f"attacks.{i}.libraries", spec.libraries) for i, spec in enumerate(suite.attacks) if spec.libraries is not None
    ]:
        for name in names:
            try:
                load_library(name)
            except InputError as error:
                raise InputError(f"{where}: {place}: {error}") from None
    for index, spec in enumerate(suite.attacks):
        try:
            wanted = spec.requests()[0]
        except InputError as error:
            raise InputError(f"{where}: attacks.{index}: {error}") from None
        chosen = spec.libraries or suite.libraries
        if wanted.canonical is not None:
            rules = {name: load_library(name).find(wanted.canonical) for name in chosen}
            if all(isinstance(rule, Unsupported) for rule in rules.values()):
                raise InputError(
                    f"{where}: attacks.{index}: none of {', '.join(chosen)} has {wanted.name} ({wanted.norm}). "
                    f"Libraries that have it: {', '.join(_owners(wanted)) or 'none'}"
                )


def _check_defenses(where: str, suite: Suite) -> None:
    """Every defense and its parameters by name."""
    chains = [(f"defenses.{i}", whole.chain) for i, whole in enumerate(suite.defenses)]
    chains += [(f"models.{i} ({spec.name}): defenses", spec.defenses) for i, spec in enumerate(suite.models)]
    for place, chain in chains:
        for spec in chain:
            try:
                defenses.resolve(spec)
            except InputError as error:
                raise InputError(f"{where}: {place}: {error}") from None


def _owners(wanted: Request) -> list[str]:
    from sparring.adapters.attacks.library import library_names

    assert wanted.canonical is not None
    every = {name: load_library(name).find(wanted.canonical) for name in library_names()}
    return [name for name, rule in every.items() if not isinstance(rule, Unsupported)]
