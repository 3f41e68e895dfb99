"""Runs as their users make them: interrupted, killed, doubled, with libraries that crash."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from little import SPARRING, SUITE

from sparring.adapters.errors import InputError
from sparring.suites import run
from sparring.suites.runner.run import look_ahead


def without_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in frame if "seconds" in name])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "little.yaml").write_text(SUITE)
    return run(folder / "little.yaml", out=folder / "out")


def test_a_run_leaves_rows_images_and_a_manifest(finished):
    frame = finished.frame
    assert list(frame["status"]) == ["done"] * 8
    assert (finished.computed, finished.stored, finished.failed) == (8, 0, 0)
    for _, row in frame.iterrows():
        with np.load(finished.folder / "cells" / row["cell_id"] / "images.npz", allow_pickle=False) as stored:
            adv, y = stored["pred_adv"], stored["y"]
            assert np.abs(stored["x_adv"].astype(np.float64) - stored["x"]).max() <= row["eps"] + 1e-6
            assert row["robust_accuracy"] == (adv == y).mean()
    on_disk = pd.read_csv(finished.folder / "results.csv")
    assert list(on_disk["cell_id"]) == list(frame["cell_id"])
    assert list(on_disk["robust_accuracy"]) == list(frame["robust_accuracy"])
    pd.testing.assert_frame_equal(pd.read_parquet(finished.folder / "results.parquet"), frame)
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["packages"]["torch"]
    assert manifest["models"]["net"]["digest"]
    assert manifest["cells"] == list(frame["cell_id"])


def test_the_three_libraries_run_fgsm_to_the_same_images(finished):
    fgsm = finished.frame[finished.frame["attack"] == "fgsm"]
    for _, group in fgsm.groupby("eps"):
        images = [
            np.load(finished.folder / "cells" / cell / "images.npz", allow_pickle=False)["x_adv"]
            for cell in group["cell_id"]
        ]
        assert len(images) == 3
        assert max(float(np.abs(images[0] - other).max()) for other in images[1:]) <= 1e-6


def test_the_same_suite_gives_the_same_numbers_elsewhere_and_with_two_workers(finished, tmp_path):
    again = run(_suite(tmp_path), out=tmp_path / "out", workers=2)
    pd.testing.assert_frame_equal(without_time(again.frame), without_time(finished.frame))


def _suite(folder: Path, text: str = SUITE) -> Path:
    path = folder / "little.yaml"
    path.write_text(text)
    return path


def test_a_second_run_computes_nothing_and_changes_nothing(finished):
    before = (finished.folder / "results.csv").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in finished.folder.glob("cells/*/*")}
    suite = finished.folder.parent / "little.yaml"
    ahead = look_ahead(suite, out=finished.folder)
    assert len(ahead.stored) == 8
    assert not ahead.to_prepare
    again = run(suite, out=finished.folder)
    assert (again.computed, again.stored) == (0, 8)
    assert (finished.folder / "results.csv").read_text() == before
    assert stamps == {path: path.stat().st_mtime_ns for path in finished.folder.glob("cells/*/*")}


def test_a_change_of_what_is_computed_is_another_cell_and_a_change_of_names_is_not(finished, tmp_path):
    def ids(text):
        return [row.cell.id for row in look_ahead(_suite(tmp_path, text), out=tmp_path / "x").planned]

    same = ids(SUITE.replace("name: little", "name: other").replace("name: net", "name: renamed"))
    assert same == list(finished.frame["cell_id"])
    for old, new in [("samples: 24", "samples: 23"), ("[0.1, 0.2]", "[0.11, 0.21]"), ("queries: 20", "queries: 21")]:
        assert not set(ids(SUITE.replace(old, new))) >= set(finished.frame["cell_id"])
    assert not set(ids(SUITE + "seeds: [1]\n")) & set(finished.frame["cell_id"])
    assert not set(ids(SUITE + "batch_size: 7\n")) & set(finished.frame["cell_id"])


def test_whatever_a_library_does_is_a_row_that_says_so(hostile, tmp_path):
    attacks = ["fgsm", "bim", "ni-fgsm", "si-ni-fgsm", "vmi-fgsm", "uniform-noise", "square"]
    done = run(hostile(*attacks), out=tmp_path / "out")
    rows = done.frame.set_index("attack")
    assert list(rows["status"]) == ["failed", "failed", "failed", "failed", "failed", "done", "done"]
    assert rows.loc["fgsm", "reason"] == "hostile:LIBRARY's fgsm raised RuntimeError: index 7 is out of range"
    assert "SIGABRT" in rows.loc["bim", "reason"]
    assert rows.loc["ni-fgsm", "reason"] == "out of memory"
    assert "NaN or infinity in 1 of 24 images" in rows.loc["si-ni-fgsm", "reason"]
    assert "(24, 1, 7, 8)" in rows.loc["vmi-fgsm", "reason"]
    assert "left the budget by up to 0.2" in rows.loc["uniform-noise", "notes"]
    assert done.failed == 5
    assert rows.loc[["fgsm", "bim"], "robust_accuracy"].isna().all()
    with np.load(tmp_path / "out" / "cells" / rows.loc["uniform-noise", "cell_id"] / "images.npz") as stored:
        assert np.abs(stored["x_adv"].astype(np.float64) - stored["x"]).max() <= 0.1 + 1e-6
    with np.load(tmp_path / "out" / "cells" / rows.loc["square", "cell_id"] / "images.npz") as stored:
        assert stored["x_adv"].max() <= 1


def test_the_time_limit_is_a_row_too(hostile, tmp_path):
    done = run(hostile("mi-fgsm"), out=tmp_path / "out", limit_seconds=1)  # which sleeps
    assert list(done.frame["status"]) == ["timeout"]
    assert done.frame["reason"][0] == "the time limit of 1 s passed"
    assert done.frame["robust_accuracy"].isna().all()
    assert done.failed == 1


def test_what_failed_is_tried_again_only_when_asked(hostile, tmp_path, monkeypatch):
    suite = hostile("fgsm", "uniform-noise")
    first = run(suite, out=tmp_path / "out")
    assert list(first.frame["status"]) == ["failed", "done"]
    assert run(suite, out=tmp_path / "out").computed == 0
    assert [row.cell.attack for row in look_ahead(suite, out=tmp_path / "out", retry_failed=True).planned][:1] == [
        "fgsm"
    ]
    again = run(suite, out=tmp_path / "out", retry_failed=True)
    assert again.computed == 1
    assert list(again.frame["status"]) == ["failed", "done"]


def test_a_raw_attacks_own_norm_and_seed_reach_the_library(tmp_path):
    text = SUITE[: SUITE.index("attacks:")] + "attacks:\n"
    text += '  - {attack: "torchattacks:Square", params: {norm: L2, eps: 0.5, n_queries: 10, seed: 3}}\n'
    done = run(_suite(tmp_path, text), out=tmp_path / "out")
    assert list(done.frame["status"]) == ["done"]
    assert json.loads(done.frame["library_call"][0])["kwargs"]["norm"] == "L2"


def test_killed_at_random_moments_a_run_ends_with_the_table_of_an_undisturbed_one(tmp_path):
    """`benchmarks/kills.py`, which by itself kills two hundred times."""
    script = Path(__file__).parents[3] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, str(script), "--kills", "8"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended with the rows and the images of the undisturbed run, to the last digit" in done.stdout


def test_no_worker_outlives_a_killed_runner(hostile, tmp_path):
    suite = hostile("mi-fgsm")  # sleeps
    process = subprocess.Popen(
        [*SPARRING, "run", str(suite), "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    )
    workers = _wait(lambda: _workers(process.pid))
    process.kill()
    process.wait()
    _wait(lambda: not any(_alive(worker) for worker in workers))


def _workers(pid: int) -> list[str]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in _read(thread).split()]
    return [child for child in children if "sparring.suites.worker" in _read(Path(f"/proc/{child}/cmdline"))]


def _alive(pid: str) -> bool:
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def _read(path: Path) -> str:
    """What the kernel says of a process or thread; nothing once it is gone."""
    with suppress(OSError):
        return path.read_text()
    return ""


def _wait(condition, seconds=600):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_a_run_says_how_to_go_on(sign, hostile, tmp_path):
    suite = hostile("uniform-noise", "mi-fgsm")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*SPARRING, "run", str(suite), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    _wait(lambda: list(out.glob("cells/[!.]*/result.json")))  # with a dot it is still being written
    process.send_signal(sign)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped: 1 of 2 cells are finished" in said
    assert f"To go on: sparring run {suite} --out {out}" in said.replace("\n", "")
    assert "Traceback" not in said
    assert list(pd.read_csv(out / "results.csv")["status"]) == ["done", "missing"]


def test_two_runs_on_one_folder_do_no_harm(finished, suite_file, tmp_path):
    out = tmp_path / "both"
    command = [*SPARRING, "run", str(suite_file), "--out", str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
    pd.testing.assert_frame_equal(without_time(pd.read_parquet(out / "results.parquet")), without_time(finished.frame))
    assert not list((out / "cells").glob(".*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_bad_input_even_when_the_models_are_ready(finished, tmp_path):
    with pytest.raises(InputError, match=r"--device cuda: .*(GPU|CUDA|cuda)"):
        run(_suite(tmp_path), out=tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


BAD_RUNS = {
    "unknown data": (("name: digits", "name: digitz"), ["data", "digitz", "digits"]),
    "more samples than there are": (("samples: 24", "samples: 99999"), ["data", "99999"]),
    "unknown architecture": (("architecture: cnn", "architecture: cnnn"), ["models.0", "cnnn", "cnn"]),
    "missing data file": (("name: digits", "path: nowhere.npz"), ["data", "nowhere.npz"]),
    "missing ONNX file": (
        ("architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}", "onnx: nowhere.onnx"),
        ["models.0", "nowhere.onnx"],
    ),
    "missing object": (
        ("architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}", 'object: "no_such_module:build"'),
        ["models.0", "no_such_module"],
    ),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_bad_input_writes_nothing(name, tmp_path):
    (old, new), words = BAD_RUNS[name]
    assert old in SUITE
    suite = _suite(tmp_path, SUITE.replace(old, new))
    with pytest.raises(InputError) as caught:
        run(suite, out=tmp_path / "out")
    assert str(caught.value).startswith(str(suite))
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda x, y: (np.where(x > 0.5, np.nan, x), y), ["NaN"]),
        (lambda x, y: (x * 2 - 1, y), ["[0, 1]"]),
        (lambda x, y: (x, y - 1), ["-1"]),
        (lambda x, y: (x, y[:-1]), ["23", "24"]),
        (lambda x, y: (x, y + 0.5), ["label"]),
    ],
)
def test_bad_images_and_labels_of_a_users_file_are_refused(damage, words, finished, tmp_path):
    cell = finished.frame["cell_id"].iloc[0]
    with np.load(finished.folder / "cells" / cell / "images.npz") as stored:
        x, y = damage(stored["x"], stored["y"])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    text = SUITE.replace("{name: digits, samples: 24}", "{path: mine.npz}")
    with pytest.raises(InputError) as caught:
        run(_suite(tmp_path, text), out=tmp_path / "out")
    for word in ["mine.npz", *words]:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_that_the_model_lacks_are_refused(finished, tmp_path):
    with np.load(finished.folder / "cells" / finished.frame["cell_id"].iloc[0] / "images.npz") as stored:
        np.savez(tmp_path / "mine.npz", x=stored["x"], y=stored["y"] + 5)
    (tmp_path / "ten.py").write_text(
        "import torch\nten = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    text = SUITE.replace("{name: digits, samples: 24}", "{path: mine.npz}")
    text = text.replace("architecture: cnn, framework: torch, train: {epochs: 2, seed: 0}", 'object: "ten:ten"')
    with pytest.raises(
        InputError, match=r"little\.yaml: models\.0 \(net\): labels out of range: mine has 15 classes, the model 10"
    ):
        run(_suite(tmp_path, text), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
