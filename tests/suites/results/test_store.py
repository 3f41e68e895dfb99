"""The run folder: whole results or none, found by id, never unpickled."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters import arrays as big
from sparring.adapters.errors import InputError
from sparring.suites.plan.cell import Result
from sparring.suites.results import store

ARRAYS = {
    "x": np.zeros((3, 1, 2, 2), np.float32),
    "x_adv": np.ones((3, 1, 2, 2), np.float32),
    "y": np.arange(3),
    "pred_clean": np.arange(3),
    "pred_adv": np.arange(3),
}


def test_what_is_written_is_read_again(tmp_path):
    store.write(tmp_path, "abc", {"seed": 1}, Result("done", notes=("a",), forwards=5, seconds=0.5, arrays=ARRAYS))
    found = store.read(tmp_path, "abc")
    assert (found.status, found.notes, found.forwards, found.seconds) == ("done", ("a",), 5, 0.5)
    assert set(found.arrays) == {"y", "pred_clean", "pred_adv"}
    assert set(store.read(tmp_path, "abc", images=True).arrays) == set(ARRAYS)
    assert store.read(tmp_path, "other") is None
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["abc"]


def test_the_first_result_stays_unless_a_retry_replaces_it(tmp_path):
    store.write(tmp_path, "abc", {}, Result("failed", "first"))
    store.write(tmp_path, "abc", {}, Result("failed", "second"))
    assert store.read(tmp_path, "abc").reason == "first"
    store.write(tmp_path, "abc", {}, Result("done", arrays=ARRAYS), replace=True)
    assert store.read(tmp_path, "abc").status == "done"
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["abc"]


def test_a_damaged_result_is_one_clear_message(tmp_path):
    store.write(tmp_path, "abc", {}, Result("done", arrays=ARRAYS))
    (tmp_path / "cells" / "abc" / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"abc.result\.json can't be read"):
        store.read(tmp_path, "abc")


def test_images_are_never_unpickled(tmp_path):
    store.write(tmp_path, "abc", {}, Result("done", arrays=ARRAYS))
    np.savez(tmp_path / "cells" / "abc" / "images.npz", y=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        store.read(tmp_path, "abc")


@pytest.mark.parametrize("large", [True, False])
def test_arrays_come_back_as_they_were(tmp_path, monkeypatch, large):
    """Mapped or read, and NumPy's own reader sees the same."""
    monkeypatch.setattr(big, "LARGE", 1 if large else 1 << 30)
    monkeypatch.setattr(big, "PIECE", 100)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.random((5, 3, 7, 7), dtype=np.float32),
        "a name": rng.integers(0, 9, 11),
        "hit": rng.random(3) < 0.5,
        "none": np.zeros((0, 3), np.float32),
        "one": np.float64(0.5),
        "across": rng.random((4, 6))[:, ::2].T,
        "text": np.array(["a", "bcd"]),
    }
    store.save(tmp_path / "images.npz", arrays)
    ours = store.load(tmp_path / "images.npz")
    with np.load(tmp_path / "images.npz", allow_pickle=False) as theirs:
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours[name], array, strict=True)
            np.testing.assert_array_equal(theirs[name], array, strict=True)
    assert ours["x"].flags.aligned
    assert ours["x"].flags.writeable is not large
    assert "x" not in store.load(tmp_path / "images.npz", leave=["x"])


def _write_forever(folder):
    big = {"x": np.zeros((200, 3, 32, 32), np.float32)}
    for number in range(10_000):
        store.write(folder, f"cell{number}", {}, Result("done", arrays=big))


def _stored(folder):
    return len(list(folder.glob("cells/[!.]*/result.json")))


def test_killed_at_any_moment_every_result_is_whole(tmp_path):
    for pause in (0, 0.003, 0.01, 0.03, 0.1):
        process = multiprocessing.get_context("fork").Process(target=_write_forever, args=(tmp_path,))
        process.start()
        before = _stored(tmp_path)
        while _stored(tmp_path) < before + 2:
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    finished = [path for path in (tmp_path / "cells").iterdir() if not path.name.startswith(".")]
    for path in finished:
        assert store.read(tmp_path, path.name, images=True).arrays["x"].shape == (200, 3, 32, 32)


def test_the_sweep_takes_only_old_leftovers(tmp_path):
    for name in (".old", ".new", "kept"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    long_ago = time.time() - 7200
    for name in (".old", "kept"):
        os.utime(tmp_path / "cells" / name, (long_ago, long_ago))
    store.sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [".new", "kept"]


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"PK" + b[2:60] + bytes(200) + b[260:]])
def test_damaged_images_are_told_of_with_their_place(tmp_path, damage):
    store.write(tmp_path, "abc", {}, Result("done", arrays={"y": np.arange(50), "x": np.zeros((50, 1, 4, 4))}))
    file = store.cell_folder(tmp_path, "abc") / "images.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"images.npz can't be read, delete its folder"):
        store.read(tmp_path, "abc", images=True)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.data())
def test_one_image_is_read_without_the_others(tmp_path_factory, n, channels, side, data):
    run = tmp_path_factory.mktemp("one")
    stored = np.random.default_rng(n).random((n, channels, side, 3), dtype=np.float32)
    saved(run, y=np.arange(n), x=stored)
    index, size = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n + 1))
    np.testing.assert_array_equal(store.read_image(run, "a", "x", index), stored[index])
    several = list(store.read_image_blocks(run, "a", "x", size))
    assert {len(block) for block in several[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate(several), stored)


def saved(run, **arrays):
    path = store.cell_folder(run, "a") / "images.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "stored",
    [
        {"y": np.zeros(3)},
        {"x": np.zeros((3, 4), np.float32)},
        {"x": np.zeros((3, 1, 2, 2))},
        {"x": np.array([{}], object)},
    ],
)
def test_what_is_not_images_is_one_message(tmp_path, stored):
    saved(tmp_path, **stored)
    with pytest.raises(InputError, match=r"images\.npz: can't be read"):
        store.read_image(tmp_path, "a", "x", 0)


def test_an_image_of_a_damaged_file_is_one_message(tmp_path):
    store.write(tmp_path, "a", {}, Result("done", arrays=ARRAYS))
    path = store.cell_folder(tmp_path, "a") / "images.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"images\.npz"):
        store.read_image(tmp_path, "a", "x", 0)
