"""`sparring agree`: compare every pair of libraries, in a suite that runs with the referee or in a finished run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.adapters.process import ProcessDied, ProcessFailed
from sparring.models.data import datasets
from sparring.models.storage import write_whole
from sparring.suites.compare import heatmap
from sparring.suites.compare import table as agreement_table
from sparring.suites.compare.agreement import Agreement, measure, narrowed, only, verified, with_referee
from sparring.suites.compare.steadiness import SEEDS
from sparring.suites.plan.expand import single, with_transforms
from sparring.suites.plan.file import Suite, load_suite
from sparring.suites.results import manifest, store
from sparring.suites.runner.preparation import prepare
from sparring.suites.runner.run import default_folder, run
from sparring.suites.workers.executor import Job, backend
from sparring.suites.workers.local import LocalExecutor
from sparring.suites.workers.reporter import Reporter


def agree(
    source: str,
    *,
    out: str | Path | None = None,
    profile: str | None = None,
    overrides: Iterable[str] = (),
    reconcile: bool = False,
    verify: bool = True,
    workers: int = 1,
    limit_seconds: float | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Agreement:
    """Compare every pair of libraries, routes and frameworks of a suite (which runs first) or of a run folder.

    A suite runs with the referee beside its libraries and by both routes, into ``out``, by default
    ``runs/NAME-agree`` (with ``reconcile`` ``runs/NAME-reconciled``). With ``verify``, attacks whose differences the
    ledger explains run once more without these differences, into ``OUT/reconciled``: a pair that still differs is
    unexplained.

    Writes ``agreement.csv``, ``agreement.json`` and a heat map for each attack into the run folder. Raises
    ``InputError`` and ``Interrupted`` as ``run`` does.
    """
    report = reporter or Reporter()

    def compare(folder: Path, nudged: Sequence[Path] = ()) -> Agreement:
        report.stage("comparing every pair")
        return measure(folder, _marker(folder, device, report), nudged)

    if Path(source).is_dir():
        if reconcile or profile or tuple(overrides) or out:
            raise InputError(
                f"{source} is a finished run: it is compared as it is. --reconcile, --profile, --set and --out go with "
                "a suite, which is run anew"
            )
        agreement = compare(Path(source))
    else:
        suite = load_suite(source, profile=profile, overrides=overrides)
        suffix = "reconciled" if reconcile else "agree"
        folder = Path(out) if out else Path(f"{default_folder(suite, profile)}-{suffix}")
        run_suite = partial(
            run,
            source,
            profile=profile,
            overrides=overrides,
            workers=workers,
            limit_seconds=limit_seconds,
            device=device,
            reporter=reporter,
        )
        run_suite(out=folder, amend=partial(with_referee, reconcile=reconcile))
        agreement = _steady(compare(folder), reconcile, run_suite, compare, report)
        if verify and not reconcile:
            agreement = _verified(agreement, run_suite, compare, report)
    write_whole(agreement.folder / "agreement.csv", agreement.pairs.to_csv(index=False, lineterminator="\n"))
    write_whole(agreement.folder / "agreement.json", json.dumps(agreement_table.plain(agreement), indent=2) + "\n")
    report.stage("drawing heat maps")
    heatmap.draw(agreement)
    return agreement


def _steady(
    agreement: Agreement,
    reconcile: bool,
    run_suite: Callable[..., object],
    compare: Callable[..., Agreement],
    report: Reporter,
) -> Agreement:
    """Where a pair is unexplained, set the images apart on which the attack hangs on a rounding."""
    attacks = agreement.unexplained_attacks
    if not attacks:
        return agreement
    report.stage("once more, with every image moved by a rounding: does what is unexplained hang on it?")
    folders = []
    for seed in SEEDS:
        folders.append(agreement.folder / f"nudged-{seed}")
        run_suite(
            out=folders[-1],
            amend=lambda checked, seed=seed: only(
                with_referee(checked, reconcile=reconcile).model_copy(update={"nudge": seed}), attacks
            ),
        )
    return compare(agreement.folder, folders)


def _verified(
    agreement: Agreement, run_suite: Callable[..., object], compare: Callable[..., Agreement], report: Reporter
) -> Agreement:
    """Check the explained pairs, and leave out the causes that change nothing on these images."""
    explained = agreement.explained_attacks()
    if explained:
        report.stage("once more, with the ledger's differences taken away")
        again = agreement.folder / "reconciled"
        store.share(agreement.folder, again)
        run_suite(out=again, amend=lambda checked: only(with_referee(checked, reconcile=True), explained))
        agreement = verified(agreement, _steady(compare(again), True, run_suite, compare, report))
    doubtful = agreement.explained_attacks(doubtful=True)
    if doubtful:
        report.stage("once more, with the differences that may show taken away one at a time")
        each = agreement.folder / "each"
        store.share(agreement.folder, each)
        run_suite(out=each, amend=lambda checked: only(checked.model_copy(update={"reconcile": "each"}), doubtful))
        agreement = narrowed(agreement, each)
    return agreement


def _marker(folder: Path, device: str, report: Reporter) -> Callable[[dict[str, list[str]]], None]:
    """A function that stores which pixels have no gradient; worker processes open the models for it."""

    def mark(cells_of: dict[str, list[str]]) -> None:
        if not cells_of:
            return
        content = manifest.read(folder)
        base = Path(content.get("home", "."))
        suite = with_transforms(single(Suite.model_validate(content["suite"])), base)
        executor = LocalExecutor(device, slots=1)
        try:
            data = datasets.load(suite.one_data, base=base)
            models = prepare(str(folder), suite, data, base, executor, device, report)
            for name, cells in cells_of.items():
                if name not in models or models[name].digest != content["models"][name]["digest"]:
                    report.stage(f"{name} is not there any more: pixels without a gradient are not set apart")
                    continue
                ref, task = models[name], f"{name}: pixels without a gradient"
                request = {"do": "flat", "model": ref.to_json(), "run": str(folder), "cells": cells, "device": device}
                executor.run(Job(backend(ref.framework), request), partial(report.progress, task))
        except (InputError, ProcessFailed, ProcessDied) as error:
            report.stage(f"pixels without a gradient are not set apart: {error}")
        finally:
            executor.close()

    return mark
