"""The command ``sparring explain``: from its options to the finding on the terminal, the plot and the JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sparring.adapters.errors import InputError


def run(
    attack: str, libraries: str, *, images: str | None, suite: str, model: str | None, norm: str | None,
    params: Sequence[str], seed: int, targeted: bool, plot: Path | None, json_file: Path | None,
    overrides: Sequence[str], device: str,
) -> int:  # fmt: skip
    """Explain, print and write. The exit code: 0 the same or named, 1 different and not named."""
    from sparring.adapters.attacks.library import load_library
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.explain import plot as explain_plot
    from sparring.suites.explain import text as explain_text
    from sparring.suites.explain.explanation import explain
    from sparring.suites.explain.subject import subject
    from sparring.suites.results import store

    names = [name.strip() for name in libraries.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--libraries {libraries!r}: name two, as in torchattacks,foolbox")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # package.module:LIBRARY may lie in the working directory
    for name in names:
        load_library(name)
    if plot is not None:
        explain_plot.check_path(plot)
    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"--json {json_file}: there is no folder {json_file.parent}")
    with LiveReporter() as reporter:
        what = subject(
            attack, suite, model=model, norm=norm, params=params, images=images, overrides=overrides, device=device,
            reporter=reporter,
        )  # fmt: skip
        reporter.stage(f"attacking {len(what.x)} images of {what.model}")
        found = explain(
            attack, names[0], names[1], what.classifier, what.x, what.y, what.params, norm=what.norm,
            targeted=targeted, seed=seed, images=what.images,
            report=lambda task, done, total: reporter.progress(task, done, total, ""),
        )  # fmt: skip
    console.print(f"{what.model}, images {', '.join(map(str, what.images))}; {what.said}", highlight=False)
    for part in explain_text.parts(found):
        console.print(part, highlight=False)
    if plot is not None:
        explain_plot.write(found, plot)
        console.print(f"Drawn: {plot}", highlight=False)
    if json_file is not None:
        store.write_whole(json_file, explain_text.to_json(found))
        console.print(f"Written: {json_file}", highlight=False)
    return 0 if found.named else 1
