"""From a suite as written to one suite a data set, whose models are all there are: every defense, every member."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.data import datasets, picture_transforms
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import EnsembleModel, ModelSpec, TrainedModel, model_spec
from sparring.models.spec import ChainSpec, DefenseSpec
from sparring.suites.plan.file import Suite


def parts(suite: Suite) -> tuple[Suite, ...]:
    """The suite once for each data set: with its models in every defense, and only the attacks meant for it.

    A model under the suite's chain of defenses is called ``NAME [CHAIN]``; the members that a model has by number are
    ``NAME/1``, ``NAME/2``, ... and are not attacked themselves. Raises ``InputError`` for a training defense of a model
    that is not trained here.
    """
    transfer, travels = suite.transfer, suite.travels
    if transfer is not None:
        models = _every_model(suite, str(travels))
        only = {
            key: tuple(spec.name for spec in models if spec.attack and origin(spec) in names)
            for key in ("surrogates", "targets")
            if (names := getattr(transfer, key)) is not None
        }
        transfer = transfer.model_copy(update=only)
    return tuple(
        suite.model_copy(
            update={
                "data": data,
                "models": _every_model(suite, data.label),
                "defenses": (),
                "attacks": tuple(attack for attack in suite.attacks if data.label in (attack.data or (data.label,))),
                "transfer": transfer if data.label == travels else None,
            }
        )
        for data in suite.datasets
    )


def single(suite: Suite, data: str | None = None) -> Suite:
    """The part of one data set: the only one, or that of the name. ``InputError`` where there are several and none is.

    Names of data sets that the suite has not are left to whoever looks for images: then it is the first part.
    """
    every = {part.one_data.label: part for part in parts(suite)}
    if data is None and len(every) > 1:
        raise InputError(f"{suite.name} has several data sets: say which of {', '.join(every)}")
    return every.get(data or "", next(iter(every.values())))


def with_transforms(part: Suite, base: Path) -> Suite:
    """The part, with its pictures as the published weights of its models want them, where the suite leaves that open.

    Raises ``InputError`` where they want them in several ways.
    """
    data = part.one_data
    update = {"data": picture_transforms.for_models(data, part.models if datasets.of_pictures(data, base) else ())}
    return part.model_copy(update=update)


def origin(spec: ModelSpec) -> str:
    """The name that the suite gives a model, whatever defenses it was expanded with."""
    head, bracket, _ = spec.name.rpartition(" [")
    return head if bracket and spec.name == f"{head} [{spec.defense}]" else spec.name


def _every_model(suite: Suite, data: str) -> tuple[ModelSpec, ...]:
    by_name = {spec.name: spec for spec in suite.models}
    made: dict[str, ModelSpec] = {}
    for chain in suite.defenses or (_chain(()),):
        if chain.data is not None and data not in chain.data:
            continue
        for spec in suite.models:
            if chain.models is not None and spec.name not in chain.models:
                continue
            if spec.data is not None and data not in spec.data:
                continue
            for each in _under(spec, chain, by_name):
                # an attacked model may also be the undefended source of another: it stays attacked
                made[each.name] = each if each.name not in made or each.attack else made[each.name]
    return tuple(made.values())


def _under(spec: ModelSpec, chain: ChainSpec, by_name: dict[str, ModelSpec]) -> list[ModelSpec]:
    """The model under a chain of defenses, after the models that it is made of."""
    trained = _chain(_training(chain.chain))
    named = _named(spec, chain)
    models: list[ModelSpec] = []
    if spec.sources:
        names = []
        for name in spec.sources:
            below = _under(by_name[name], trained, by_name)
            models += [one.model_copy(update={"attack": False}) for one in below] if trained.chain else []
            names.append(below[-1].name)
        renamed = {spec.kind: tuple(names) if isinstance(spec, EnsembleModel) else names[0]}
        return [*models, named.model_copy(update=renamed)]
    train = spec.train if isinstance(spec, TrainedModel) else None
    if (trains := _training((*spec.defenses, *chain.chain))) and not train:
        raise InputError(f"defenses: {trains[0].label} trains the model, and {spec.name!r} has no `train`")
    if not isinstance(spec, TrainedModel) or not spec.members:
        return [named]
    assert train is not None
    own = tuple(_training(named.defenses))
    for number in range(spec.members):
        own_train = train.model_copy(update={"seed": train.seed + number})
        update = {"train": own_train, "members": None, "combine": "probabilities", "defenses": own, "attack": False}
        name = f"{_named(spec, trained).name}/{number + 1}"
        models.append(spec.model_copy(update={**update, "name": name, "defended_as": None}))
    whole = {
        "name": named.name,
        "ensemble": tuple(one.name for one in models),
        "combine": spec.combine,
        "defenses": [one.model_dump() for one in named.defenses],
        "defended_as": named.defended_as,
        "attack": spec.attack,
    }
    return [*models, model_spec(whole)]


def _named(spec: ModelSpec, chain: ChainSpec) -> ModelSpec:
    if not chain.chain:
        return spec
    called = chain.name and " + ".join(filter(None, [spec.defense if spec.defenses else None, chain.name]))
    whole = spec.model_copy(update={"defenses": (*spec.defenses, *chain.chain), "defended_as": called})
    return whole.model_copy(update={"name": f"{spec.name} [{whole.defense}]"})


def _chain(chain: Sequence[DefenseSpec]) -> ChainSpec:
    return ChainSpec(name=None, chain=tuple(chain), models=None, data=None)


def _training(chain: Sequence[DefenseSpec]) -> list[DefenseSpec]:
    return [one for one in chain if defenses.find(one.defense).kind == "training"]
