"""`sparring agree`: run a suite with the referee beside its libraries, or take a run, and compare every pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from sparring.adapters.errors import InputError
from sparring.adapters.process import ProcessDied, ProcessFailed
from sparring.models.data import datasets
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
    """Compare every pair of libraries, routes and frameworks of a suite (which is run first) or of a run folder.

    A suite runs with the referee beside its libraries and by both routes, into ``runs/NAME-agree`` (with ``reconcile``
    ``runs/NAME-reconciled``) unless ``out`` says where. With ``verify``, attacks whose differences the ledger explains
    run once more with these taken away, into ``OUT/reconciled``: a pair that still differs is unexplained.

    Leaves ``agreement.csv``, ``agreement.json`` and a heat map for each attack in the run folder. Raises ``InputError``
    and ``Interrupted`` as ``run`` does.
    """
    report = reporter or Reporter()

    def compared(where: Path, nudged: Sequence[Path] = ()) -> Agreement:
        report.stage("comparing every pair")
        return measure(where, _marker(where, device, report), nudged)

    if Path(source).is_dir():
        if reconcile or profile or tuple(overrides) or out:
            raise InputError(
                f"{source} is a finished run: it is compared as it is. --reconcile, --profile, --set and --out go with "
                "a suite, which is run anew"
            )
        found = compared(Path(source))
    else:
        suite = load_suite(source, profile=profile, overrides=overrides)
        suffix = "reconciled" if reconcile else "agree"
        folder = Path(out) if out else Path(f"{default_folder(suite, profile)}-{suffix}")
        ran = partial(
            run, source, profile=profile, overrides=overrides, workers=workers, limit_seconds=limit_seconds,
            device=device, reporter=reporter,
        )  # fmt: skip
        ran(out=folder, amend=partial(with_referee, reconcile=reconcile))
        found = _steady(compared(folder), reconcile, ran, compared, report)
        if verify and not reconcile:
            found = _verified(found, ran, compared, report)
    store.write_whole(found.folder / "agreement.csv", found.pairs.to_csv(index=False, lineterminator="\n"))
    store.write_whole(found.folder / "agreement.json", json.dumps(agreement_table.plain(found), indent=2) + "\n")
    report.stage("drawing heat maps")
    heatmap.draw(found)
    return found


def _steady(
    found: Agreement, reconcile: bool, ran: Callable[..., object], compared: Callable[..., Agreement], report: Reporter
) -> Agreement:
    """Where something is unexplained, images on which an attack hangs on a rounding are set apart."""
    attacks = found.unexplained_attacks
    if not attacks:
        return found
    report.stage("once more, with every image moved by a rounding: does what is unexplained hang on it?")
    folders = []
    for seed in SEEDS:
        folders.append(found.folder / f"nudged-{seed}")
        ran(
            out=folders[-1],
            amend=lambda checked, seed=seed: only(
                with_referee(checked, reconcile=reconcile).model_copy(update={"nudge": seed}), attacks
            ),
        )
    return compared(found.folder, folders)


def _verified(
    found: Agreement, ran: Callable[..., object], compared: Callable[..., Agreement], report: Reporter
) -> Agreement:
    """The explained pairs checked, and the causes that do nothing on these images left out."""
    explained = found.explained_attacks()
    if explained:
        report.stage("once more, with the ledger's differences taken away")
        again = found.folder / "reconciled"
        store.share(found.folder, again)
        ran(out=again, amend=lambda checked: only(with_referee(checked, reconcile=True), explained))
        found = verified(found, _steady(compared(again), True, ran, compared, report))
    doubtful = found.explained_attacks(doubtful=True)
    if doubtful:
        report.stage("once more, with the differences that may show taken away one at a time")
        each = found.folder / "each"
        store.share(found.folder, each)
        ran(out=each, amend=lambda checked: only(checked.model_copy(update={"reconcile": "each"}), doubtful))
        found = narrowed(found, each)
    return found


def _marker(folder: Path, device: str, report: Reporter) -> Callable[[dict[str, list[str]]], None]:
    """Stores where pixels have no gradient; in worker processes, for that takes the models."""

    def mark(wanted: dict[str, list[str]]) -> None:
        if not wanted:
            return
        content = manifest.read(folder)
        base = Path(content.get("home", "."))
        suite = with_transforms(single(Suite.model_validate(content["suite"])), base)
        executor = LocalExecutor(device, slots=1)
        try:
            data = datasets.load(suite.one_data, base=base)
            models = prepare(str(folder), suite, data, base, executor, device, report)
            for name, cells in wanted.items():
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
