"""The command ``sparring convert``: a model as a file for another framework, that computes the same."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.adapters.errors import InputError, unknown

if TYPE_CHECKING:
    from sparring.adapters.protocol import Classifier, Images
    from sparring.models.networks.convert import Opened
    from sparring.models.prepared.model_ref import ModelRef

SUFFIXES = {"onnx": ".onnx", "torch": ".safetensors", "keras": ".keras"}
COMPARED = 32
"""Images on which the file is compared with the model."""


def run(
    model: str, to: str, *, out: Path | None = None, suite: str | None = None, data: str | None = None,
    force: bool = False,
) -> int:  # fmt: skip
    """Convert, compare, print. The exit code is 0: a file that computes something else is an ``InputError``."""
    from sparring.models.data import datasets
    from sparring.suites.certify.reference import images, open_reference, resolve
    from sparring.suites.cli.console import LiveReporter, console

    if to not in SUFFIXES:
        raise InputError(f"--to: {unknown('framework', to, SUFFIXES)}")
    reference = resolve(model, suite=suite, data=data)
    _check_source(model, reference.spec.runtime, to)
    path = out or Path(f"{Path(reference.spec.name).stem}{SUFFIXES[to]}")
    _check_path(path, to, force)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with LiveReporter() as reporter:
        ref = open_reference(reference, device="cpu", report=reporter)
        _check_source(model, ref.framework, to)
        x = datasets.load(images(reference.data, COMPARED), base=Path.cwd()).x
        reporter.stage(f"convert {model} to {to}")
        said = write(ref, to, path, x)
    console.print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    for key, value in said.items():
        console.print(f"  {key}: {value}", highlight=False, soft_wrap=True, markup=False)
    options = [part for key, value in (("suite", suite), ("data", data)) if value for part in (f"--{key}", value)]
    again = shlex.join(["sparring", "certify", model, str(path), *options])
    console.print(f"Next: {again}", highlight=False, soft_wrap=True, markup=False)
    return 0


def write(ref: ModelRef, to: str, path: Path, x: Images) -> dict[str, str]:
    """Write the model as ``onnx``, ``torch`` or ``keras``, compare on images (N, C, H, W), and tell of the file.

    Raises ``InputError``, and leaves no file, for a model that can't be written so, or that then computes another
    function.
    """
    from sparring.adapters.wrap import wrap
    from sparring.models.networks import export, weights
    from sparring.models.prepared.open import open_here

    if to == "keras" and ref.framework == "torch":
        _use_any_keras()
    opened = open_here(ref)
    source = wrap(opened.network, input_shape=ref.input_shape, device="cpu", **opened.options)
    said: dict[str, str] = {}

    def make(temporary: Path) -> None:
        made, facts = _WRITERS[to](opened, source, temporary)
        difference = export.check(source, made, x, f"convert: the {to} file")
        said.update(facts)
        said[f"largest difference of a logit, {len(x)} images"] = f"{difference:.1e}"

    weights.atomically(path, make)
    return said


def _to_onnx(opened: Opened, source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.architectures import catalogue as architectures
    from sparring.models.networks import export

    name = opened.architecture if architectures.parse(opened.architecture)[0].isidentifier() else ""
    facts = export.export(source, opened.network, path, dict(opened.options), name)
    return wrap(str(path), device="cpu"), facts


def _to_torch(opened: Opened, _source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.networks import build as networks
    from sparring.models.networks import convert, portable

    made = convert.named(opened) if opened.framework == "torch" else convert.moved(opened, "torch")
    options: dict[str, Any] = {key: made.options[key] for key in convert.SCALES if made.options.get(key) is not None}
    portable.save_torch(
        made.network, path, architecture=made.architecture, input_shape=made.input_shape, classes=made.classes,
        options=options,
    )  # fmt: skip
    again = networks.with_weights(made.architecture, "torch", made.input_shape, made.classes, path)
    return wrap(again, input_shape=made.input_shape, device="cpu", **options), _described(made)


def _to_keras(opened: Opened, _source: Classifier, path: Path) -> tuple[Classifier, Mapping[str, str]]:
    from sparring.adapters.wrap import wrap
    from sparring.models.architectures import catalogue as architectures
    from sparring.models.networks import build as networks
    from sparring.models.networks import convert, portable

    here = networks.keras_here(opened.framework)
    made = convert.moved(opened, here)
    base, _ = architectures.parse(made.architecture)  # TensorFlow takes no parentheses in a name
    name = base if base.isidentifier() else made.network.name
    portable.save_keras(made.network, path, name=name, input_shape=made.input_shape, options=made.options)
    again = wrap(networks.keras_file(path, here), input_shape=made.input_shape, layout="channels-last", device="cpu")
    return again, {**_described(made), "input": "images in [0, 1], NHWC, normalisation included"}


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


def _check_path(path: Path, to: str, force: bool) -> None:
    if path.suffix != SUFFIXES[to]:
        raise InputError(f"--out {path}: --to {to} writes a file whose name ends in {SUFFIXES[to]}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")
    if path.exists() and not force:
        raise InputError(f"{path} is there already: choose another name with --out, or --force")


def _check_source(model: str, framework: str, to: str) -> None:
    if framework == "ensemble":
        raise InputError(
            f"{model} is an ensemble, and a file holds one network: convert its members one by one. In a suite, "
            "`convert` does so"
        )
    if framework == "onnx" and to == "onnx":
        raise InputError(f"{model} is an ONNX model already")
    if framework == "onnx":
        raise InputError(
            f"{model} is an ONNX graph, not a network whose weights could be moved to {to}; but white-box attacks and "
            "`sparring certify` work on the file itself (in a suite, `onnx: FILE`)"
        )
