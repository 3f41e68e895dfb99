"""The command ``sparring certify``: from its options to the certificate on the terminal and in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from sparring.adapters.errors import InputError


def run(
    a: str, b: str, *, suite: str | None = None, data: str | None = None, samples: int = 1000,
    attack_samples: int = 200, eps: str | None = None, json_file: Path | None = None, device: str = "auto",
) -> int:  # fmt: skip
    """Certify, print and write. The exit code: 0 passed, 1 not."""
    from sparring.adapters.attacks.catalogue import find
    from sparring.suites.certify import text as certificate_text
    from sparring.suites.certify.certify import certify
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.results import store

    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"--json {json_file}: there is no folder {json_file.parent}")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}. Valid: auto, cpu, cuda")
    budget = None if eps is None else float(find("fgsm").resolve({"eps": eps})["eps"])
    with LiveReporter() as reporter:
        found = certify(
            a, b, suite=suite, data=data, samples=samples, attack_samples=attack_samples, eps=budget, device=device,
            reporter=reporter,
        )  # fmt: skip
    for part in certificate_text.parts(found):
        console.print(part, highlight=False)
    if json_file is not None:
        store.write_whole(json_file, json.dumps(found.to_json(), indent=1) + "\n")
        console.print(f"Written: {json_file}", highlight=False)
    return 0 if found.passed else 1
