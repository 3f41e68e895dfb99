"""A model of the user's own code: it is made anew in every process, and has no place in the cache."""

from __future__ import annotations

from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.models.model_spec import ObjectModel
from sparring.models.networks import build
from sparring.models.prepared.kinds.kind import Kind, Task, options_of
from sparring.models.prepared.kinds.weights import find_file, refuse_architecture
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import checked, user_digest, user_network, wrapped


def check(spec: ObjectModel) -> None:
    """Raise ``InputError`` where its weights hold another network."""
    if spec.weights and spec.weights.endswith(".keras"):
        refuse_architecture(spec.weights, spec.object)


def file_of(spec: ObjectModel, base: Path) -> Path | None:
    """The file of its weights."""
    return find_file(spec.weights, base, spec.runtime) if spec.weights else None


def ref(spec: ObjectModel, task: Task) -> ModelRef:
    """Run the code, and describe the model that it gives. Raises ``InputError`` where it doesn't fit."""
    network = user_network(spec, task.base, task.file)
    framework = build.framework_of(network)
    if spec.framework and spec.runtime != framework:
        raise InputError(f"framework: {spec.framework} is said, but {spec.object} is a {framework} model")
    own = ModelRef(
        name=spec.name,
        digest=user_digest(spec, network),
        framework=framework,
        architecture=f"object:{spec.object}",
        input_shape=task.shape,
        classes=task.classes,
        spec=spec,
        artifact=str(task.file) if task.file else None,
        options=options_of(spec),
        base=str(task.base.absolute()),
    )
    return checked(own, wrapped(network, own, task.device), task.sample)


KIND = Kind(work=lambda spec: f"load {spec.object}", check=check, file=file_of, ref=ref)
