"""A prepared model behind its defenses, as a prepared model."""

from __future__ import annotations

from dataclasses import replace

from sparring.models import recipes
from sparring.models.defenses import catalogue as defenses
from sparring.models.prepared.model_ref import BY_DEFENSE, ModelRef
from sparring.models.spec import ModelSpec


def defended_ref(spec: ModelSpec, bare: ModelRef) -> ModelRef:
    """The model with the wrappers of its spec around it: nothing is made, and nothing opened."""
    told, lacks = [], dict(bare.lacks)
    wrappers = defenses.wrappers(spec.defenses)
    for wrapper in wrappers:
        found, params = defenses.resolve(wrapper)
        told.append([found.name, found.version, params])
        if found.passes(params) == "none":
            lacks.setdefault("gradients", f"needs gradients, and {wrapper.label} passes none {BY_DEFENSE}")
        if found.hides:
            lacks.setdefault("logits", f"{found.hides} {BY_DEFENSE}")
            lacks.setdefault("gradients", f"{found.hides} {BY_DEFENSE}")
    return replace(
        bare,
        name=spec.name,
        spec=spec,
        digest=recipes.digest(["defended", bare.digest, told]),
        undefended_digest=bare.digest,
        wrappers=wrappers,
        lacks=lacks,
    )
