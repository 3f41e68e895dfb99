"""How pictures become images where a suite leaves it to torchvision's weights: resize, crop and interpolation.

What weights were evaluated with is known by their enum alone; from here on it is plain numbers, for which no framework
is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparring.adapters.errors import InputError
from sparring.models import weights_enums
from sparring.models.model_spec import ModelSpec, WeightsModel
from sparring.models.spec import DataSpec

KEYS = ("resize", "crop", "interpolation")


def resolved(spec: DataSpec) -> DataSpec:
    """The spec with the numbers of its ``transforms``; its own stay. Raises ``InputError`` for an unknown enum."""
    if spec.transforms is None or all(getattr(spec, key) is not None for key in KEYS):
        return spec
    own = weights_enums.transforms(spec.transforms)
    return spec.model_copy(update={key: getattr(own, key) for key in KEYS if getattr(spec, key) is None})


def for_models(spec: DataSpec, models: Sequence[ModelSpec]) -> DataSpec:
    """Pictures as the published weights of the models want them, where the spec of the pictures leaves it open.

    Raises ``InputError``, which says who wants what, if they differ.
    """
    enums = {
        model.name: model.weights for model in models if isinstance(model, WeightsModel) and _published(model.weights)
    }
    if not enums or any(getattr(spec, key) is not None for key in ("transforms", "size", *KEYS)):
        return resolved(spec)
    wanted: dict[tuple[Any, ...], list[str]] = {}
    for name, enum in enums.items():
        own = weights_enums.transforms(enum, f"models ({name}): weights")
        wanted.setdefault(tuple(getattr(own, key) for key in KEYS), []).append(f"{name} ({enum})")
    if len(wanted) > 1:
        wishes = "; ".join(
            f"{' and '.join(names)}: resize {resize}, crop {crop}, {interpolation}"
            for (resize, crop, interpolation), names in wanted.items()
        )
        raise InputError(
            f"the models' weights want their pictures in several ways ({wishes}): say `transforms: ENUM`, "
            "or `resize` and `crop`, for all"
        )
    return resolved(spec.model_copy(update={"transforms": next(iter(enums.values()))}))


def differences(pictures: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Where pictures (a data set's facts) are not made as a model's weights want: key -> ``here`` and ``weights``."""
    if "crop" not in pictures:  # no pictures: what they were made of nobody knows
        return {}
    return {
        key: {"here": pictures[key], "weights": own[key]} for key in KEYS if key in own and pictures[key] != own[key]
    }


def _published(weights: str) -> bool:
    return weights_enums.ENUM.fullmatch(weights) is not None
