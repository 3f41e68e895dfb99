"""A run that is opened: what it holds, what it refuses, and that nothing of it is read twice."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from study_run import ATTACKS, write_study

from sparring.adapters.errors import InputError
from sparring.suites.report.finished import read
from sparring.suites.results import store
from sparring.suites.results.stored_run import StoredRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    one = {"datasets": ("mnist",), "models": ("cnn",), "defenses": {"none": ("",)}, "seeds": (0,)}
    write_study(folder, **one, attacks=ATTACKS[:2], n=20, published={"source": "a paper", "values": []})
    return folder


def test_tables_figures_and_page_read_rows_and_manifest_from_the_opened_run_alone(run, tmp_path):
    expected = read(run).write_page(tmp_path / "page.html").read_bytes()
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    opened = read(folder)
    for name in ("results.parquet", "results.csv", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
    assert [table.name for table in opened.tables()] == [table.name for table in read(run).tables()]
    assert len(opened.figures()) == len(read(run).figures()) > 4
    assert opened.write_page().read_bytes() == expected


def test_a_cell_is_read_once(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    opened = StoredRun.open(folder)
    arrays = {cell: opened.arrays(cell) for cell in opened.frame["cell_id"]}
    shutil.rmtree(folder)
    assert all(opened.arrays(cell) is stored for cell, stored in arrays.items())


def test_it_holds_what_was_stored(run):
    opened = StoredRun.open(run)
    pd.testing.assert_frame_equal(opened.frame, pd.read_parquet(run / "results.parquet"))
    assert opened.manifest == json.loads((run / "manifest.json").read_text())
    cell = str(opened.frame["cell_id"].iloc[0])
    stored = store.read(run, cell, images=True).arrays
    assert set(stored) - set(opened.arrays(cell)) == {"x", "x_adv"}
    images = opened.images(cell)
    for name in stored:
        np.testing.assert_array_equal(images[name], stored[name])
    np.testing.assert_array_equal(opened.image(cell, "x_adv", 7), stored["x_adv"][7])
    assert opened.arrays("nothing") == opened.images("nothing") == {}


def test_a_run_without_results_or_manifest_is_refused(run, tmp_path):
    with pytest.raises(InputError, match=r"no results here \(results\.parquet is missing\)"):
        StoredRun.open(tmp_path)
    (tmp_path / "results.parquet").write_bytes((run / "results.parquet").read_bytes())
    with pytest.raises(InputError, match=r"no run here \(manifest\.json is missing\)"):
        StoredRun.open(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="not the manifest of a run"):
        StoredRun.open(tmp_path)
