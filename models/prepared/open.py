"""From a prepared model to its classifier, in any process."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError, StorageError
from sparring.adapters.protocol import Classifier, lacks
from sparring.adapters.wrap import PROBABILITIES, check_outputs, look_like_probabilities, wrap
from sparring.adapters.wrappers.ensemble import ensemble
from sparring.models import recipes
from sparring.models.data.datasets import Dataset
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import EnsembleModel, ObjectModel, WeightsModel
from sparring.models.networks import build as networks
from sparring.models.networks import published, weights
from sparring.models.networks.convert import Opened
from sparring.models.prepared.kinds.kind import options_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.remote import open_remotely
from sparring.models.weights_enums import ENUM


def open_model(ref: ModelRef, *, device: str = "auto", seed: int = 0) -> Classifier:
    """The classifier of a prepared model on the device (auto, cpu, cuda).

    Raises ``InputError`` if it can't be opened, a ``StorageError`` if its file in the cache is gone or damaged.
    Members of an ensemble that need another Keras backend than this process has run in processes of their own.
    ``seed`` is that of what its defenses draw.
    """
    if ref.wrappers:
        return defenses.wrap_defended(open_model(ref.undefended, device=device), ref.wrappers, seed=seed)
    if isinstance(ref.spec, EnsembleModel):
        return ensemble([_member(member, ref.host, device) for member in ref.members], ref.spec.combine)
    try:
        return wrapped(open_network(ref), ref, device)
    except StorageError:
        raise
    except InputError as error:
        if ref.artifact and recipes.damaged(Path(ref.artifact)):
            raise StorageError(f"{ref.artifact} is damaged: run the suite again, and it will be made anew") from error
        raise


def _member(ref: ModelRef, host: str, device: str) -> Classifier:
    if ref.wrappers:
        return defenses.wrap_defended(_member(ref.undefended, host, device), ref.wrappers, seed=0)
    if ref.framework.startswith("keras-") and ref.framework != host:
        return open_remotely(ref.to_json(), keras_backend=ref.framework.partition("-")[2], device=device)
    if isinstance(ref.spec, EnsembleModel):
        return ensemble([_member(member, host, device) for member in ref.members], ref.spec.combine)
    return open_model(ref, device=device)


def wrapped(network: Any, ref: ModelRef, device: str) -> Classifier:
    """The classifier of a network that is open already, with the ref's options."""
    return wrap(network, input_shape=ref.input_shape, device=device, **ref.options)


def checked(ref: ModelRef, classifier: Classifier, sample: Dataset) -> ModelRef:
    """The ref with the classes that the model really has, and what it lacks.

    Runs the images of the sample. Raises ``InputError`` if the model doesn't fit the data.
    """
    check_outputs(classifier, sample.x, probabilities=True)
    if classifier.classes < len(sample.class_names):
        raise InputError(
            f"labels out of range: {sample.name} has {len(sample.class_names)} classes, the model {classifier.classes}"
        )
    reasons = lacks(classifier)
    if look_like_probabilities(classifier.logits(sample.x)):
        reasons["logits"] = PROBABILITIES
    return replace(ref, classes=classifier.classes, lacks=reasons)


def open_network(ref: ModelRef) -> Any:
    """What ``wrap`` takes: the torch module, the Keras model, or the path of the ONNX file."""
    spec, path = ref.spec, Path(ref.artifact or "")
    if isinstance(spec, ObjectModel):
        network = user_network(spec, Path(ref.base), Path(ref.artifact) if ref.artifact else None)
        if ref.digest != user_digest(spec, network):
            raise InputError(
                f"object: {spec.object} is another model in every process: seed it, or load its weights from a file"
            )
        return network
    if ref.framework == "onnx":
        return str(path)
    if not path.is_file():
        raise StorageError(f"{path} is gone: run the suite again, and it will be made anew")
    if path.suffix == ".keras":
        return networks.keras_file(path, ref.framework)
    if isinstance(spec, WeightsModel) and ENUM.fullmatch(spec.weights):
        return published.network(ref.architecture, spec.weights)
    return networks.with_weights(ref.architecture, ref.framework, ref.input_shape, ref.classes, path)


def open_here(ref: ModelRef) -> Opened:
    """The model in its own framework; a Keras model on the backend that this process has, if it has one already."""
    here = replace(ref, framework=networks.keras_here(ref.framework)) if ref.framework.startswith("keras") else ref
    return Opened(open_network(here), here.framework, ref.architecture, ref.input_shape, ref.classes, ref.options)


def user_network(spec: ObjectModel, base: Path, file: Path | None) -> Any:
    """The network that the user's code gives, with the weights of the file where there is one."""
    network = networks.imported(spec.object, base)
    if file:
        (weights.load_torch if networks.framework_of(network) == "torch" else weights.load_keras)(network, file)
    return network


def user_digest(spec: ObjectModel, network: Any) -> str:
    """Of the weights, of the options, and of the file of the code: what ``forward`` does is only written there."""
    code = getattr(sys.modules[spec.object.partition(":")[0]], "__file__", None)
    text = recipes.file_digest(Path(code)) if code else ""
    return recipes.digest([networks.digest_of(network), spec.object, text, options_of(spec)])
