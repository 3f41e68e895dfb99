"""A study's tables: every number computed anew from the stored arrays, and every way in which they are written."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score
from study_run import write_study

from sparring.adapters.errors import InputError
from sparring.suites.report import table as study_text
from sparring.suites.report.rows import attack_labels, labelled
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable, markdown, render, texts
from sparring.suites.report.tables import all as study_tables
from sparring.suites.results.labels import latex


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return folder


@pytest.fixture(scope="module")
def made(run):
    return {table.name: table for table in study_tables.tables(Study.open(run))}


@pytest.fixture(scope="module")
def cells(run):
    """The results, with each cell's arrays as they are stored."""
    frame = pd.read_parquet(run / "results.parquet")
    return frame, {cell: dict(np.load(run / "cells" / cell / "images.npz")) for cell in frame["cell_id"]}


def of(frame, **values):
    """The rows that have these values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame


def arrays_of(cells, **values):
    frame, stored = cells
    return [stored[cell] for cell in of(of(frame, status="done"), **values).sort_values("seed")["cell_id"]]


BLUR = "gaussian-blur(sigma=1.0)"


def test_which_tables_there_are(made):
    assert list(made) == [
        "clean",
        "summary",
        "attacked",
        "drops",
        "errors",
        "defenses-mnist-accuracy",
        "defenses-mnist-f1",
        "defenses-gtsrb-accuracy",
        "defenses-gtsrb-f1",
        "aware",
        "worst",
        "libraries",
        "ranks",
        "statistics",
        "statistics-with-clean",
        "times",
        "search",
        "training",
        "masked-gradients",
        "failures",
    ]


def test_clean_numbers(made, cells):
    (row,) = of(made["clean"].frame, dataset="gtsrb", model="rnn", defense=BLUR).to_dict("records")
    stored = arrays_of(cells, dataset="gtsrb", model="rnn", defense=BLUR)[0]
    assert row["images"] == 60
    assert row["accuracy"] == pytest.approx(accuracy_score(stored["y"], stored["pred_clean"]))
    truth = f1_score(
        stored["y"], stored["pred_clean"], labels=np.unique(stored["y"]), average="macro", zero_division=0.0
    )
    assert row["f1"] == pytest.approx(truth)
    right = int((stored["pred_clean"] == stored["y"]).sum())
    interval = binomtest(right, 60).proportion_ci(method="wilson")
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((interval.low, interval.high))


def test_five_guesses_are_told_only_of_more_than_ten_classes(made):
    clean = made["clean"].frame
    assert of(clean, dataset="mnist")["top5"].isna().all()
    assert of(clean, dataset="gtsrb")["top5"].notna().all()


def test_numbers_under_attack_are_means_over_the_seeds(made, cells):
    asked = {"dataset": "mnist", "model": "cnn", "defense": "none", "library": "foolbox"}
    both = arrays_of(cells, **asked, attack="fgsm", eps=0.2)
    assert len(both) == 2
    (row,) = of(made["attacked"].frame, **asked, attack="fgsm eps=0.2").to_dict("records")
    assert row["accuracy"] == pytest.approx(np.mean([(one["pred_adv"] == one["y"]).mean() for one in both]))
    hits = [(one["pred_clean"] == one["y"]) & one["success"] for one in both]
    rates = [hit.sum() / (one["pred_clean"] == one["y"]).sum() for hit, one in zip(hits, both, strict=True)]
    assert row["attack_success_rate"] == pytest.approx(np.mean(rates))
    assert row["l2_median"] == pytest.approx(
        np.mean([np.median(one["l2"][hit]) for hit, one in zip(hits, both, strict=True)])
    )
    (drop,) = of(made["drops"].frame, **asked, attack="fgsm eps=0.2").to_dict("records")
    assert drop["accuracy"] == pytest.approx((both[0]["pred_clean"] == both[0]["y"]).mean() - row["accuracy"])


def test_errors_by_eps(made, cells):
    table = made["errors"]
    assert table.rates == ("clean", "0.1", "0.2")
    assert list(dict.fromkeys(table.frame["error"])) == ["top-1", "top-5"]
    asked = {"dataset": "gtsrb", "model": "rnn", "defense": BLUR, "attacker": "aware", "library": "art"}
    both = arrays_of(cells, **asked, attack="fgsm", eps=0.1)
    (row,) = of(table.frame, **asked, error="top-5").to_dict("records")

    def error(when):
        lost = [(np.argsort(-one[f"logits_{when}"], 1)[:, :5] != one["y"][:, None]).all(1).mean() for one in both]
        return pytest.approx(np.mean(lost))

    assert (row["clean"], row["0.1"]) == (error("clean"), error("adv"))
    (row,) = of(table.frame, **asked, error="top-1").to_dict("records")
    assert row["0.1"] == pytest.approx(np.mean([(one["pred_adv"] != one["y"]).mean() for one in both]))
    assert of(table.frame, dataset="mnist", error="top-5").empty  # five of ten classes say little


def test_the_summary_says_what_a_defense_costs_and_gives(made, cells):
    asked = {"dataset": "gtsrb", "model": "cnn"}
    (row,) = of(made["summary"].frame, **asked, defense="adversarial-training").to_dict("records")

    def worth(defense, when):
        stored = arrays_of(cells, **asked, defense=defense)
        return np.mean([(one[when] == one["y"]).mean() for one in stored])

    assert row["cost_clean"] == pytest.approx(worth("none", "pred_clean") - worth("adversarial-training", "pred_clean"))
    assert row["gain_mean"] == pytest.approx(worth("adversarial-training", "pred_adv") - worth("none", "pred_adv"))
    (bare,) = of(made["summary"].frame, **asked, defense="none").to_dict("records")
    assert np.isnan(bare["cost_clean"])
    assert bare["lowest_under"].startswith("deepfool")


def test_gains_are_of_the_attacks_that_both_met(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    frame = pd.read_parquet(run / "results.parquet")
    frame = frame[(frame["attack"] != "deepfool") | (frame["defense"] != "none")]
    frame.to_parquet(tmp_path / "run" / "results.parquet")
    summary = study_tables.find(Study.open(tmp_path / "run"), "summary").frame
    (row,) = of(summary, dataset="mnist", model="cnn", attacker="aware").to_dict("records")
    mine = of(frame, dataset="mnist", model="cnn", attacker="aware")
    bare = of(frame, dataset="mnist", model="cnn", defense="none")
    met = mine[mine["attack"] != "deepfool"]
    assert row["mean_accuracy"] == pytest.approx(mine["robust_accuracy"].mean())
    assert row["gain_mean"] == pytest.approx(met["robust_accuracy"].mean() - bare["robust_accuracy"].mean())


def test_defenses_stand_under_attacks(made, cells):
    table = made["defenses-mnist-f1"].frame
    (row,) = of(table, model="rnn", defense=BLUR, attacker="aware", library="art").to_dict("records")
    both = arrays_of(cells, dataset="mnist", model="rnn", defense=BLUR, attacker="aware", library="art", attack="pgd")
    scores = [
        f1_score(one["y"], one["pred_adv"], labels=np.unique(one["y"]), average="macro", zero_division=0.0)
        for one in both
    ]
    assert row["pgd"] == pytest.approx(np.mean(scores))
    assert "dataset" not in table
    assert "mnist" in made["defenses-mnist-f1"].title


def test_what_is_masked_is_taken_back(made, cells):
    asked = {"dataset": "mnist", "model": "cnn", "library": "art", "attack": "deepfool"}
    (row,) = of(made["aware"].frame, **asked).to_dict("records")

    def left(**who):
        return np.mean([(one["pred_adv"] == one["y"]).mean() for one in arrays_of(cells, **asked, **who)])

    unaware, aware = left(defense=BLUR, attacker="unaware"), left(defense=BLUR, attacker="aware")
    assert (row["unaware"], row["aware"]) == pytest.approx((unaware, aware))
    assert row["taken_back"] == pytest.approx(unaware - aware)
    assert row["undefended"] == pytest.approx(left(defense="none"))
    assert row["worth"] == pytest.approx(min(unaware, aware) - row["undefended"])
    assert row["lower"] == "aware"
    assert row["taken_back_low"] > 0
    assert (made["aware"].frame["lower"] == "aware").equals(made["aware"].frame["taken_back_low"] > 0)


def test_attackers_are_compared_whatever_their_route(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    frame = pd.read_parquet(run / "results.parquet")
    frame.loc[frame["attacker"] == "unaware", "route"] = "native"
    frame.to_parquet(tmp_path / "run" / "results.parquet")
    pd.testing.assert_frame_equal(
        study_tables.find(Study.open(tmp_path / "run"), "aware").frame,
        study_tables.find(Study.open(run), "aware").frame,
    )


def test_the_worst_case_is_per_image_and_within_the_budget(made, cells):
    asked = {"dataset": "gtsrb", "model": "rnn", "defense": "adversarial-training"}
    rows = of(made["worst"].frame, **asked).set_index("budget")
    stored = arrays_of(cells, **asked)
    spared = np.all([one["pred_adv"] == one["y"] for one in stored], axis=0)
    assert rows.loc["any distance", "worst"] == spared.mean()
    assert rows.loc["any distance", "cells"] == len(stored) == 16
    inside = [np.where(one["linf"] <= 0.1 + 1e-6, one["pred_adv"], one["pred_clean"]) == one["y"] for one in stored]
    assert rows.loc["linf ≤ 0.1", "worst"] == np.all(inside, axis=0).mean()
    assert rows.loc["linf ≤ 0.1", "strongest"] == min(one.mean() for one in inside)
    assert (rows["worst"] <= rows["strongest"]).all()
    assert rows.loc["linf ≤ 0.1", "worst"] >= rows.loc["linf ≤ 0.2", "worst"] >= rows.loc["any distance", "worst"]


def test_libraries_are_compared_on_the_same_images(made, cells):
    from sparring.suites.results.metrics import mcnemar

    asked = {"dataset": "mnist", "model": "rnn", "defense": "none", "attack": "pgd"}
    (row,) = of(made["libraries"].frame, **asked).to_dict("records")
    one, two = (arrays_of(cells, **asked, library=name) for name in ("art", "foolbox"))
    means = [np.mean([(each["pred_adv"] == each["y"]).mean() for each in cell]) for cell in (one, two)]
    assert (row["art"], row["foolbox"]) == pytest.approx(means)
    assert row["spread"] == pytest.approx(abs(means[0] - means[1]))
    assert row["same_labels"] == (one[0]["pred_adv"] == two[0]["pred_adv"]).mean()
    right = [each[0]["pred_adv"] == each[0]["y"] for each in (one, two)]
    assert row["p_value"] == pytest.approx(mcnemar(*right))


def test_ranks_and_statistics_of_the_attacks(made):
    attacked = made["attacked"].frame
    asked = {"dataset": "gtsrb", "model": "cnn", "defense": "none", "library": "art"}
    values = of(attacked, **asked)["accuracy"]
    (row,) = of(made["statistics"].frame, **asked, metric="accuracy").to_dict("records")
    assert (row["mean"], row["median"], row["deviation"]) == pytest.approx(
        (values.mean(), values.median(), values.std())
    )
    assert (row["lowest"], row["highest"], row["attacks"]) == (values.min(), values.max(), 4)
    ranks = made["ranks"].frame
    keys = ["dataset", "model", "defense", "attacker", "library"]
    each = attacked.assign(rank=attacked.groupby(keys)["accuracy"].rank())
    truth = each.groupby(["attack", "library"])["rank"].mean()
    for row in ranks.to_dict("records"):
        assert row["accuracy"] == pytest.approx(truth[row["attack"], row["library"]])
    assert ranks["attack"].iloc[0] == "deepfool"


def test_times_per_image(made, cells):
    frame, _ = cells
    asked = {"dataset": "mnist", "model": "cnn", "defense": "none", "library": "art"}
    (row,) = of(made["times"].frame, **asked, attack="pgd").to_dict("records")
    seconds = of(frame, **asked, attack="pgd")["seconds"].mean() / 60
    assert row["attack_seconds_per_image"] == pytest.approx(seconds)
    assert row["attack_and_prediction"] == pytest.approx(seconds + 0.001)


def test_how_the_models_came_about(made):
    search = made["search"].frame
    assert len(search) == 8  # two data sets and models, two trials: behind the blur is the undefended network
    assert not (made["training"].frame["defense"] == BLUR).any()
    assert list(search.columns) == ["dataset", "model", "trial", "lr", "units", "accuracy"]
    assert list(search["trial"])[:2] == [1, 2]
    (row,) = of(made["training"].frame, dataset="mnist", model="cnn", defense="none").to_dict("records")
    assert (row["epochs"], row["best_epoch"], row["loss"]) == (
        8,
        6,
        0.25,
    )  # 2.1 / e + .05 (e - 1) is least at the sixth


def test_stages_of_a_training_are_told_apart():
    from sparring.suites.report.tables.training import stages

    history = [{"epoch": 1, "stage": "teacher"}, {"epoch": 2, "stage": "teacher"}, {"epoch": 1, "stage": "student"}]
    assert stages(history) == [("teacher", history[:2]), ("student", history[2:])]
    assert stages([{"epoch": 1}]) == [("", [{"epoch": 1}])]


def test_failures_have_their_reasons(made):
    rows = made["failures"].frame.to_dict("records")
    assert [row["status"] for row in rows] == ["failed", "unsupported"]
    assert rows[0]["reason"] == "ValueError: it <b>broke</b> & 5 % of_it"
    assert rows[0]["on"] == f"gtsrb rnn {BLUR}"


def test_a_column_that_never_changes_is_said_in_the_caption(tmp_path):
    write_study(
        tmp_path, datasets=("mnist",), models=("cnn",), defenses={"none": ("",)}, libraries=("art",), seeds=(0,)
    )
    found = {table.name: table for table in study_tables.tables(Study.open(tmp_path))}
    assert "dataset" not in found["attacked"].frame
    assert "library" not in found["attacked"].frame
    assert "All rows: dataset mnist, library art." in found["attacked"].caption
    assert {"aware", "libraries", "defenses-mnist-accuracy", "search-none"} & set(found) == set()


def test_what_a_run_does_not_have_makes_no_table(tmp_path):
    frame = write_study(tmp_path, datasets=("mnist",), models=("cnn",), libraries=("art",), seeds=(0,))
    frame.assign(status="missing", reason="").to_parquet(tmp_path / "results.parquet")
    assert [table.name for table in study_tables.tables(Study.open(tmp_path))] == ["search", "training", "failures"]
    old = frame[[name for name in frame if not name.startswith(("attacker", "auroc", "seconds_per", "clean_f1"))]]
    old[old["defense"] == "none"].to_parquet(tmp_path / "results.parquet")
    assert "attacked" in [table.name for table in study_tables.tables(Study.open(tmp_path))]


def test_a_table_by_its_name(run):
    assert study_tables.find(Study.open(run), "times").title == "Times and costs, per image"
    with pytest.raises(InputError, match="unknown table 'timse'"):
        study_tables.find(Study.open(run), "timse")


def test_labels_say_what_differs_and_no_more():
    rows = [
        ("pgd", "linf", {"eps": 0.1, "steps": 7}),
        ("pgd", "linf", {"eps": 0.2, "steps": 7}),
        ("pgd", "l2", {"eps": 1.0}),
    ]
    rows += [("fgsm", "linf", {"eps": 0.1}), ("art:Some", None, {"a_b": [1, 2]})]
    frame = pd.DataFrame([{"attack": a, "norm": n, "params": json.dumps(p), "targeted": False} for a, n, p in rows])
    assert attack_labels(frame) == ["pgd linf eps=0.1", "pgd linf eps=0.2", "pgd l2", "fgsm", "art:Some"]


def test_models_are_called_as_the_suite_calls_them():
    frame = pd.DataFrame(
        [
            {
                "model": "cnn [blur + x]",
                "defense": "blur + x",
                "attack": "fgsm",
                "norm": "linf",
                "params": '{"eps": 0.1}',
                "n": 4,
                "seconds": 2.0,
                "status": "done",
                "attacker": None,
            }
        ]
    )
    (row,) = labelled(frame).to_dict("records")
    assert (row["model"], row["attacker"], row["seconds_per_image"]) == ("cnn", "", 0.5)


# --- how a table is written -------------------------------------------------------------------------------------------


@pytest.fixture
def odd():
    frame = pd.DataFrame(
        {
            "model": ["<script>alert(1)</script>", "a_b & 5 % {x} $y$ ^ ~ | \\ #"],
            "accuracy": [0.5, float("nan")],
            "accuracy_low": [0.25, float("nan")],
            "accuracy_high": [0.75, float("nan")],
            "difference": [-0.0001, 0.25],
            "forwards": [12345.6, 2.0],
            "good": [True, False],
        }
    )
    return StudyTable("odd", "T <i> & _", "About 5 % of_it", frame, ("accuracy", "difference"))


def test_intervals_stand_behind_their_numbers(odd):
    shown = texts(odd)
    assert list(shown.columns) == ["model", "accuracy", "difference", "forwards", "good"]
    assert list(shown["accuracy"]) == ["0.500 [0.250, 0.750]", "–"]
    assert list(shown["difference"]) == ["0.000", "0.250"]  # not -0.000
    assert list(shown["forwards"]) == ["12346", "2"]
    assert list(shown["good"]) == ["yes", "no"]


def test_odd_names_are_only_names(odd):
    text = render(odd, "md")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert r"a\_b &amp; 5 % {x} $y$ ^ ~ \| \\ #" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    tex = render(odd, "latex")
    assert r"a\_b \& 5 \% \{x\} \$y\$ \textasciicircum{} \textasciitilde{} \textbar{} \textbackslash{} \#" in tex
    assert r"\textless{}script\textgreater{}" in tex
    assert r"\caption{T \textless{}i\textgreater{} \& \_. About 5 \% of\_it}" in tex
    rows = list(csv.DictReader(io.StringIO(render(odd, "csv"))))
    assert rows[1]["model"] == odd.frame["model"][1]
    assert (rows[0]["accuracy"], rows[1]["accuracy"], rows[0]["forwards"]) == ("0.5", "", "12345.6")


def test_on_a_terminal(odd):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    study_text.print_rich(odd, console)
    assert "<script>alert(1)</script>" in console.file.getvalue()
    assert "0.500 [0.250, 0.750]" in console.file.getvalue()


def test_an_unknown_format_is_refused(odd):
    with pytest.raises(InputError, match="unknown format 'docx'"):
        render(odd, "docx")


@given(st.text())
def test_latex_has_no_bare_sign_of_its_own(text):
    plain = latex(text)
    for escaped in (
        r"\textbackslash{}",
        r"\textasciicircum{}",
        r"\textasciitilde{}",
        r"\textless{}",
        r"\textgreater{}",
        r"\textbar{}",
        r"$\pm$",
        r"$\times$",
        r"$\rightarrow$",
        r"$\leq$",
        r"$\geq$",
        "$-$",
        r"\{",
        r"\}",
        r"\$",
        r"\&",
        r"\%",
        r"\#",
        r"\_",
    ):
        plain = plain.replace(escaped, "")
    assert not set(plain) & set("\\{}$&%#_^~<>|\n")


@given(st.text())
def test_markdown_opens_no_tag_and_no_column(text):
    plain = markdown(text)
    assert "<" not in plain
    assert "\n" not in plain
    assert all(plain[i - 1] == "\\" for i, sign in enumerate(plain) if sign == "|")
