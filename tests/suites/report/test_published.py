"""Published values beside measured ones: which row answers, whether they agree, and whether the order is the same."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau
from study_run import write_study

from sparring.suites.report import published
from sparring.suites.report.study import Study
from sparring.suites.report.tables import all as study_tables

VALUES = [
    {
        "data": "mnist",
        "model": "cnn",
        "metrics": {"accuracy": 0.95, "auroc": 0.9, "prediction_seconds_per_image": 0.003},
    },
    {"data": "mnist", "model": "cnn", "attack": "fgsm", "metrics": {"accuracy": 0.99, "seconds_per_image": 0.07}},
    {"data": "mnist", "model": "cnn", "attack": "pgd", "metrics": {"accuracy": 0.01, "f1": 0.5}},
    {"data": "mnist", "model": "cnn", "attack": "deepfool", "metrics": {"accuracy": 0.5}},
    {"data": "mnist", "model": "cnn", "attack": "pgd", "defense": "gaussian-blur", "metrics": {"accuracy": 0.5}},
    {
        "data": "mnist",
        "model": "cnn",
        "attack": "pgd",
        "defense": "gaussian-blur(sigma=1.0)",
        "attacker": "aware",
        "metrics": {"accuracy": 0.5},
    },
    {"data": "mnist", "model": "dnn", "attack": "pgd", "metrics": {"accuracy": 0.5}},
    {"data": "mnist", "model": "cnn", "attack": "bim", "metrics": {"accuracy": 0.5}},
    {"data": "mnist", "model": "cnn", "attack": "pgd", "defense": "jpeg", "metrics": {"accuracy": 0.5}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    spec = {"source": "Guliani <2024>", "library": "foolbox", "values": VALUES}
    write_study(folder, datasets=("mnist",), models=("cnn",), published=spec)
    return folder


@pytest.fixture(scope="module")
def found(run):
    return published.compare(Study.open(run))


def one(found, attack, defense="none", metric="accuracy", place=0):
    rows = found[(found["attack"] == attack) & (found["defense"] == defense) & (found["metric"] == metric)]
    return rows.iloc[place]


def measured(run, attack, defense="none", attacker="", library="foolbox", eps=None):
    frame = pd.read_parquet(run / "results.parquet")
    rows = frame[(frame["attack"] == attack) & (frame["defense"] == defense) & (frame["attacker"] == attacker)]
    rows = rows[(rows["library"] == library) & (eps is None or rows["eps"] == eps)]
    return np.mean([_accuracy(run, cell) for cell in rows["cell_id"]]), rows


def _accuracy(run, cell):
    with np.load(run / "cells" / cell / "images.npz") as stored:
        return (stored["pred_adv"] == stored["y"]).mean()


def test_a_value_for_every_metric(found):
    assert list(found.columns) == list(published.COLUMNS)
    assert len(found) == sum(len(value["metrics"]) for value in VALUES)


def test_the_library_named_is_compared_over_all_seeds(run, found):
    row = one(found, "pgd")
    value, rows = measured(run, "pgd")
    assert len(rows) == 2
    assert (row["measured"], row["library"]) == (pytest.approx(value), "foolbox")
    assert row["difference"] == pytest.approx(value - 0.01)
    assert row["measured_low"] == pytest.approx(rows["robust_accuracy_low"].mean())
    assert not row["agrees"]
    assert row["line"].startswith("published .010, measured .")
    assert row["line"].endswith(", beyond the interval")
    assert ": higher by " in row["line"]


def test_what_agrees_has_no_line(found):
    row = one(found, "none")
    assert row["measured_low"] <= 0.95 <= row["measured_high"]
    assert row["agrees"]
    assert row["line"] == ""


def test_of_several_rows_the_first_and_it_is_said(run, found):
    row = one(found, "fgsm")
    assert row["measured"] == pytest.approx(measured(run, "fgsm", eps=0.1)[0])
    assert row["choice"] == "of several the first: fgsm eps=0.1"
    either = one(found, "pgd", "gaussian-blur")
    assert either["choice"] == "of both attackers the first: unaware"
    assert either["measured"] == pytest.approx(measured(run, "pgd", "gaussian-blur(sigma=1.0)", "unaware")[0])
    aware = one(found, "pgd", "gaussian-blur(sigma=1.0)")
    assert (aware["choice"], aware["attacker"]) == ("", "aware")
    assert aware["measured"] == pytest.approx(measured(run, "pgd", "gaussian-blur(sigma=1.0)", "aware")[0])


def test_times_are_with_the_prediction(run, found):
    _, rows = measured(run, "fgsm", eps=0.1)
    row = one(found, "fgsm", metric="seconds_per_image")
    assert row["measured"] == pytest.approx((rows["seconds"] / rows["n"]).mean() + 0.001)
    assert pd.isna(row["agrees"])
    assert one(found, "none", metric="prediction_seconds_per_image")["measured"] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("attack", "defense", "metric", "why"),
    [
        ("pgd", "jpeg", "accuracy", "no defense jpeg in this run"),
        ("bim", "none", "accuracy", "no attack bim in this run"),
        ("none", "none", "auroc", "no auroc in these rows"),
    ],
)
def test_what_was_not_measured_says_why(found, attack, defense, metric, why):
    row = one(found, attack, defense, metric)
    assert np.isnan(row["measured"])
    assert pd.isna(row["agrees"])
    assert row["line"].endswith(f"not measured: {why}")


def test_an_attack_that_only_another_library_has(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    frame = pd.read_parquet(run / "results.parquet")
    frame[(frame["library"] == "art") | (frame["attack"] != "deepfool")].to_parquet(
        tmp_path / "run" / "results.parquet"
    )
    row = one(published.compare(Study.open(tmp_path / "run")), "deepfool")
    assert (row["library"], row["choice"]) == ("art", "art's: foolbox does not run it here")


def test_a_label_that_says_more_here_is_found_and_another_networks_value_says_so(tmp_path):
    value = {"attack": "pgd eps=0.2", "metrics": {"accuracy": 0.5}, "data": "original", "model": "resnet"}
    said = {"values": [value], "instead": {"original": "mnist", "resnet": "cnn"}}
    attacks = (
        ("pgd", {"eps": 0.1, "steps": 10}, 0.6),
        ("pgd", {"eps": 0.1, "steps": 20}, 0.5),
        ("pgd", {"eps": 0.2, "steps": 20}, 0.3),
    )
    frame = write_study(
        tmp_path / "more",
        datasets=("mnist",),
        models=("cnn",),
        attacks=attacks,
        libraries=("art",),
        seeds=(0,),
        published={"library": "art", "source": "", **said},
    )
    (line,) = published.compare(Study.open(tmp_path / "more")).to_dict("records")
    wanted = frame[(frame["eps"] == 0.2) & (frame["defense"] == "none") & (frame["status"] == "done")]
    assert line["measured"] == pytest.approx(wanted["robust_accuracy"].iloc[0])
    assert (line["dataset"], line["model"]) == ("mnist", "cnn")
    assert line["choice"] == "mnist in place of original, cnn in place of resnet"


def test_the_verdict_counts(found):
    said = published.verdict(found)
    judged = found[found["agrees"].notna()]
    assert said.startswith(f"{int(judged['agrees'].sum())} of {len(judged)} agree; measured lower: ")
    assert f"{int(found['measured'].isna().sum())} were not measured" in said


def test_the_order_of_the_attacks(run, found):
    orders = published.orders(Study.open(run))
    (row,) = orders[
        (orders["of"] == "attacks") & (orders["metric"] == "accuracy") & (orders["group"] == "cnn, none")
    ].to_dict("records")
    values = [one(found, name) for name in ("fgsm", "pgd", "deepfool")]
    truth = kendalltau([each["published"] for each in values], [each["measured"] for each in values]).statistic
    assert row["tau"] == pytest.approx(truth)
    assert row["published_order"] == "fgsm > deepfool > pgd"
    assert row["items"] == 3
    assert row["line"].startswith("mnist, cnn, none: attacks by accuracy: published fgsm > deepfool > pgd, measured ")


def test_a_run_without_published_values(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    content = json.loads(path.read_text())
    del content["suite"]["published"]
    path.write_text(json.dumps(content))
    assert published.compare(Study.open(tmp_path / "run")).empty
    assert published.orders(Study.open(tmp_path / "run")).empty
    assert not {"published", "published-orders"} & {
        table.name for table in study_tables.tables(Study.open(tmp_path / "run"))
    }


def test_the_table_says_the_source(run):
    table = study_tables.find(Study.open(run), "published")
    assert "Published: Guliani <2024>." in table.caption
    assert published.verdict(published.compare(Study.open(run))) in table.caption
