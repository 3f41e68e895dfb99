"""Whether a run that is killed again and again ends with the table of one that nobody disturbed, to the last digit.

    python benchmarks/kills.py [--kills 200] [--pause SECONDS] [--burners 2] [--workers 2] [--seed 0]

A little suite with cells on torch and on Keras runs once in peace. Then, with all cores kept busy, it runs in rounds,
each with an empty cache and an empty folder: at random moments its runner, one of its workers or all of them are killed
or told to end, and whenever the run has ended, it is started again with the same words, until it says that every cell
is done. Each round's rows, times aside, and all its images must be those of the first run. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

from sparring.suites.results import store

SUITE = """\
name: kills
data: {name: digits, samples: 12}
models:
  - {name: net, architecture: cnn, framework: torch, train: {epochs: 1, seed: 0, samples: 64}}
  - {name: keras, architecture: dnn, framework: keras-torch, train: {epochs: 1, seed: 0, samples: 64}}
attacks:
  - {attack: fgsm, eps: [0.1, 0.2]}
  - {attack: pgd, eps: 0.1, steps: 5}
"""
SPARRING = [sys.executable, "-c", "from sparring.suites.cli.app import main; main()"]
KINDS = [
    ("a worker", signal.SIGKILL),
    ("a worker", signal.SIGTERM),
    ("the runner", signal.SIGKILL),
    ("all", signal.SIGKILL),
    ("all", signal.SIGTERM),
    ("all", signal.SIGINT),
]
ENDS = (0, 3, 130, *(-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
"""What a disturbed run may end with: done, cells left, stopped, or the signal itself if Python did not listen yet."""


def main() -> None:
    """Kill, compare and print; exit code 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, help="mean seconds between two kills (default: a quarter of a run's)")
    parser.add_argument("--burners", type=int, default=os.cpu_count(), help="processes that keep the cores busy")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    kills: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="sparring-kills-") as name, burning(chosen.burners):
        home = Path(name)
        (home / "kills.yaml").write_text(SUITE)
        began = time.monotonic()
        process = start(home, "peace", chosen.workers)
        if process.wait():
            sys.exit((home / "peace.log").read_text())
        seconds = time.monotonic() - began
        print(f"undisturbed, with {chosen.burners} busy processes beside it: {seconds:.0f} s", flush=True)
        rounds = 0
        while kills.total() < chosen.kills:
            rounds += 1
            before = kills.total()
            pause = chosen.pause or seconds / 4
            starts = disturbed(home, f"round{rounds}", chosen.workers, pause, rng, kills, chosen.kills)
            difference = compare(home / "peace", home / f"round{rounds}")
            print(
                f"round {rounds}: {kills.total() - before} kills, {starts} starts: {difference or 'the same'}",
                flush=True,
            )
            if difference:
                sys.exit((home / f"round{rounds}.log").read_text())
    print(
        f"{kills.total()} kills in {rounds} rounds: {', '.join(f'{n} × {what}' for what, n in sorted(kills.items()))}"
    )
    print("every round ended with the rows and the images of the undisturbed run, to the last digit")


def start(home: Path, out: str, workers: int) -> subprocess.Popen[bytes]:
    """A run into ``out``, with a cache of its own, in a process group of its own."""
    log = (home / f"{out}.log").open("ab")
    return subprocess.Popen(
        [*SPARRING, "run", "kills.yaml", "--out", out, "--workers", str(workers), "--device", "cpu"],
        cwd=home,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "SPARRING_CACHE": str(home / f"{out}-cache"), "OMP_NUM_THREADS": "1"},
    )


def disturbed(
    home: Path, out: str, workers: int, pause: float, rng: np.random.Generator, kills: Counter[str], most: int
) -> int:
    """Run and kill until the run says that all is done; how often it was started."""
    starts = 0
    while True:
        starts += 1
        process = start(home, out, workers)
        while process.poll() is None and kills.total() < most:
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.exponential(pause))
                break
            what, number = KINDS[rng.integers(len(KINDS))]
            if kill(process.pid, what, number, rng):
                kills[f"{what} {number.name}"] += 1
        code = process.wait()
        if code == 0:
            return starts
        if code not in ENDS:
            sys.exit(f"{out} ended with code {code}:\n{(home / f'{out}.log').read_text()}")


def kill(runner: int, what: str, number: signal.Signals, rng: np.random.Generator) -> bool:
    """Send the signal; whether there was a process to hear it."""
    workers = children(runner)
    try:
        if what == "all":
            os.killpg(runner, number)
        elif what == "the runner":
            os.kill(runner, number)
        elif not workers:
            return False
        else:
            os.kill(workers[rng.integers(len(workers))], number)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    """The processes that this one started and that are alive."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return found


def compare(peace: Path, other: Path) -> str:
    """What differs between two runs, times aside; empty if nothing does."""
    one, two = (pd.read_parquet(run / "results.parquet") for run in (peace, other))
    timeless = [name for name in one if "seconds" not in name]
    try:
        pd.testing.assert_frame_equal(one[timeless], two[timeless], check_exact=True)
    except AssertionError as error:
        return str(error)
    for cell in one["cell_id"]:
        images = [store.load(store.cell_folder(run, cell) / "images.npz") for run in (peace, other)]
        for name, array in images[0].items():
            if array.tobytes() != images[1][name].tobytes():
                return f"{name} of {cell}"
    return ""


@contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


if __name__ == "__main__":
    main()
