"""The library-vs-library table: what is in a cell, which is marked, and every format."""

import io
import json

import pandas as pd
import pytest

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.errors import InputError
from sparring.suites.report.tables import libraries
from sparring.suites.results.rows import read_results


def row(library, framework="torch", attack="fgsm", model=None, status="done", accuracy=0.5, **more):
    params = find(attack).resolve(more.pop("params", {"eps": 0.1}))
    return {
        "cell_id": "x",
        "status": status,
        "reason": more.pop("reason", ""),
        "suite": "s",
        "dataset": "digits",
        "model": model or f"m-{framework}",
        "framework": framework,
        "library": library,
        "route": more.pop("route", "native"),
        "attack": attack,
        "norm": find(attack).norm,
        "params": json.dumps(params),
        "targeted": False,
        "seed": 0,
        "n": 10,
        "clean_accuracy": 0.9,
        "robust_accuracy": accuracy if status == "done" else float("nan"),
        "attack_success_rate": 1 - accuracy,
        "notes": more.pop("notes", ""),
        **more,
    }


@pytest.fixture
def results():
    return pd.DataFrame(
        [
            row("art", accuracy=0.25),
            row("foolbox", accuracy=0.5),
            row("torchattacks", accuracy=0.75, notes="odd: so"),
            row("art", "onnx", status="unsupported", reason="needs gradients"),
            row("art", attack="deepfool", params={}, accuracy=0.0),
            row("foolbox", attack="deepfool", params={}, status="failed", reason="it | broke_"),
        ]
    )


def test_attacks_down_libraries_and_frameworks_across(results):
    table = libraries.make(results)
    assert list(table.texts.index) == ["fgsm (eps=0.1)", "deepfool"]
    assert list(table.texts.columns) == ["art torch", "foolbox torch", "torchattacks torch", "art onnx"]
    assert list(table.texts.loc["fgsm (eps=0.1)"]) == ["0.250", "0.500", "0.750 [1]", "–"]
    assert list(table.texts.loc["deepfool"]) == ["0.000", "FAILED [2]", "", ""]
    assert "[1] torchattacks, fgsm: odd: so" in table.footnotes
    assert "[2] foolbox, deepfool: failed: it | broke_" in table.footnotes


def test_the_strongest_and_the_weakest_attack_are_marked_once_they_differ(results):
    table = libraries.make(results)
    assert table.best.loc["fgsm (eps=0.1)", "art torch"]
    assert table.worst.loc["fgsm (eps=0.1)", "torchattacks torch"]
    assert table.best.to_numpy().sum() == table.worst.to_numpy().sum() == 1
    success = libraries.make(results, "attack_success_rate")
    assert success.best.loc["fgsm (eps=0.1)", "art torch"]


def test_libraries_are_compared_on_one_model_not_models_with_each_other():
    table = libraries.make(
        pd.DataFrame(
            [
                row("art", accuracy=0.2),
                row("foolbox", accuracy=0.2),
                row("art", "onnx", accuracy=0.5),
                row("foolbox", "onnx", accuracy=0.6),
            ]
        )
    )
    assert list(table.best.iloc[0]) == [False, False, True, False]
    assert list(table.worst.iloc[0]) == [False, False, False, True]


def test_parameters_away_from_the_default_tell_rows_apart():
    table = libraries.make(
        pd.DataFrame(
            [
                row("art", attack="pgd", params={"eps": 0.1}),
                row("art", attack="pgd", params={"eps": 0.1, "steps": 7}),
                row("art", attack="pgd", params={"eps": 0.2}),
            ]
        )
    )
    assert list(table.texts.index) == [
        "pgd linf (eps=0.1)",
        "pgd linf (eps=0.1, steps=7)",
        "pgd linf (eps=0.2)",
    ]


def test_two_models_of_one_framework_and_two_routes_have_columns_of_their_own():
    table = libraries.make(
        pd.DataFrame(
            [
                row("art", model="a"),
                row("art", model="b"),
                row("foolbox", "onnx"),
                row("art", model="a", route="bridged"),
            ]
        )
    )
    assert list(table.texts.columns) == ["art a native", "art b native", "foolbox onnx", "art a bridged"]


def test_seeds_are_averaged_with_their_spread():
    table = libraries.make(pd.DataFrame([row("art", accuracy=0.4), row("art", accuracy=0.6, seed=1)]))
    assert table.texts.iat[0, 0] == "0.500 ±0.141"


def test_every_format_holds_the_names_and_the_numbers(results):
    table = libraries.make(results)
    md = libraries.render(table, "md")
    assert "**0.250**" in md
    assert r"FAILED [2]" in md
    csv = pd.read_csv(io.StringIO(libraries.render(table, "csv")), index_col=0)
    assert csv.loc["fgsm (eps=0.1)", "foolbox torch"] == 0.5
    latex = libraries.render(table, "latex")
    assert r"\textbf{0.250}" in latex
    assert r"\begin{tabular}" in latex
    parquet = pd.read_parquet(io.BytesIO(libraries.render(table, "parquet")))
    assert list(parquet["attack"]) == ["fgsm (eps=0.1)", "deepfool"]
    assert "<svg" in libraries.render(table, "svg")
    with pytest.raises(InputError, match=r"unknown format 'xls'.*latex"):
        libraries.render(table, "xls")


@pytest.mark.parametrize("width", [60, 100, 400])
def test_a_wide_table_is_printed_in_parts_that_fit(width):
    from rich.console import Console

    table = libraries.make(pd.DataFrame([row("torchattacks", model=f"model{i}") for i in range(12)]))
    console = Console(record=True, file=io.StringIO(), width=width)
    libraries.print_rich(table, console)
    text = console.export_text()
    assert all(f"model{i}" in text for i in range(12))
    assert text.count("0.500") == 12
    assert max(map(len, text.splitlines()[1:-1])) <= width


def test_a_value_that_is_not_in_the_results_is_refused(results):
    with pytest.raises(InputError, match=r"unknown value 'acuracy'.*robust_accuracy"):
        libraries.make(results, "acuracy")


def test_a_folder_without_results_says_how_to_make_them(tmp_path):
    with pytest.raises(InputError, match=r"results\.parquet is missing.*sparring run SUITE --out"):
        read_results(tmp_path)


def test_a_damaged_results_file_is_named(tmp_path):
    (tmp_path / "results.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"results\.parquet: can't be read"):
        read_results(tmp_path)


def test_data_sets_defenses_and_attackers_have_rows_of_their_own():
    blurred = {"defense": "blur", "library": "art"}
    frame = pd.DataFrame(
        [
            {**row("art", accuracy=0.2), "defense": "none", "attacker": ""},
            {**row("foolbox", accuracy=0.3), "defense": "none", "attacker": ""},
            {**row("art", accuracy=0.8, route="bridged"), **blurred, "attacker": "unaware"},
            {**row("art", accuracy=0.1, route="bridged"), **blurred, "attacker": "aware"},
            {**row("foolbox", accuracy=0.7, route="bridged"), **blurred, "library": "foolbox", "attacker": "unaware"},
            {**row("art", accuracy=0.5), "dataset": "mnist", "defense": "none", "attacker": ""},
        ]
    )
    table = libraries.make(frame)
    assert list(table.texts.index) == [
        "digits, undefended: fgsm (eps=0.1)",
        "digits, blur, unaware: fgsm (eps=0.1)",
        "digits, blur, aware: fgsm (eps=0.1)",
        "mnist, undefended: fgsm (eps=0.1)",
    ]
    assert list(table.texts.columns) == ["art torch", "foolbox torch"]  # a defended model's route is no other column
    assert list(table.numbers["art torch"]) == [0.2, 0.8, 0.1, 0.5]
    # never a defended model against an undefended, or a knowing attacker against another
    assert list(table.best["art torch"]) == [True, False, False, False]
    assert list(table.best["foolbox torch"]) == [False, True, False, False]
    assert list(table.worst["art torch"]) == [False, True, False, False]
    assert "digits and mnist" in table.title


def test_clean_accuracy_is_told_of_each_model_data_set_and_defense():
    frame = pd.DataFrame(
        [
            {**row("art"), "defense": "none", "attacker": ""},
            {**row("art"), "defense": "blur", "attacker": "aware"},
        ]
    )
    frame["clean_accuracy"] = [0.9, 0.8]
    assert libraries.make(frame).footnotes[0].startswith("clean accuracy: m-torch 0.900, m-torch blur 0.800;")


def test_a_value_that_an_older_run_has_not_is_said():
    with pytest.raises(InputError, match="this run has no auroc"):
        libraries.make(pd.DataFrame([row("art")]), "auroc")


def test_odd_names_are_only_names_in_markdown_and_latex():
    table = libraries.make(pd.DataFrame([row("art", model="<script>a_b$"), row("art", model="b")]))
    assert "<script>" not in libraries.render(table, "md")
    assert r"\textless{}script\textgreater{}a\_b\$" in libraries.render(table, "latex")
