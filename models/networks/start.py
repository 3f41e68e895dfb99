"""Networks whose training does not start from chance: torchvision's, with published weights but in the last layer."""

from __future__ import annotations

from typing import Any

from sparring.adapters.errors import InputError
from sparring.models import recipes
from sparring.models.model_spec import TrainedModel
from sparring.models.networks import build as networks
from sparring.models.networks import published as published_weights


def begun(architecture: str, enum: str, input_shape: tuple[int, int, int], classes: int) -> Any:
    """A new torch network (N, C, H, W) -> (N, classes) with the weights of that enum, its last layer from chance.

    The last layer, which tells the classes apart, is drawn from the global generators, as in any new network. Raises
    ``InputError`` for weights of another network, and where they are neither here nor can be downloaded.
    """
    from torch import nn

    network = networks.build(architecture, "torch", input_shape, classes)
    published = published_weights.network(architecture, enum).state_dict()
    ends = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    own = {key: value for key, value in network.state_dict().items() if key.startswith(f"{ends[-1]}.")}
    try:
        network.load_state_dict({**published, **own})
    except RuntimeError as exc:
        raise InputError(f"train.start: {enum} does not fit {architecture}: {exc}") from exc
    return network


def facts(spec: TrainedModel) -> dict[str, str]:
    """The enum and the sha256 of the file that the training of a model starts with; empty where the file isn't here."""
    assert spec.train is not None
    assert spec.train.start is not None
    path = published_weights.place(spec.architecture, spec.train.start)
    return {"enum": spec.train.start, "sha256": recipes.file_digest(path)} if path.is_file() else {}
