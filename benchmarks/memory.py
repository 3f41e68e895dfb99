"""What a run takes of memory, all its processes together, for a few pictures and for many.

    python benchmarks/memory.py --samples 100 1000

FGSM (torchattacks and ART, a worker each) on MobileNet v2 and pictures of 224 pixels, from the command line to the
table, each in an empty cache. Every half second the kernel is asked of the run and all its children (Linux: /proc):
`resident` is the sum of what each has in memory, pages that several share counted for each; `proportional` counts them
once; `own` is memory without a file behind it, which the system can't take back. Peaks, in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

KINDS = {"resident": "Rss", "proportional": "Pss", "own": "Anonymous"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    print(f"{'pictures':>8} " + " ".join(f"{kind:>12}" for kind in KINDS) + f" {'processes':>9} {'seconds':>8}")
    for samples in asked.samples:
        begin = time.perf_counter()
        peaks, processes = measured(samples, asked.batch_size, asked.workers)
        told = " ".join(f"{peaks[kind] / 1e6:12,.0f}" for kind in KINDS)
        print(f"{samples:8} {told} {processes:9} {time.perf_counter() - begin:8.0f}", flush=True)


def measured(samples: int, batch_size: int, workers: int) -> tuple[dict[str, int], int]:
    """The peak of each kind in bytes, and the most processes there were at once."""
    suite = {
        "name": "memory",
        "data": {"name": "imagenet-samples", "samples": samples, "resize": 256, "crop": 224},
        "models": [
            {"name": "net", "architecture": "mobilenet_v2", "framework": "torch", "weights": "imagenet-mobilenet"}
        ],
        "libraries": ["torchattacks", "art"],
        "attacks": [{"attack": "fgsm", "eps": "4/255"}],
        "batch_size": batch_size,
    }
    peaks, processes = dict.fromkeys(KINDS, 0), 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        file = Path(folder) / "memory.yaml"
        file.write_text(yaml.safe_dump(suite))
        command = [sys.executable, "-m", "sparring", "run", str(file), "--out", f"{folder}/out"]
        environment = {**os.environ, "SPARRING_CACHE": f"{folder}/cache"}
        with open(f"{folder}/log", "w+") as log:
            run = subprocess.Popen([*command, "--workers", str(workers)], stdout=log, stderr=log, env=environment)
            while run.poll() is None:
                every = family(run.pid)
                processes = max(processes, len(every))
                held = [rollup(pid) for pid in every]
                for kind, name in KINDS.items():
                    peaks[kind] = max(peaks[kind], sum(one.get(name, 0) for one in held))
                time.sleep(0.5)
            log.seek(0)
            if run.returncode:
                sys.exit(log.read())
        done = json.loads((Path(folder) / "out" / "manifest.json").read_text())["cells"]
        assert len(done) == 2
    return peaks, processes


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        threads = [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended
        return []
    return [pid, *(one for child in {*children, *threads} for one in family(int(child)))]


def rollup(pid: int) -> dict[str, int]:
    """Bytes by kind, of one process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


if __name__ == "__main__":
    main()
