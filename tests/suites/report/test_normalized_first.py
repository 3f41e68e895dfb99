"""A small real run as scripts do it that normalise first, and corrected: every number of the section computed anew."""

import re

import numpy as np
import pandas as pd
import pytest

from sparring.suites.report import normalized_first, strips
from sparring.suites.report.figures import all as figures
from sparring.suites.report.page import write as report
from sparring.suites.report.rows import KEYS
from sparring.suites.report.study import Study
from sparring.suites.report.tables import all as study_tables
from sparring.suites.results import store

MEAN, STD = 0.5, 0.25
WHOSE = {"data": "digits", "model": "net"}
SUITE = {
    "name": "first",
    "data": {"name": "digits", "samples": 40},
    "models": [
        {
            "name": "net",
            "architecture": "dnn(units=(32, 32))",
            "framework": "torch",
            "mean": [MEAN],
            "std": [STD],
            "train": {"epochs": 6, "lr": 0.005, "samples": 600},
        }
    ],
    "libraries": ["torchattacks"],
    "variants": [{"name": "as-published", "space": "normalised-first"}, {"name": "corrected"}],
    "attacks": [
        {"attack": "none", "libraries": ["sparring"]},
        {"attack": "fgsm", "eps": [0.1, 0.3], "libraries": ["torchattacks", "art"]},
        {"attack": "bim", "eps": 0.3, "eps_step": 0.05, "steps": 8},
        {"attack": "pixle", "restarts": 1, "iterations": 1},
    ],
    "pictures": ["3", "7", "a class that is not there"],
    "published": {
        "source": "nobody",
        "values": [
            {**WHOSE, "attack": "fgsm eps=0.1", "metrics": {"top1_error": 0.4, "accuracy": 0.6}},
            {**WHOSE, "attack": "fgsm eps=0.1", "variant": "corrected", "metrics": {"accuracy": 0.1}},
            {**WHOSE, "attack": "none", "metrics": {"top1_error": 0.0}},
        ],
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from sparring.suites.runner.run import run

    folder = tmp_path_factory.mktemp("first")
    run(SUITE, out=folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def tables(run):
    return {table.name: table.frame for table in study_tables.tables(Study.open(run))}


def arrays(run, **values):
    """The stored arrays of the one row that has these values."""
    rows = Study.open(run).rows
    for name, value in values.items():
        rows = rows[rows[name] == value]
    (cell,) = rows["cell_id"]
    return store.read(run, str(cell), images=True).arrays


CLAMP = {"name": "none", "variant": "as-published"}


def test_what_the_clamp_does_is_measured_on_the_stored_pictures(run, tables):
    stored = arrays(run, **CLAMP)
    x = stored["x"].astype(np.float64)
    inside = np.clip((x - MEAN) / STD, 0, 1) * STD + MEAN  # what a library keeps of them
    np.testing.assert_allclose(stored["x_adv"], inside, atol=1e-6)
    (row,) = tables["normalised-first-pictures"].to_dict("records")
    assert row["clamped"] == pytest.approx(((x < MEAN - 1e-6) | (x > MEAN + STD + 1e-6)).mean())
    assert row["clamped"] > 0.5
    assert (row["mean_before"], row["mean_after"]) == pytest.approx((x.mean(), inside.mean()), abs=1e-6)
    contrasts = [each.std(axis=(1, 2, 3)).mean() for each in (x, inside)]
    assert (row["contrast_before"], row["contrast_after"]) == pytest.approx(contrasts, abs=1e-6)
    assert row["clean"] == (stored["pred_clean"] == stored["y"]).mean()
    assert row["after_clamp"] == (stored["pred_adv"] == stored["y"]).mean() < row["clean"]
    assert row["after_clamp_low"] < row["after_clamp"] < row["after_clamp_high"]


def test_the_attacks_both_ways(run, tables):
    frame = tables["normalised-first"].set_index(["attack", "library"])
    assert len(frame) == 6
    row = frame.loc[("fgsm eps=0.3", "art")]
    ways = {
        way: arrays(run, attack="fgsm eps=0.3", library="art", variant=way) for way in ("as-published", "corrected")
    }
    left = {way: (stored["pred_adv"] == stored["y"]).mean() for way, stored in ways.items()}
    assert (row["as_published"], row["corrected"]) == (left["as-published"], left["corrected"])
    assert row["difference"] == row["as_published"] - row["corrected"]
    assert row["contrast"] == pytest.approx(ways["as-published"]["x_adv"].std(axis=(1, 2, 3)).mean(), abs=1e-6)


def test_the_oddities_are_those_of_the_rows(run):
    told = list(normalized_first.oddities(Study.open(run)))
    frame = normalized_first.compared(Study.open(run))
    mine = frame[frame["library"] == "torchattacks"].set_index("attack")
    one_step = next(line for line in told if "one step" in line)
    singles = mine.loc[["fgsm eps=0.1", "fgsm eps=0.3"]]
    best = singles["as_published"].idxmin()
    odd = [mine.loc[best, way] < mine.loc["bim", way] for way in ("as_published", "corrected")]
    words = {
        (True, False): "when normalized first, and not",
        (False, False): "in neither run",
        (True, True): "in both",
        (False, True): "corrected run alone",
    }
    assert words[tuple(map(bool, odd))] in one_step
    raised = [line for line in told if "which sees no gradients" in line]
    assert bool(raised) == bool(mine.loc["pixle", "as_published"] > mine.loc["pixle", "clamp_alone"])
    # Pixle of torchattacks only moves pixels about: what it is given stays what it was
    assert raised
    assert "does not clamp" in raised[0]
    assert all(line.startswith("net on digits, ") for line in told)


def oddity(**values):
    """The lines on made up accuracies, (as published, corrected) by attack."""
    known = {"fgsm": ("one", "linf", 0.1), "pgd": ("many", "linf", 0.1), "cw": ("many", "l2", np.nan)}
    lines = [
        {
            "attack": attack,
            "as_published": first,
            "corrected": second,
            "clean_accuracy": 0.72,
            **dict(zip(("kind", "norm", "eps"), known[attack], strict=True)),
        }
        for attack, (first, second) in values.items()
    ]
    frame = pd.DataFrame(lines)
    return [*normalized_first._one_step(frame), *normalized_first._ties(frame)]


def test_one_step_that_beats_many_and_a_tie_are_told_of_the_published_numbers():
    step, tie = oddity(fgsm=(0.14, 0.2), pgd=(0.52, 0.0), cw=(0.50, 0.02))
    assert step == (
        "one step beats many when normalized first, and not in the corrected run. Normalized first, fgsm leaves 14 % "
        "right, cw 50 %; corrected, fgsm leaves 20 % right, pgd 0 %."
    )
    assert tie.startswith("normalized first, 2 of 3 attacks end within 2.0 % of each other, from 50 % on (pgd, cw)")
    step, tie = oddity(fgsm=(0.5, 0.2), pgd=(0.1, 0.0), cw=(0.3, 0.02))
    assert step.startswith("one step beats many in neither run")
    assert tie.startswith("no two attacks tie")


def test_the_page_has_the_section_with_its_pictures(run, tmp_path):
    text = report.write(Study.open(run), tmp_path / "page.html").read_text("utf-8")
    section = text[text.index('<section id="normalised-first">') :]
    section = section[: section.index("</section>\n\n")]
    assert "of the pixel values lie outside [0, 1]" in section
    words = re.findall(r"<span>([^<]+)</span></div>", section)
    assert [word.split(" (")[0] for word in words[:4]] == [
        "as it is",
        "clamped alone",
        "as-published: fgsm eps=0.1",
        "corrected: fgsm eps=0.1",
    ]
    stored = arrays(run, **CLAMP)
    place = int(np.flatnonzero(stored["pred_clean"] == stored["y"])[0])
    assert strips.png(stored["x"][place]) in section
    assert strips.png(stored["x_adv"][place]) in section


def test_a_run_without_such_a_variant_has_no_section(run, tmp_path):
    frame = pd.read_parquet(run / "results.parquet")
    frame[frame["variant"] == "corrected"].to_parquet(tmp_path / "results.parquet")
    (tmp_path / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    (tmp_path / "cells").symlink_to(run / "cells")
    assert normalized_first.section(Study.open(tmp_path)) is None
    assert not any(table.name.startswith("normalised-first") for table in study_tables.tables(Study.open(tmp_path)))


def test_tables_keep_the_variants_apart_and_the_control_out(run, tables):
    for name in ("attacked", "summary", "ranks", "statistics", "statistics-with-clean"):
        assert set(tables[name]["variant"]) == {"as-published", "corrected"}, name
    assert not tables["attacked"].duplicated([key for key in KEYS if key in tables["attacked"]]).any()
    for name in ("ranks", "times", "libraries"):
        assert "none" not in set(tables[name]["attack"]), name
    found = tables["statistics-with-clean"].set_index(["variant", "metric"])
    row = found.loc[("corrected", "accuracy")]
    left = [
        (s["pred_adv"] == s["y"]).mean()
        for s in (
            arrays(run, attack=attack, library="torchattacks", variant="corrected")
            for attack in ("fgsm eps=0.1", "fgsm eps=0.3", "bim", "pixle")
        )
    ]
    clean = arrays(run, **CLAMP)
    ten = pd.Series([*left, (clean["pred_clean"] == clean["y"]).mean()])
    assert row["rows"] == 5
    assert (row["mean"], row["median"], row["deviation"]) == pytest.approx((ten.mean(), ten.median(), ten.std()))
    assert found.loc[("corrected", "seconds_per_image"), "lowest"] == 0
    assert set(tables["worst"]["budget"]) == {"any distance", "linf ≤ 0.1", "linf ≤ 0.3"}
    every = [
        arrays(run, attack=row.attack, library=row.library, variant="corrected")
        for row in Study.open(run).rows.itertuples()
        if row.variant == "corrected"
    ]
    worst = np.logical_and.reduce([stored["pred_adv"] == stored["y"] for stored in every]).mean()
    (any_distance,) = tables["worst"].loc[tables["worst"]["budget"] == "any distance", "worst"]
    assert any_distance == worst


def test_published_values_are_those_of_their_variant(run, tables):
    rows = tables["published"].to_dict("records")
    assert [(row["variant"], row["metric"]) for row in rows] == [
        ("as-published", "top1_error"),
        ("as-published", "accuracy"),
        ("corrected", "accuracy"),
        ("", "top1_error"),
    ]
    for row in rows[:3]:
        stored = arrays(run, attack="fgsm eps=0.1", library="torchattacks", variant=row["variant"])
        left = (stored["pred_adv"] == stored["y"]).mean()
        assert row["measured"] == pytest.approx(1 - left if row["metric"] == "top1_error" else left)
        assert row["measured_low"] < row["measured"] < row["measured_high"] or left in (0, 1)
    clean = arrays(run, **CLAMP)
    assert rows[3]["measured"] == pytest.approx((clean["pred_clean"] != clean["y"]).mean())


def test_figures_keep_the_variants_apart(run):
    found = {figure.name: figure for figure in figures.figures(Study.open(run))}
    assert {name for name in found if name.startswith("confusion")} == {
        "confusion-digits-net-none-as-published",
        "confusion-digits-net-none-corrected",
    }
    axes = found["bars-recall-digits-net"].draw().axes
    assert [axis.get_title() for axis in axes[:2]] == ["torchattacks", "art"]
    assert axes[0].get_legend_handles_labels()[1][:2] == ["as-published", "corrected"]
    assert "Accuracy by variant and attack: digits, net" in found["bars-accuracy-digits-net"].title
    time = found["time-digits"].draw().axes[0]
    assert (
        sum(len(line.get_xdata()) for line in time.get_lines()) == 6
    )  # the corrected run's; damaged pictures cost no less
    lines = found["eps-digits-net-fgsm-linf"].draw().axes[0].get_lines()
    assert {line.get_label() for line in lines} >= {"torchattacks (as-published)", "art (corrected)"}


def test_the_pictures_that_a_suite_names(run):
    (figure,) = (figure for figure in figures.figures(Study.open(run)) if figure.name.startswith("pictures"))
    assert figure.title == "Pictures before and after fgsm, eps 0.1: net, corrected"
    axes = figure.draw().axes
    assert [axis.get_title() for axis in axes if axis.get_title()] == ["3", "attacked", "7", "attacked"]
    stored = arrays(run, attack="fgsm eps=0.1", library="torchattacks", variant="corrected")
    place = int(np.flatnonzero(stored["y"] == 7)[0])
    logits = stored["logits_adv"][place].astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    bars = axes[7].patches
    assert [bar.get_width() for bar in bars] == pytest.approx(sorted(shares, reverse=True)[:5])
    assert [label.get_text() for label in axes[7].get_yticklabels()] == [str(i) for i in np.argsort(-shares)[:5]]
    np.testing.assert_allclose(axes[6].images[0].get_array(), stored["x_adv"][place][0])
