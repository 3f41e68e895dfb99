"""Which models of a suite are one function in several runtimes: exported or converted, or of the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sparring.models.model_spec import EnsembleModel, ObjectModel, WeightsModel
from sparring.models.prepared.model_ref import ModelRef
from sparring.suites.plan.file import Suite


def families(suite: Suite, models: Mapping[str, ModelRef]) -> dict[str, str]:
    """Model name -> a text that two models share when, by what the suite says of them, they must compute the same.

    That is: an ``export`` or ``convert`` and its source; the same architecture with the same ``weights`` in two
    frameworks; ensembles whose members are pairwise so and that combine alike; and models with one digest.
    """
    found: dict[str, Any] = {}
    for spec in suite.models:
        if isinstance(spec, EnsembleModel):
            found[spec.name] = [spec.combine, sorted(json.dumps(found[name]) for name in spec.ensemble)]
        elif spec.sources:
            found[spec.name] = found[spec.sources[0]]
        elif isinstance(spec, WeightsModel) or (isinstance(spec, ObjectModel) and spec.weights):
            network = spec.architecture if isinstance(spec, WeightsModel) else f"object:{spec.object}"
            options = [spec.input_range, spec.mean, spec.std, spec.channel_order]
            found[spec.name] = ["weights", network, spec.weights, options]
        else:
            found[spec.name] = ["digest", models[spec.name].framework, models[spec.name].digest]
    return {name: json.dumps(value) for name, value in found.items()}
