"""The tables of a study on the command line."""

import io

import pytest
from rich.console import Console
from study_run import write_study

from sparring.adapters.errors import InputError
from sparring.suites.cli import results
from sparring.suites.report.study import Study
from sparring.suites.report.tables import all as study_tables


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_study(folder, datasets=("mnist",), models=("cnn",), seeds=(0,), n=20)
    return folder


def console():
    return Console(file=io.StringIO(), width=200)


def test_the_list_names_every_table(run):
    screen = console()
    results.listing(run, screen)
    lines = screen.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [table.name for table in study_tables.tables(Study.open(run))]


def test_one_table_in_each_format(run, tmp_path, capsys):
    results.show(run, "worst", "csv", None, console())
    assert capsys.readouterr().out == study_tables.render(study_tables.find(Study.open(run), "worst"), "csv")
    results.show(run, "worst", "latex", tmp_path / "worst.tex", console())
    assert "\\label{tab:worst}" in (tmp_path / "worst.tex").read_text()
    screen = console()
    results.show(run, "worst", "rich", None, screen)
    assert "any distance" in screen.file.getvalue()


def test_all_tables_at_once(run, tmp_path):
    results.show(run, "all", "md", tmp_path / "all.md", console())
    text = (tmp_path / "all.md").read_text()
    assert all(f"**{table.title}**" in text for table in study_tables.tables(Study.open(run)))


def test_what_can_not_be_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="unknown table 'wurst'"):
        results.show(run, "wurst", "md", None, console())
    with pytest.raises(InputError, match="--format: unknown format 'svg'"):
        results.show(run, "worst", "svg", None, console())
    with pytest.raises(InputError, match="prints to the terminal"):
        results.show(run, "worst", "rich", tmp_path / "x", console())
    with pytest.raises(InputError, match="holds one table"):
        results.show(run, "all", "csv", None, console())
    with pytest.raises(InputError, match="no results here"):
        results.listing(tmp_path, console())
