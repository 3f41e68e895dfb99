"""Write a model as a file for another framework, that computes the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparring.adapters.protocol import Classifier, Images
    from sparring.models.networks.convert import Opened
    from sparring.models.prepared.model_ref import ModelRef


def write(ref: ModelRef, to: str, path: Path, x: Images) -> dict[str, str]:
    """Write the model as ``onnx``, ``torch`` or ``keras``, compare on images (N, C, H, W), and describe the file.

    Raises ``InputError``, and leaves no file, for a model that can't be written so, or that then computes another
    function.
    """
    from sparring.adapters.wrap import wrap
    from sparring.models.networks import export
    from sparring.models.prepared.open import open_here
    from sparring.models.storage import atomically

    if to == "keras" and ref.framework == "torch":
        _use_any_keras()
    opened = open_here(ref)
    source = wrap(opened.network, input_shape=ref.input_shape, device="cpu", **opened.options)
    description: dict[str, str] = {}

    def make(temporary: Path) -> None:
        made, facts = _WRITERS[to](opened, source, temporary)
        difference = export.check(source, made, x, f"convert: the {to} file")
        description.update(facts)
        description[f"largest difference of a logit, {len(x)} images"] = f"{difference:.1e}"

    atomically(path, make)
    return description


def _to_onnx(opened: Opened, source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.architectures.architecture import parse
    from sparring.models.networks import export

    name = opened.architecture if parse(opened.architecture)[0].isidentifier() else ""
    facts = export.export(source, opened.network, path, dict(opened.options), name)
    return wrap(str(path), device="cpu"), facts


def _to_torch(opened: Opened, _source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.networks import build as networks
    from sparring.models.networks import convert, portable

    made = convert.named(opened) if opened.framework == "torch" else convert.moved(opened, "torch")
    options: dict[str, Any] = {key: made.options[key] for key in convert.SCALES if made.options.get(key) is not None}
    portable.save_torch(
        made.network,
        path,
        architecture=made.architecture,
        input_shape=made.input_shape,
        classes=made.classes,
        options=options,
    )
    again = networks.with_weights(made.architecture, "torch", made.input_shape, made.classes, path)
    return wrap(again, input_shape=made.input_shape, device="cpu", **options), _described(made)


def _to_keras(opened: Opened, _source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.architectures.architecture import parse
    from sparring.models.networks import build as networks
    from sparring.models.networks import convert, portable

    here = networks.keras_here(opened.framework)
    made = convert.moved(opened, here)
    base, _ = parse(made.architecture)  # TensorFlow takes no parentheses in a name
    name = base if base.isidentifier() else made.network.name
    portable.save_keras(made.network, path, name=name, input_shape=made.input_shape, options=made.options)
    again = wrap(networks.keras_file(path, here), input_shape=made.input_shape, layout="channels-last", device="cpu")
    return again, {**_described(made), "input": "images in [0, 1], NHWC, normalization included"}


_Writer = Callable[["Opened", "Classifier", Path], "tuple[Classifier, Mapping[str, str]]"]
_WRITERS: dict[str, _Writer] = {"onnx": _to_onnx, "torch": _to_torch, "keras": _to_keras}


def _described(made: Opened) -> dict[str, str]:
    from sparring.models.networks import build as networks

    return {
        "architecture": made.architecture,
        "digest": networks.digest_of(made.network),
        "classes": str(made.classes),
    }


def _use_any_keras() -> None:
    """A .keras file runs on every backend: any that is there will write it."""
    from sparring.models.networks import build as networks

    backend = "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"
    networks.use_keras(networks.keras_here(f"keras-{backend}"))
