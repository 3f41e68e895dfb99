"""`sparring explain`: from its options to the explanation, on the terminal, drawn and in a JSON file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sparring.suites.cli.options import SetOption


def explain_command(
    attack: Annotated[str, typer.Argument(help="a canonical attack (`sparring list attacks`)")],
    libraries: Annotated[str, typer.Option(help="the two to compare: A,B; names, or package.module:LIBRARY")],
    images: Annotated[
        str | None, typer.Option(help="their numbers in the suite's data: 0,3,7 (default: eight of them)")
    ] = None,
    suite: Annotated[str, typer.Option(help="the suite whose data and model are used")] = "quickstart",
    model: Annotated[str | None, typer.Option(help="a model of the suite (default: the first on torch)")] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l0 (default: the attack's first)")] = None,
    param: Annotated[list[str] | None, typer.Option(help="a parameter of the attack: eps=8/255; repeatable")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of random starts and targets")] = 0,
    targeted: Annotated[bool, typer.Option("--targeted", help="towards another class, drawn by the seed")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the paths into this file: .png, .svg or .pdf")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write everything into this file")] = None,
    set_: SetOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Say whether two libraries' attack is the same on some images, and if not, which one change makes it so.

    Exit code 0: the same, or the change is named; 1: different, and no one change explains it; 2: bad input.
    """
    from sparring.adapters.attacks.library import load_library
    from sparring.adapters.errors import InputError
    from sparring.models.storage import write_whole
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.explain import plot as explain_plot
    from sparring.suites.explain import text as explain_text
    from sparring.suites.explain.explanation import explain
    from sparring.suites.explain.subject import subject

    names = [name.strip() for name in libraries.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--libraries {libraries!r}: name two, as in torchattacks,foolbox")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # package.module:LIBRARY may lie in the working directory
    for name in names:
        load_library(name)
    if plot is not None:
        explain_plot.check_path(plot)
    if json_ is not None and not json_.parent.is_dir():
        raise InputError(f"--json {json_}: there is no folder {json_.parent}")
    with LiveReporter() as reporter:
        about = subject(
            attack,
            suite,
            model=model,
            norm=norm,
            params=param or (),
            images=images,
            overrides=set_ or (),
            device=device,
            reporter=reporter,
        )
        reporter.stage(f"attacking {len(about.x)} images of {about.model}")
        explanation = explain(
            attack,
            names[0],
            names[1],
            about.classifier,
            about.x,
            about.y,
            about.params,
            norm=about.norm,
            targeted=targeted,
            seed=seed,
            images=about.images,
            report=lambda task, done, total: reporter.progress(task, done, total, ""),
        )
    console.print(f"{about.model}, images {', '.join(map(str, about.images))}; {about.source}", highlight=False)
    for part in explain_text.parts(explanation):
        console.print(part, highlight=False)
    if plot is not None:
        explain_plot.write(explanation, plot)
        console.print(f"Drawn: {plot}", highlight=False)
    if json_ is not None:
        write_whole(json_, explain_text.to_json(explanation))
        console.print(f"Written: {json_}", highlight=False)
    sys.exit(0 if explanation.named else 1)
