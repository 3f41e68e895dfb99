"""`sparring certify`: from its options to the certificate, on the terminal and in a JSON file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def certify_command(
    a: Annotated[str, typer.Argument(help="a model's name (with --suite), a file, or a suite's model as YAML")],
    b: Annotated[str, typer.Argument(help="the other, likewise")],
    suite: Annotated[str | None, typer.Option(help="a suite file or study in which A and B are names")] = None,
    data: Annotated[
        str | None, typer.Option(help="real images: a data set's name or path (default: the suite's, or what fits)")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="how many images of the data's test part")] = 1000,
    attack_samples: Annotated[int, typer.Option(min=0, help="how many of them are attacked, for the verdicts")] = 200,
    eps: Annotated[str | None, typer.Option(help="the attacks' budget: 8/255 (default: by the data)")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the certificate into this file")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Certify that two models are the same function: logits, gradients, verdicts on attacked images.

    Exit code 0: they are; 1: they are not, and the table says where they part; 2: bad input.
    """
    from sparring.adapters.attacks.catalogue import find
    from sparring.adapters.errors import InputError
    from sparring.models.storage import write_whole
    from sparring.suites.certify import text as certificate_text
    from sparring.suites.certify.certify import certify
    from sparring.suites.cli.console import LiveReporter, console

    if json_ is not None and not json_.parent.is_dir():
        raise InputError(f"--json {json_}: there is no folder {json_.parent}")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}. Valid: auto, cpu, cuda")
    budget = None if eps is None else float(find("fgsm").resolve({"eps": eps})["eps"])
    with LiveReporter() as reporter:
        certificate = certify(
            a,
            b,
            suite=suite,
            data=data,
            samples=samples,
            attack_samples=attack_samples,
            eps=budget,
            device=device,
            reporter=reporter,
        )
    for part in certificate_text.parts(certificate):
        console.print(part, highlight=False)
    if json_ is not None:
        write_whole(json_, json.dumps(certificate.to_json(), indent=1) + "\n")
        console.print(f"Written: {json_}", highlight=False)
    sys.exit(0 if certificate.passed else 1)
