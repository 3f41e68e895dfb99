"""How files are written: as a whole, or not at all."""

import os

import pytest

from sparring.models.storage import write_whole


def test_write_whole_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    write_whole(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
