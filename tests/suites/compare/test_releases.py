"""Two runs of one suite: what is the same, what changed, and with which package."""

import json

import numpy as np
import pytest
from altered import SUITE, altered, cell, drop_row, hit, rewrite_arrays, rewrite_manifest, rewrite_table

from sparring.adapters.errors import InputError
from sparring.suites import run
from sparring.suites.compare.releases import Package, diff, render


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return run(SUITE, out=tmp_path_factory.mktemp("runs") / "before", device="cpu").folder


@pytest.fixture
def after(before, tmp_path):
    """The same run from an environment with another Foolbox and another SciPy."""
    return altered(before, tmp_path / "after", foolbox="3.3.9", scipy="0.1")


def changed(difference):
    return [(row.library, row.attack.split()[0], row.comparison.kind) for row in difference.changed]


def test_the_same_results_from_other_releases_are_no_change(before, after, sparring):
    difference = diff(before, after)
    assert changed(difference) == []
    assert [package.name for package in difference.packages] == ["foolbox", "scipy"]
    done = sparring("diff", before, after)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 of 4 rows changed" in done.stdout


def test_new_hits_are_counted_in_pairs_and_put_down_to_the_rows_own_package(before, after, sparring):
    rewrite_arrays(after, "foolbox", "fgsm", lambda arrays: hit(arrays, 4))
    difference = diff(before, after)
    assert changed(difference) == [("foolbox", "fgsm", "success")]
    (row,) = difference.changed
    assert [package.name for package in row.packages] == ["foolbox"]
    assert row.packages[0].after == "3.3.9"
    comparison = row.comparison
    assert (comparison.only_before, comparison.only_after, comparison.n, comparison.moved) == (0, 4, 24, 4)
    assert comparison.p_value == pytest.approx(2 * 0.5**4)  # four coins that all fall the same way
    assert comparison.max_delta == pytest.approx(0.5)
    assert comparison.same_labels == pytest.approx(20 / 24)
    assert comparison.robust_accuracy[0] - comparison.robust_accuracy[1] == pytest.approx(4 / 24)
    done = sparring("diff", before, after)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"foolbox {difference.packages[0].before} → 3.3.9" in done.stdout


def test_hits_lost_and_won_are_a_change_even_where_the_accuracy_is_the_same(before, after):
    def swap(arrays):
        lost = np.flatnonzero(arrays["success"])[:1]
        hit(arrays, 1)
        arrays["success"][lost], arrays["pred_adv"][lost] = False, arrays["y"][lost]

    rewrite_arrays(after, "foolbox", "fgsm", swap)
    (row,) = diff(before, after).changed
    comparison = row.comparison
    assert comparison.robust_accuracy[0] == comparison.robust_accuracy[1]
    assert (comparison.kind, comparison.only_before, comparison.only_after, comparison.p_value) == (
        "success",
        1,
        1,
        1.0,
    )


def test_other_images_with_the_same_success_are_said_to_be_just_that(before, after):
    def move(arrays):
        arrays["x_adv"][:3, 0, 0, 0] += 0.25

    rewrite_arrays(after, "foolbox", "fgsm", move)
    (row,) = diff(before, after).changed
    assert row.comparison.kind == "images"
    assert row.comparison.moved == 3
    assert row.comparison.p_value == 1.0
    assert "3 images moved by up to 0.25" in row.comparison.says
    assert "robust accuracy" not in row.comparison.says


def test_longer_ways_are_compared_pair_by_pair(before, after):
    def lengthen(arrays):
        arrays["x_adv"][:, 0, 0, 0] += 0.25
        arrays["linf"] += 0.25

    rewrite_arrays(after, "foolbox", "fgsm", lengthen)
    (row,) = diff(before, after).changed
    one, two, p_value = row.comparison.distances
    assert two - one == pytest.approx(0.25)
    hits = row.comparison.n - round(row.comparison.robust_accuracy[0] * row.comparison.n)
    assert p_value == pytest.approx(2 * 0.5**hits, rel=0.5) or p_value < 0.01  # all of them in one direction
    assert "mean distance" in row.comparison.says


def test_rounding_is_no_change(before, after):
    def round_otherwise(arrays):
        arrays["x_adv"][arrays["x_adv"] > 0.5] -= 1e-6

    rewrite_arrays(after, "foolbox", "fgsm", round_otherwise)
    difference = diff(before, after)
    assert changed(difference) == []
    assert [row.comparison.kind for row in difference.rows] == ["equal", "same", "same", "same"]
    assert "1 equal to within rounding" in render(difference, "md")


def test_a_failure_is_a_change_with_its_reason(before, after):
    rewrite_table(after, "torchattacks", "fgsm", status="failed", reason="no attribute 'FGSM'")
    difference = diff(before, after)
    assert changed(difference) == [("torchattacks", "fgsm", "status")]
    assert difference.changed[0].comparison.says == "done → failed: no attribute 'FGSM'"


def test_what_a_row_says_of_itself_counts(before, after):
    path = cell(after, "foolbox", "fgsm") / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "notes": ["left the budget by up to 0.3"]}))
    (row,) = diff(before, after).changed
    assert (row.comparison.kind, row.comparison.says) == ("notes", "now says: left the budget by up to 0.3")


def test_a_row_of_one_run_alone_is_reported(before, after):
    drop_row(after, "foolbox", "fgsm")
    (row,) = diff(before, after).changed
    assert (row.comparison.kind, row.comparison.says) == ("missing", f"only in {before}")
    assert changed(diff(after, before)) == [("foolbox", "fgsm", "missing")]


def test_where_no_package_of_the_row_changed_all_others_are_named(before, after):
    rewrite_arrays(after, "torchattacks", "fgsm", lambda arrays: hit(arrays, 2))
    (row,) = diff(before, after).changed
    assert [package.name for package in row.packages] == ["foolbox", "scipy"]


def test_a_package_that_is_gone_or_new_is_told(before, tmp_path):
    after = altered(before, tmp_path / "after", my_package="1.0")
    rewrite_manifest(after, lambda manifest: manifest["packages"].pop("scipy"))
    difference = diff(before, after)
    assert Package("my-package", None, "1.0") in difference.packages
    assert [str(each).split(" → ")[1] for each in difference.packages if each.name == "scipy"] == ["absent"]


def test_another_model_is_told(before, after):
    rewrite_manifest(after, lambda manifest: manifest["models"]["net"].update(digest="0" * 64))
    difference = diff(before, after)
    assert difference.models == ("net",)
    assert "the model net is another in the second run" in render(difference, "md")


def test_clean_images_that_the_model_reads_otherwise_are_counted(before, after):
    def misread(arrays):
        arrays["pred_clean"][:5] = (arrays["pred_clean"][:5] + 1) % 10
        hit(arrays, 1)

    rewrite_arrays(after, "foolbox", "fgsm", misread)
    (row,) = diff(before, after).changed
    assert row.comparison.other_clean == 5
    assert "the model itself reads 5 clean images otherwise" in row.comparison.says


def test_a_changed_suite_is_told(before, after):
    rewrite_manifest(after, lambda manifest: manifest["suite"].update(batch_size=7))
    assert diff(before, after).keys == ("batch_size",)


def test_the_shapes_in_which_it_is_written(before, after):
    rewrite_arrays(after, "foolbox", "fgsm", lambda arrays: hit(arrays, 4))
    difference = diff(before, after)
    content = json.loads(render(difference, "json"))
    assert content["rows"][0]["comparison"]["only_after"] == 4
    assert content["packages"][0] == {"name": "foolbox", "before": difference.packages[0].before, "after": "3.3.9"}
    text = render(difference, "md")
    assert "| net     | foolbox   | fgsm (eps=0.1) | success |" in text
    assert text.endswith("1 of 4 rows changed\n")


def test_runs_that_do_not_compare_are_refused(before, after, tmp_path, sparring):
    with pytest.raises(InputError, match=r"nowhere: no run here"):
        diff(before, tmp_path / "nowhere")
    other = altered(before, tmp_path / "images")
    rewrite_manifest(other, lambda manifest: manifest["data"].update(digest="0" * 64))
    with pytest.raises(InputError, match="attacked different images: 24 and 24 of digits"):
        diff(before, other)
    rewrite_manifest(after, lambda manifest: manifest["suite"].update(name="other"))
    done = sparring("diff", before, after)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{before} is a run of the suite small, {after} of other" in done.stderr
    done = sparring("diff", before, before, "--format", "csv")
    assert done.returncode == 2
    assert "Valid: json, md, rich" in done.stderr


def test_a_cell_that_is_gone_is_named(before, after):
    import shutil

    shutil.rmtree(cell(after, "foolbox", "fgsm"))
    with pytest.raises(InputError, match="fgsm is done, but its cell is gone"):
        diff(before, after)


def twice(run, to):
    """A copy of a run, as if a data set ``other`` and a defended model had been attacked too."""
    import shutil

    import pandas as pd

    shutil.copytree(run, to)
    frame = pd.read_parquet(to / "results.parquet")
    parts = [frame.assign(attacker=""), frame.assign(attacker="", dataset="other")]
    parts += [frame.assign(defense="blur", attacker=who) for who in ("unaware", "aware")]
    pd.concat(parts, ignore_index=True).to_parquet(to / "results.parquet", index=False)
    other = {"name": "other", "digest": "1" * 64, "images": 24}
    rewrite_manifest(to, lambda manifest: manifest.update(data=[manifest["data"], other]))
    return to


def test_data_sets_defenses_and_attackers_are_told_apart(before, tmp_path):
    one, two = twice(before, tmp_path / "one"), twice(before, tmp_path / "two")
    assert len(diff(one, two).rows) == 16
    assert diff(one, two).changed == ()
    rewrite_table(two, "torchattacks", "fgsm", status="failed", reason="broke")
    labels = [row.attack for row in diff(one, two).changed]
    assert labels == [
        f"fgsm (eps=0.1) ({where})"
        for where in ("digits, undefended", "other, undefended", "digits, blur, unaware", "digits, blur, aware")
    ]


def test_a_run_from_before_there_were_defenses_compares_with_one_since(before, tmp_path):
    import pandas as pd

    old = altered(before, tmp_path / "old")
    frame = pd.read_parquet(old / "results.parquet")
    frame.drop(columns=[name for name in ("attacker", "profile") if name in frame]).to_parquet(old / "results.parquet")
    assert diff(old, before).changed == ()


def test_images_of_each_data_set_must_be_the_same(before, tmp_path):
    one, two = twice(before, tmp_path / "one"), twice(before, tmp_path / "two")
    rewrite_manifest(two, lambda manifest: manifest["data"][1].update(digest="2" * 64))
    with pytest.raises(InputError, match="attacked different images: 24 and 24 of other"):
        diff(one, two)
    rewrite_manifest(two, lambda manifest: manifest.update(data={**manifest["data"][1], "name": "third"}))
    with pytest.raises(InputError, match="attacked different images: digits, other and third"):
        diff(one, two)
