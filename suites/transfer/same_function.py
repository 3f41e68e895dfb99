"""Which models of a suite are one function in several runtimes: exported or converted, or of the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sparring.models.model_spec import EnsembleModel, ObjectModel, WeightsModel
from sparring.models.prepared.model_ref import ModelRef
from sparring.suites.plan.file import Suite


def families(suite: Suite, models: Mapping[str, ModelRef]) -> dict[str, str]:
    """Model name -> a text that two models share when the suite makes them one function.

    Two models are one function where one is an ``export`` or ``convert`` of the other; where they have the same
    architecture with the same ``weights`` in two frameworks; where they have one digest; and where they are ensembles
    that combine alike, of members that are pairwise one function.
    """
    identities: dict[str, Any] = {}
    for spec in suite.models:
        if isinstance(spec, EnsembleModel):
            identities[spec.name] = [spec.combine, sorted(json.dumps(identities[name]) for name in spec.ensemble)]
        elif spec.sources:
            identities[spec.name] = identities[spec.sources[0]]
        elif isinstance(spec, WeightsModel) or (isinstance(spec, ObjectModel) and spec.weights):
            network = spec.architecture if isinstance(spec, WeightsModel) else f"object:{spec.object}"
            options = [spec.input_range, spec.mean, spec.std, spec.channel_order]
            identities[spec.name] = ["weights", network, spec.weights, options]
        else:
            identities[spec.name] = ["digest", models[spec.name].framework, models[spec.name].digest]
    return {name: json.dumps(value) for name, value in identities.items()}
