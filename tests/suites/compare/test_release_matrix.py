"""Runs of many environments as one table: in what order, and where a result first changed."""

import csv
import io
import json

import pytest
from altered import SUITE, altered, drop_row, hit, rewrite_arrays, rewrite_manifest, rewrite_table

from sparring.adapters.errors import InputError
from sparring.suites import run
from sparring.suites.compare.release_matrix import matrices, render


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return run(SUITE, out=tmp_path_factory.mktemp("runs") / "before", device="cpu").folder


@pytest.fixture
def folder(before, tmp_path):
    """Three environments whose names sort otherwise than their releases; Foolbox's FGSM changed in 3.9."""
    home = tmp_path / "agree"
    home.mkdir()
    altered(before, home / "fb-3.10", foolbox="3.10")
    altered(before, home / "fb-3.8", foolbox="3.8")
    altered(before, home / "fb-3.9", foolbox="3.9", scipy="0.1")
    for name in ("fb-3.9", "fb-3.10"):
        rewrite_arrays(home / name, "foolbox", "fgsm", lambda arrays: hit(arrays, 4))
        rewrite_table(home / name, "foolbox", "fgsm", robust_accuracy=0.125)
    return home


def row(matrix, library, attack):
    (row,) = [each for each in matrix.rows if each.library == library and each.attack.startswith(attack)]
    return row


def test_environments_stand_in_the_order_of_their_releases_and_the_first_change_is_marked(folder):
    (matrix,) = matrices(folder)
    assert [each.name for each in matrix.environments] == ["fb-3.8", "fb-3.9", "fb-3.10"]
    assert [each.releases for each in matrix.environments] == [{"foolbox": one} for one in ("3.8", "3.9", "3.10")]
    fgsm = row(matrix, "foolbox", "fgsm")
    assert [cell.changed for cell in fgsm.cells] == [False, True, False]
    assert [cell.since for cell in fgsm.cells] == [None, "fb-3.8", "fb-3.9"]
    assert [str(each) for each in fgsm.cells[1].packages] == ["foolbox 3.8 → 3.9"]
    assert fgsm.cells[1].comparison.only_after == 4
    assert matrix.changes == [(matrix.rows.index(fgsm), 1)]


def test_the_table_marks_the_cell_and_names_the_release_beneath(folder, sparring):
    done = sparring("matrix", folder, "--format", "md")
    assert (done.returncode, done.stderr) == (0, "")
    assert "**0.125 [1]** | 0.125" in done.stdout
    assert "over releases of foolbox" in done.stdout
    assert "\n[1] foolbox 3.8 → 3.9: net: foolbox fgsm (eps=0.1): robust accuracy" in done.stdout
    shown = sparring("matrix", folder).stdout
    assert "0.125 [1]" in shown
    assert "[1] foolbox 3.8 → 3.9" in shown
    assert "[2]" not in shown


def test_names_that_tell_an_age_are_in_that_order(before, tmp_path):
    altered(before, tmp_path / "agree-fb-newest", foolbox="3.0")  # whatever is installed there
    altered(before, tmp_path / "agree-fb-oldest", foolbox="3.9")
    altered(before, tmp_path / "agree-fb-previous", foolbox="3.10")
    (matrix,) = matrices(tmp_path)
    assert [each.name.split("-")[2] for each in matrix.environments] == ["oldest", "previous", "newest"]
    assert matrix.changes == []
    assert "no result changed" in render([matrix], "md")
    assert "| agree-fb-previous 3.10" in render([matrix], "md")


def test_a_row_that_fails_in_between_changes_twice(folder):
    rewrite_table(folder / "fb-3.9", "torchattacks", "fgsm", status="failed", reason="no such class")
    (matrix,) = matrices(folder)
    cells = row(matrix, "torchattacks", "fgsm").cells
    assert [str(cell) for cell in cells][1] == "failed"
    assert [cell.changed for cell in cells] == [False, True, True]


def test_a_row_that_an_environment_lacks_is_compared_across_the_gap(folder):
    drop_row(folder / "fb-3.9", "foolbox", "fgsm")
    (matrix,) = matrices(folder)
    cells = row(matrix, "foolbox", "fgsm").cells
    assert cells[1] is None
    assert cells[2].since == "fb-3.8"
    assert [str(each) for each in cells[2].packages] == ["foolbox 3.8 → 3.10"]


def test_each_suite_has_its_own_matrix(folder, before):
    rewrite_manifest(altered(before, folder / "another"), lambda manifest: manifest["suite"].update(name="other"))
    tables = matrices(folder)
    assert [(matrix.suite, len(matrix.environments)) for matrix in tables] == [("other", 1), ("small", 3)]
    assert render(tables, "md").count("robust accuracy") == 3  # two titles and one footnote


def test_a_run_without_results_is_left_out_and_told(folder):
    (folder / "fb-3.9" / "results.parquet").unlink()
    (matrix,) = matrices(folder)
    assert [each.name for each in matrix.environments] == ["fb-3.8", "fb-3.10"]
    assert "fb-3.9 has no results yet" in render([matrix], "md")


def test_another_model_is_told(folder):
    rewrite_manifest(folder / "fb-3.10", lambda manifest: manifest["models"]["net"].update(digest="0" * 64))
    (matrix,) = matrices(folder)
    assert matrix.models == ("net",)
    assert "the model net is not the same in all" in render([matrix], "md")


def test_the_plain_shapes(folder):
    tables = matrices(folder)
    lines = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    assert len(lines) == 12  # four rows in three environments
    (changed,) = [line for line in lines if line["changed"] == "True"]
    assert (changed["environment"], changed["changed_with"], changed["what"]) == (
        "fb-3.9",
        "foolbox 3.8 → 3.9",
        "success",
    )
    assert float(changed["p_value"]) == pytest.approx(0.125)
    (content,) = json.loads(render(tables, "json"))
    assert content["environments"][0] == {"name": "fb-3.8", "releases": {"foolbox": "3.8"}}
    assert sum(cell["packages"] != [] for one in content["rows"] for cell in one["cells"]) == 1


def test_a_folder_without_runs_is_refused(tmp_path, folder, sparring):
    with pytest.raises(InputError, match="no runs here"):
        matrices(tmp_path / "nowhere")
    rewrite_manifest(folder / "fb-3.9", lambda manifest: manifest["data"].update(digest="0" * 64))
    with pytest.raises(InputError, match="attacked different images"):
        matrices(folder)
    done = sparring("matrix", folder, "--format", "latex")
    assert done.returncode == 2
    assert done.stderr.startswith("sparring: --format: unknown format 'latex'")
