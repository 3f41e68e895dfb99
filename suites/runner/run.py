"""Run a suite: prepare what it needs, compute the cells that are missing, tabulate."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import Disruption, InputError, SparringError, StorageError
from sparring.models.data import datasets
from sparring.models.data.datasets import Dataset
from sparring.models.spec import DataSpec
from sparring.suites.plan.expand import parts as parts_of
from sparring.suites.plan.expand import with_transforms
from sparring.suites.plan.file import Suite, home, load_suite
from sparring.suites.plan.plan import Planned, plan
from sparring.suites.plan.plan import check as check_plan
from sparring.suites.plan.profiles import reduced
from sparring.suites.results import manifest, store
from sparring.suites.results import rows as results
from sparring.suites.results.manifest import Described
from sparring.suites.runner.cells import compute
from sparring.suites.runner.preparation import prepare_all, prepared
from sparring.suites.transfer import matrix as transfer
from sparring.suites.transfer import plot
from sparring.suites.transfer.judge_all import judge_all
from sparring.suites.workers.local import LocalExecutor
from sparring.suites.workers.reporter import Reporter

if TYPE_CHECKING:
    import pandas as pd

    from sparring.suites.transfer.matrix import Transfer
from sparring.models.prepared.kinds.table import kind_of


class Unfinished(SparringError):
    """The run could not go on, for a disk that is full or the like; whatever was finished is stored."""

    exit_code = 3


class Interrupted(Unfinished):
    """The run was stopped by Ctrl-C or SIGTERM; whatever was finished is stored."""

    exit_code = 130


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its rows, and how many cells were computed now and found stored."""

    folder: Path
    frame: pd.DataFrame
    computed: int
    stored: int
    transfer: Transfer | None = None
    """the transfer matrix, where the suite asks for one"""
    left: Mapping[str, str] = field(default_factory=dict)
    """ids of the cells without a result -> why: what was neither the library's fault nor the model's"""

    @property
    def failed(self) -> int:
        """Rows that failed or ran out of time, of the transfer matrix too."""
        cells = int(self.frame["status"].isin(["failed", "timeout"]).sum())
        return cells or (self.transfer.failed if self.transfer else 0)

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, 1 where something failed, 3 where cells are left without a result."""
        return Unfinished.exit_code if self.left else 1 if self.failed else 0


@dataclass(frozen=True)
class Outlook:
    """What a run would do: per model how many cells are stored and to be computed, and what must be prepared first."""

    suite: Suite
    folder: Path
    parts: tuple[tuple[Suite, Dataset], ...]
    """the suite once for each data set, with every model in every defense"""
    planned: tuple[Planned, ...]
    stored: frozenset[str]
    to_prepare: Mapping[tuple[str, str], str]
    """data set, model name -> what has to be done first"""


@contextmanager
def _unfinished() -> Iterator[None]:
    """Within the context what the machine is at fault for is raised as ``Unfinished``."""
    try:
        yield
    except (Disruption, OSError) as error:
        raise Unfinished(_fault(error)) from error


def _fault(error: BaseException) -> str:
    return fault(error) or str(error)


@_unfinished()
def run(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    profile: str | None = None,
    overrides: Iterable[str] = (),
    workers: int = 1,
    retry_failed: bool = False,
    limit_seconds: float | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    amend: Callable[[Suite], Suite] | None = None,
) -> Run:
    """Run a suite (a file, the name of a study that ships, or a dictionary) into a folder, ``runs/NAME`` by default.

    Cells already stored are not computed again; with ``retry_failed`` those that failed or ran out of time are.
    ``limit_seconds`` bounds each cell's attack. ``device`` is auto, cpu or cuda. ``amend`` changes the checked suite
    before it is run. Raises ``InputError`` for bad input, before anything is written, ``Interrupted`` on Ctrl-C or
    SIGTERM, with everything finished stored and tabulated, and ``Unfinished`` where nothing more can be stored.
    """
    report = reporter or Reporter()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}. Valid: auto, cpu, cuda")
    if workers < 1:
        raise InputError(f"workers: {workers} is not at least 1")
    where = str(source) if not isinstance(source, Mapping) else "the suite"
    report.stage(f"checking {where}")
    overrides = list(overrides)
    suite = load_suite(source, profile=profile, overrides=overrides)
    if amend is not None:
        suite = amend(suite)
    base = home(source)
    folder = Path(out) if out is not None else default_folder(suite, profile)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: this is a file, not a folder")
    described = Described(profile, reduced(source, suite, profile, overrides), command(source, out, profile, overrides))
    parts = _parts(where, suite, base, report)
    with _sigterm_interrupts():
        executor = LocalExecutor(device, slots=workers)
        try:
            every = prepare_all(where, parts, base, executor, device, report)
            # the part whose images travel, and its models
            travels, models = next(
                ((part, refs) for (part, _), refs in zip(parts, every, strict=True) if part.transfer is not None),
                (parts[0][0], every[0]),
            )
            if suite.transfer is not None:
                try:
                    transfer.check(travels, models)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
            planned = [row for (part, data), refs in zip(parts, every, strict=True) for row in plan(part, data, refs)]
            todo = _missing(planned, folder, retry_failed)
            manifest.write(folder, suite, base, parts, every, planned, device, described)
            store.sweep(folder)
            report.stage(f"{len(todo)} cells to compute, {len(planned) - len(todo)} stored or not possible")
            try:
                left = compute(todo, folder, base, device, limit_seconds, retry_failed, executor, report)
                targets = {spec.name: models[spec.name] for spec in travels.targets}
                judged = transfer.judged(travels, planned)
                failures = judge_all(folder, judged, targets, device=device, executor=executor, report=report)
            except (KeyboardInterrupt, Disruption, StorageError, OSError) as error:
                finished = sum(store.has(folder, row.cell.id) for row in todo)
                stored = f"{finished} of {len(todo)} cells are finished and stored"
                with suppress(OSError):  # the disk may be full
                    results.write(results.frame(suite.name, planned, folder, profile), folder)
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(f"stopped: {stored}") from None
                raise Unfinished(f"{_fault(error)}: {stored}") from error
        except KeyboardInterrupt:
            raise Interrupted("stopped before the first cell; trained models are kept") from None
        finally:
            executor.close()
    table = results.frame(suite.name, planned, folder, profile, left)
    results.write(table, folder)
    if suite.transfer is None:
        return Run(folder, table, len(todo), len(planned) - len(todo), left=left)
    transferred = transfer.matrix(travels, judged, models, folder, failures)
    transfer.write(transferred)
    report.stage("drawing heat maps")
    plot.draw(transferred)
    return Run(folder, table, len(todo), len(planned) - len(todo), transferred, left)


def look_ahead(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    profile: str | None = None,
    overrides: Iterable[str] = (),
    retry_failed: bool = False,
    reporter: Reporter | None = None,
) -> Outlook:
    """The plan of a run, without training, attacking or writing anything. Raises ``InputError`` as ``run`` does."""
    where = str(source) if not isinstance(source, Mapping) else "the suite"
    suite = load_suite(source, profile=profile, overrides=overrides)
    base = home(source)
    folder = Path(out) if out is not None else default_folder(suite, profile)
    parts = _parts(where, suite, base, reporter or Reporter())
    planned: list[Planned] = []
    waiting: dict[tuple[str, str], str] = {}
    for part, data in parts:
        ready = prepared(where, part, data, base)
        planned += plan(part, data, ready)
        waiting |= {(data.name, spec.name): kind_of(spec).work(spec) for spec in part.models if spec.name not in ready}
    todo = {row.cell.id for row in _missing(planned, folder, retry_failed)}
    stored = frozenset(row.cell.id for row in planned) - todo
    return Outlook(suite, folder, tuple(parts), tuple(planned), stored, waiting)


def command(
    source: str | Path | Mapping[str, Any], out: str | Path | None, profile: str | None, overrides: Iterable[str]
) -> str:
    """The line that repeats a run; empty for a suite that is no file."""
    if isinstance(source, Mapping):
        return ""
    words = ["sparring", "run", str(source)]
    words += ["--out", str(out)] if out else []
    words += ["--profile", profile] if profile else []
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)


def usual_workers(device: str) -> int:
    """How many processes a run takes unless told: each may take 2 GB, and on a GPU all of its memory."""
    gpu = device == "cuda" or (device == "auto" and bool(manifest.gpus()))
    return 1 if gpu else min(2, os.cpu_count() or 1)


def default_folder(suite: Suite, profile: str | None) -> Path:
    """``runs/NAME``, or ``runs/NAME-PROFILE``."""
    return Path("runs") / (suite.name + (f"-{profile}" if profile else ""))


def _parts(where: str, suite: Suite, base: Path, report: Reporter) -> list[tuple[Suite, Dataset]]:
    try:
        single = parts_of(suite)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    try:
        single = tuple(with_transforms(part, base) for part in single)
    except InputError as error:
        raise InputError(f"{where}: data: {error}") from None
    parts = [(part, _load_data(where, part.one_data, base, report)) for part in single]
    for part, data in parts:
        try:
            check_plan(part, data)
        except InputError as error:
            raise InputError(f"{where}: attacks: {error}") from None
    return parts


def _load_data(where: str, spec: DataSpec, base: Path, report: Reporter) -> Dataset:
    def progress(done: int, total: int, what: str) -> None:
        report.progress(f"data {spec.name or spec.path}", done, total, what)

    try:
        return datasets.load(spec, base=base, progress=progress)
    except InputError as error:
        raise InputError(f"{where}: data: {error}") from None


def _missing(planned: list[Planned], folder: Path, retry_failed: bool) -> list[Planned]:
    """The rows to compute, each cell once."""
    todo: dict[str, Planned] = {}
    for row in planned:
        if row.unsupported is None and row.cell.id not in todo and _is_missing(folder, row, retry_failed):
            todo[row.cell.id] = row
    return list(todo.values())


def _is_missing(folder: Path, row: Planned, retry_failed: bool) -> bool:
    if not store.has(folder, row.cell.id):
        return True
    result = store.read(folder, row.cell.id) if retry_failed else None
    return result is not None and result.status in ("failed", "timeout")


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does. Only the main thread may say so; elsewhere nothing is changed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
