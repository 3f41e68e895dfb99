"""What is the machine's fault or sparring's own leaves no result: the same run, started again, computes the rest."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from little import SPARRING

from sparring.adapters.errors import StorageError
from sparring.models.model_spec import model_spec
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import is_prepared, prepare
from sparring.models.spec import DataSpec
from sparring.suites.results import store
from sparring.suites.runner.run import Unfinished, look_ahead, run
from sparring.suites.workers.executor import Job
from sparring.suites.workers.local import LocalExecutor


def requests(suite: Path, out: Path) -> list[dict]:
    ahead = look_ahead(suite, out=out)
    data = ahead.suite.one_data.model_dump(exclude_defaults=True)
    return [
        {
            "do": "cell",
            "cell": row.cell.to_json(),
            "data": data,
            "base": str(suite.parent),
            "run": str(out),
            "replace": False,
            "device": "cpu",
        }
        for row in ahead.planned
    ]


def test_a_worker_that_nobody_listens_to_stores_nothing(suite_file, tmp_path):
    """As when its runner is killed: the next message has no reader, which is no failure of the attack."""
    run(suite_file, out=tmp_path / "prepared")
    request = requests(suite_file, tmp_path / "out")[0]
    worker = subprocess.Popen(
        [sys.executable, "-m", "sparring.suites.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker.stdout.readline()  # it is ready
    worker.stdout.close()
    worker.stdin.write(json.dumps({**request, "arrays": []}).encode() + b"\n")
    worker.stdin.flush()
    assert worker.wait() == 0
    worker.stdin.close()
    assert not list((tmp_path / "out").glob("cells/*/result.json"))


def test_a_process_that_is_killed_from_outside_is_started_again(hostile, tmp_path):
    done = run(hostile("vni-fgsm", "square"), out=tmp_path / "out")
    assert list(done.frame["status"]) == ["done", "done"]
    assert done.exit_code == 0
    assert (tmp_path / "mark").exists()


def test_one_that_is_killed_again_and_again_leaves_its_cell_and_the_run_says_so(hostile, sparring, tmp_path):
    suite = hostile("pgd", "square")
    done = run(suite, out=tmp_path / "out")
    assert list(done.frame["status"]) == ["missing", "done"]
    assert done.frame["reason"][0] == (
        "the process was killed (SIGKILL): most likely there was no memory left; tried 3 times"
    )
    assert list(done.left) == [done.frame["cell_id"][0]]
    assert (done.exit_code, done.failed) == (3, 0)
    assert not store.has(tmp_path / "out", done.frame["cell_id"][0])
    # nothing is stored, so that the next run tries again
    said = sparring("run", suite, "--out", tmp_path / "out")
    assert said.returncode == 3
    assert "1 cells have no result (the process was killed (SIGKILL)" in said.stderr
    assert f"To compute them: sparring run {suite}" in said.stderr
    assert list(pd.read_csv(tmp_path / "out" / "results.csv")["status"]) == ["missing", "done"]


def test_a_library_that_ends_the_process_itself_has_failed(hostile, tmp_path):
    done = run(hostile("apgd", "square"), out=tmp_path / "out")
    assert list(done.frame["status"]) == ["failed", "done"]
    assert done.frame["reason"][0] == "SystemExit: 0"


def test_a_full_disk_inside_an_attack_ends_the_run(hostile, tmp_path):
    with pytest.raises(Unfinished, match=r"No space left on device: .*: 1 of 2 cells are finished and stored"):
        run(hostile("square", "hopskipjump"), out=tmp_path / "out")
    assert list(pd.read_csv(tmp_path / "out" / "results.csv")["status"]) == ["done", "missing"]


@pytest.mark.parametrize("full", ["limit", "tmpfs"])
def test_a_store_that_is_full_is_no_result_and_goes_on_when_there_is_room(full, suite_file, tmp_path):
    whole = run(suite_file, out=tmp_path / "whole")
    out = tmp_path / "full"
    out.mkdir()
    limit = None
    if full == "limit":  # no file may be larger than that, and the images are
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))  # noqa: E731
    elif subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", out], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        command = [*SPARRING, "run", str(suite_file), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        assert done.returncode == 3, done.stderr
        assert ("File too large" if full == "limit" else "No space left on device") in done.stderr
        assert "Traceback" not in done.stderr
        assert not [file for file in out.glob("cells/*/result.json") if '"done"' not in file.read_text()]
        if full == "tmpfs":
            subprocess.run(["mount", "-o", "remount,size=16m", out], check=True)
        again = run(suite_file, out=out)
        pd.testing.assert_frame_equal(_timeless(again.frame), _timeless(whole.frame))
    finally:
        if full == "tmpfs":
            subprocess.run(["umount", out], check=True)


def _timeless(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in frame if "seconds" in name])


def test_a_worker_that_can_not_start_is_no_result(suite_file, tmp_path, monkeypatch):
    run(suite_file, out=tmp_path / "prepared")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "queue.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"), prepend=os.pathsep)
    with pytest.raises(Unfinished, match=r"the process can't be started: it ended with code 1.*a broken installation"):
        run(suite_file, out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("cells/*"))


@pytest.mark.parametrize(
    "reason", ["BrokenPipeError: [Errno 32] Broken pipe", "the process was killed (SIGKILL): most likely"]
)
def test_what_earlier_versions_stored_of_disruptions_is_computed_again(reason, suite_file, tmp_path):
    whole = run(suite_file, out=tmp_path / "whole")
    out = tmp_path / "old"
    store.share(tmp_path / "whole", out)
    cell = whole.frame["cell_id"][0]
    shutil.rmtree(store.cell_folder(out, cell))
    store.write(out, cell, {}, store.Result("failed", reason))
    again = run(suite_file, out=out)
    assert again.computed == 1
    pd.testing.assert_frame_equal(_timeless(again.frame), _timeless(whole.frame))


def test_what_a_library_did_stays_a_result(suite_file, tmp_path):
    whole = run(suite_file, out=tmp_path / "whole")
    cell = whole.frame["cell_id"][0]
    store.write(whole.folder, cell, {}, store.Result("failed", "the process crashed (SIGSEGV)"), replace=True)
    again = run(suite_file, out=whole.folder)
    assert again.computed == 0
    assert again.frame["status"][0] == "failed"


def model(seed: int):
    """Another for each test, which damages it."""
    return model_spec(
        name="net", architecture="cnn", framework="torch", train={"epochs": 1, "seed": seed, "samples": 64}
    )


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: b"", lambda content: content + b"x"]
)
def test_a_model_that_is_damaged_in_the_cache_is_made_anew(damage, tmp_path):
    data = DataSpec(name="digits", samples=20)
    ref = prepare(model(11), data=data, base=tmp_path, device="cpu")
    x = np.random.default_rng(0).random((3, *ref.input_shape), np.float32)
    logits = open_model(ref, device="cpu").logits(x)
    file = Path(ref.artifact)
    file.write_bytes(damage(file.read_bytes()))
    assert is_prepared(model(11), data=data, base=tmp_path) is None
    again = prepare(model(11), data=data, base=tmp_path, device="cpu")
    assert again == ref
    np.testing.assert_array_equal(open_model(again, device="cpu").logits(x), logits)


@pytest.mark.parametrize("known", [True, False])
def test_a_model_that_is_damaged_while_a_run_goes_on_is_no_result(known, suite_file, tmp_path):
    text = suite_file.read_text().replace("{epochs: 2, seed: 0}", f"{{epochs: 1, seed: {20 + known}, samples: 64}}")
    suite_file.write_text(text)
    whole = run(suite_file, out=tmp_path / "whole")
    request = requests(suite_file, tmp_path / "out")[0]
    file = Path(request["cell"]["model"]["artifact"])
    record = file.parent / "ref.json"
    if not known:  # as earlier versions wrote it
        record.write_text(json.dumps({**json.loads(record.read_text()), "file_sha256": None}))
    file.write_bytes(file.read_bytes()[:-100])
    executor = LocalExecutor("cpu")
    try:
        with pytest.raises(StorageError, match=r"weights\.safetensors is damaged: run the suite again"):
            executor.run(Job("tensorflow", request))
    finally:
        executor.close()
    assert not (tmp_path / "out").exists()
    again = run(suite_file, out=tmp_path / "out")
    pd.testing.assert_frame_equal(_timeless(again.frame), _timeless(whole.frame))
