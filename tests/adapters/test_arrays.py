"""Arrays in files: the same numbers as in memory, and memory that doesn't grow with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters import arrays


def resident(kind: str) -> int:
    """Bytes of this process that are resident: ``Rss``, ``Anonymous``, ..."""
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(f"{kind}:"))


@given(st.integers(0, 40), st.integers(1, 9), st.integers(4, 200))
def test_pieces_are_the_whole(n, width, piece):
    x, y = np.arange(n * width, dtype=np.float32).reshape(n, width), np.arange(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "PIECE", piece)
        seen = list(arrays.pieces(x, y))
    assert len(seen) >= 1
    np.testing.assert_array_equal(np.concatenate([a for a, _ in seen]), x)
    np.testing.assert_array_equal(np.concatenate([b for _, b in seen]), y)
    assert all(a.nbytes <= max(piece, 4 * width) for a, _ in seen)


def test_a_small_array_stays_in_memory():
    made = arrays.empty_like(np.zeros((3, 4), np.float32))
    assert (made.base, made.shape, made.dtype) == (None, (3, 4), np.float32)


def test_a_large_one_takes_no_memory_once_it_is_let_go():
    template = np.broadcast_to(np.float32(0), (200, 3, 224, 224))  # 120 MB, as four bytes
    before = resident("Rss")
    made = arrays.empty_like(template)
    for i in range(len(made)):
        made[i] = i
        if i % 20 == 19:
            arrays.let_go(made)
    assert resident("Rss") - before < 40 << 20
    start = 0
    for (piece,) in arrays.pieces(made):
        assert (piece.min(), piece.max()) == (start, start + len(piece) - 1)
        start += len(piece)
    assert resident("Rss") - before < 40 << 20
    np.testing.assert_array_equal(made[:, 0, 0, 0], np.arange(200))


def test_what_others_mapped_is_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(10_000))
    theirs = np.load(tmp_path / "x.npy", mmap_mode="c")  # changes are in memory alone
    theirs[:] = 5
    arrays.let_go(theirs)
    assert (theirs == 5).all()


def test_a_part_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"1234" + np.arange(6, dtype="<i4").tobytes())
    found = arrays.mapped(tmp_path / "x", "<i4", (2, 3), offset=4)
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])
    assert type(found) is np.ndarray
    assert not found.flags.writeable
