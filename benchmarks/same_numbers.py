"""Does a change of the code leave every number as it was? Run the same suites before and after, and compare.

    python benchmarks/same_numbers.py record before          # with the old code
    python benchmarks/same_numbers.py record after           # with the new code, in an empty cache
    python benchmarks/same_numbers.py compare before after   # cell ids, rows, images: to the last bit
    python benchmarks/same_numbers.py resume before          # the new code reads, tabulates and resumes the old runs

``SPARRING_DATA`` must be set. Record both on one machine and with the same number of threads: another number of threads
moves the last bits of a sum. Times are left out of the comparison.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

SPARRING = [sys.executable, "-m", "sparring"]
SUITES = {
    "quickstart": ["run", "quickstart"],
    "agreement": ["agree", "agreement", "--workers", "2"],
    **{
        name: ["run", name, "--profile", "smoke"]
        for name in (
            "transfer-mnist",
            "four-attacks-four-defenses",
            "keras-ensembles-defenses",
            "torchattacks-resnet50",
            "fgsm-patch-distillation",
            "adversarial-fine-tuning",
        )
    },
}
KEY = ["cell_id", "dataset", "model", "defense", "attacker", "library", "attack", "params", "variant", "target"]


def record(out: Path) -> int:
    """Run every suite into a folder of ``out``. Returns how many commands failed."""
    failures = 0
    with tempfile.TemporaryDirectory() as cache:  # a model that was trained by other code must not help
        for name, words in SUITES.items():
            begin = time.perf_counter()
            done = subprocess.run(
                [*SPARRING, *words, "--out", str(out / name)],
                env={**os.environ, "SPARRING_CACHE": cache},
                capture_output=True,
                text=True,
            )
            print(f"{name}: exit {done.returncode}, {time.perf_counter() - begin:.0f} s", flush=True)
            if done.returncode:
                failures += 1
                print(done.stderr[-2000:])
    return failures


def runs(folder: Path) -> list[str]:
    """The paths of all run folders below ``folder``, relative to it."""
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("results.parquet"))


def compare(before: Path, after: Path) -> int:
    """Print every difference between the runs of two folders. Returns their number."""
    differences = [f"only one has the run {name}" for name in sorted({*runs(before)} ^ {*runs(after)})]
    for name in sorted({*runs(before)} & {*runs(after)}):
        own = [f"{name}: {text}" for text in _differences(before / name, after / name)]
        differences += own
        rows = len(pd.read_parquet(after / name / "results.parquet"))
        print(f"{name}: {rows} rows, {len([*_cells(after / name)])} cells, {len(own)} differences", flush=True)
    print("\n".join(differences) or "no difference")
    return len(differences)


def _cells(run: Path) -> Iterator[str]:
    yield from sorted(path.parent.name for path in run.glob("cells/*/result.json"))


def _differences(before: Path, after: Path) -> Iterator[str]:
    for table in ("results.parquet", "transfer.parquet"):
        if (before / table).is_file() or (after / table).is_file():
            yield from _of_tables(pd.read_parquet(before / table), pd.read_parquet(after / table), table)
    for cell in sorted({*_cells(before)} ^ {*_cells(after)}):
        yield f"only one has the cell {cell}"
    for file in sorted(path.relative_to(before) for path in before.rglob("*.np[yz]")):
        if not (after / file).is_file():
            yield f"{file} is missing"
        else:
            yield from _of_arrays(before / file, after / file, str(file))


def _of_tables(before: pd.DataFrame, after: pd.DataFrame, name: str) -> Iterator[str]:
    if list(before.columns) != list(after.columns):
        yield f"{name}: other columns: {sorted({*before.columns} ^ {*after.columns})}"
    columns = [c for c in before.columns if c in after.columns and "seconds" not in c]
    keys = [c for c in KEY if c in columns]
    left, right = (frame[columns].sort_values(keys, ignore_index=True) for frame in (before, after))
    if len(left) != len(right):
        yield f"{name}: {len(left)} and {len(right)} rows"
        return
    for column in columns:
        unequal = ~((left[column] == right[column]) | (left[column].isna() & right[column].isna()))
        if unequal.any():
            row = left[unequal].iloc[0]
            first = {"before": row[column], "after": right[column][unequal].iloc[0]}
            yield f"{name}: {int(unequal.sum())} rows differ in {column}, such as {first} of {dict(row[keys])}"


def _of_arrays(before: Path, after: Path, name: str) -> Iterator[str]:
    left, right = (np.load(path, allow_pickle=False) for path in (before, after))
    left, right = (
        arrays if isinstance(arrays, np.lib.npyio.NpzFile) else {"array": arrays} for arrays in (left, right)
    )
    if sorted(left) != sorted(right):
        yield f"{name}: other arrays"
        return
    for key in left:
        if left[key].dtype != right[key].dtype or left[key].tobytes() != right[key].tobytes():
            yield f"{name}: {key} differs"


def resume(before: Path) -> int:
    """Resume, tabulate and report copies of the runs. Returns how many of these commands failed or computed a cell."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        for name, words in SUITES.items():
            run = Path(folder) / name
            shutil.copytree(before / name, run)
            stored = {path: path.stat().st_mtime_ns for path in run.rglob("result.json")}
            commands = [[*words, "--out", str(run)], ["table", str(run)], ["report", str(run)]]
            for command in commands:
                environment = {**os.environ, "SPARRING_CACHE": cache}
                done = subprocess.run([*SPARRING, *command], env=environment, capture_output=True, text=True)
                same = stored == {path: path.stat().st_mtime_ns for path in run.rglob("result.json")}
                print(
                    f"{name}: {command[0]}: exit {done.returncode}, {'no' if same else 'SOME'} cell computed",
                    flush=True,
                )
                if done.returncode or not same:
                    failures += 1
                    print(done.stderr[-2000:])
            failures += sum(f"{name}: {text}" and not print(text) for text in _differences(before / name, run))
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, names in (("record", ["out"]), ("compare", ["before", "after"]), ("resume", ["before"])):
        for name in names:
            actions.choices.get(action, None) or actions.add_parser(action)
            actions.choices[action].add_argument(name, type=Path)
    arguments = vars(parser.parse_args())
    sys.exit(bool({"record": record, "compare": compare, "resume": resume}[arguments.pop("action")](**arguments)))


if __name__ == "__main__":
    main()
