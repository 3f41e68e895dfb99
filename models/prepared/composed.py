"""Models that are made of prepared ones: an ensemble of its members, and a model behind its defenses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.adapters.wrappers.ensemble import LACKING_IN_A_VOTE
from sparring.models import recipes
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import ConvertModel, EnsembleModel, ModelSpec, model_spec
from sparring.models.prepared.model_ref import BY_DEFENSE, ModelRef


def ensemble_ref(spec: EnsembleModel, base: Path, others: Mapping[str, ModelRef]) -> ModelRef:
    """What its members are says all of an ensemble: nothing is made, and nothing opened."""
    members = tuple(others[name] for name in spec.sources)
    first = members[0]
    for member in members:
        if (member.input_shape, member.classes) != (first.input_shape, first.classes):
            raise InputError(
                f"ensemble: {first.name} takes {first.input_shape} and gives {first.classes} classes, {member.name} "
                f"takes {member.input_shape} and gives {member.classes}: the members must be alike in both"
            )
    if spec.combine == "vote":
        lacks = dict(LACKING_IN_A_VOTE)
    else:
        lacks = {what: f"{why} ({member.name})" for member in members for what, why in member.lacks.items()}
    return ModelRef(
        name=spec.name,
        digest=recipes.digest(["ensemble", spec.combine, [[member.framework, member.digest] for member in members]]),
        framework="ensemble",
        architecture={"vote": "majority vote"}.get(spec.combine, f"mean of {spec.combine}"),
        input_shape=first.input_shape,
        classes=first.classes,
        spec=spec,
        artifact=None,
        options={},
        base=str(base.absolute()),
        lacks=lacks,
        members=members,
    )


def converted_ensemble(
    spec: ConvertModel, base: Path, source: ModelRef, convert: Callable[..., ModelRef | None]
) -> ModelRef | None:
    """An ensemble of which every member is converted on its own; None where ``convert`` gives none."""
    assert isinstance(source.spec, EnsembleModel)
    members = {}
    for name, member in zip(source.spec.sources, source.members, strict=True):
        there = model_spec({"name": name, "framework": spec.framework, "convert": name})
        ref = member if member.framework == spec.runtime else convert(there, others={name: member})
        if ref is None:
            return None
        members[name] = ref
    return ensemble_ref(source.spec.model_copy(update={"name": spec.name}), base, members)


def defended_ref(spec: ModelSpec, bare: ModelRef) -> ModelRef:
    """The model with the wrappers of its spec around it: nothing is made, and nothing opened."""
    parts, lacks = [], dict(bare.lacks)
    wrappers = defenses.wrappers(spec.defenses)
    for wrapper in wrappers:
        defense, params = defenses.resolve(wrapper)
        parts.append([defense.name, defense.version, params])
        if defense.passes(params) == "none":
            lacks.setdefault("gradients", f"needs gradients, and {wrapper.label} passes none {BY_DEFENSE}")
        if defense.hides:
            lacks.setdefault("logits", f"{defense.hides} {BY_DEFENSE}")
            lacks.setdefault("gradients", f"{defense.hides} {BY_DEFENSE}")
    return replace(
        bare,
        name=spec.name,
        spec=spec,
        digest=recipes.digest(["defended", bare.digest, parts]),
        undefended_digest=bare.digest,
        wrappers=wrappers,
        lacks=lacks,
    )
