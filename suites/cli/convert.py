"""`sparring convert`: a model as a file for another framework, that computes the same."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from sparring.adapters.errors import InputError, unknown

SUFFIXES = {"onnx": ".onnx", "torch": ".safetensors", "keras": ".keras"}
COMPARED = 32
"""Images on which the file is compared with the model."""


def convert_command(
    model: Annotated[str, typer.Argument(help="a model's name (with --suite), a file, or a suite's model as YAML")],
    to: Annotated[str, typer.Option("--to", help="onnx, torch or keras")],
    out: Annotated[
        Path | None, typer.Option("--out", help="the file (default: MODEL's name)", show_default=False)
    ] = None,
    suite: Annotated[str | None, typer.Option(help="a suite file or study in which MODEL is a name")] = None,
    data: Annotated[str | None, typer.Option(help="the images to compare on: a data set's name or path")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
) -> None:
    """Write a model for another framework: any model as ONNX, the named architectures between torch and Keras.

    Exit code 0: written, and it computes the same; 2: bad input, and nothing is written.
    """
    from sparring.models.data import datasets
    from sparring.models.prepared.write import write
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
        description = write(ref, to, path, x)
    console.print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    for key, value in description.items():
        console.print(f"  {key}: {value}", highlight=False, soft_wrap=True, markup=False)
    options = [part for key, value in (("suite", suite), ("data", data)) if value for part in (f"--{key}", value)]
    again = shlex.join(["sparring", "certify", model, str(path), *options])
    console.print(f"Next: {again}", highlight=False, soft_wrap=True, markup=False)


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
