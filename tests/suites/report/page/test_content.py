"""The page of a run, read as HTML: it holds what it must, asks nothing of anybody, and every name in it is text."""

import base64
import hashlib
import html as entities
import json
import re
from html.parser import HTMLParser

import hostile_run
import pandas as pd
import pytest
import study_run
from hostile_run import CLASSES, DATASET, DEFENSE, MODEL, REASON, SCRIPT

from sparring.adapters.errors import InputError
from sparring.suites.report import masking
from sparring.suites.report import table as study_text
from sparring.suites.report.figures import all as figures
from sparring.suites.report.figures.drawing import INK
from sparring.suites.report.page import write as report
from sparring.suites.report.page.svg import inline
from sparring.suites.report.page.tables import page_table
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable
from sparring.suites.report.tables import all as study_tables


class Page(HTMLParser):
    """Its tags with their attributes, its visible text, its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.scripts, self.styles, self._in = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._in and self._in.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attrs = self._in[-1] if self._in else ("", {})
        if tag == "script":
            self.scripts.append((attrs, data))
        elif tag == "style":
            self.styles.append(data)
        else:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    hostile_run.write_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def written(run):
    assert report.write(Study.open(run)) == run / "report.html"
    return (run / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


def test_the_question_the_protocol_and_what_was_reduced(page):
    for part in (
        f"Is {SCRIPT} safe?",
        "First this.",
        "Then <i>that</i>.",
        "Profile “small”",
        "data.samples 40 10000",
        f"sparring run '{SCRIPT}' --profile small",
    ):
        assert part in page.text


def test_every_name_is_text(page):
    for name in (MODEL, DATASET, REASON, CLASSES[0], CLASSES[2], DEFENSE, "machine ?", f"it differs {SCRIPT}"):
        assert name in page.text
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert {attrs.get("type", "") for tag, attrs in page.tags if tag == "script"} == {"", "application/json"}
    code = [text for attrs, text in page.scripts if "type" not in attrs]
    assert len(code) == 1
    assert "alert" not in code[0]


def test_nothing_is_asked_for(page, written):
    allowed = ("data:image/png;base64,", "#")
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(allowed), (tag, attrs)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base", "form")]
    assert "@import" not in written
    for style in page.styles:
        assert not re.search(r"url\((?!#)", style)


def test_the_policy_lets_its_own_script_alone_run(page):
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    (code,) = (text for attrs, text in page.scripts if "type" not in attrs)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")


def test_every_table_can_be_saved_as_it_was_made(run, page):
    files = {attrs["id"]: json.loads(text) for attrs, text in page.scripts if "type" in attrs}
    made = study_tables.tables(Study.open(run))
    assert len(made) > 6
    for table in made:
        assert files[f"files-{table.name}"] == {
            "csv": study_text.render(table, "csv"),
            "tex": study_text.render(table, "latex"),
        }


def test_ids_are_there_once(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        targets = [attrs[name][1:] for name in ("href", "xlink:href") if attrs.get(name, "").startswith("#")]
        assert {*targets, *attrs.get("aria-labelledby", "").split()} <= {*ids}
        for target in re.findall(r"url\(#([^)]+)\)", " ".join(filter(None, attrs.values()))):
            assert target in ids


def test_every_figure_is_there_in_the_pages_ink(run, page, written):
    drawn = figures.figures(Study.open(run))
    assert [tag for tag, _ in page.tags].count("svg") == len(drawn) > 4
    for figure in drawn:
        assert figure.title in page.text
        assert f'id="figure-{figure.name}"' in written
    assert INK not in written[written.index("<body") :]
    assert "var(--ink)" in written[written.index("<svg") :]


def test_published_values_beyond_the_interval_are_said(page):
    assert f"A study {SCRIPT}" in page.text
    assert re.search(r"fgsm, accuracy: published \.050, measured \.\d+ \[\.\d+, \.\d+\]: higher by", page.text)
    assert "1 published value beyond the measured interval" in page.text


def test_masked_gradients_are_said(run, page):
    said = masking.sentences(masking.examine(Study.open(run)).findings)
    assert said
    for line in said:
        assert line in page.text


def test_pictures_with_their_predictions(page):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) >= 3 * 4
    assert all(attrs["alt"] for attrs in images)
    assert re.search(r"\d\.\d %", page.text)


def test_versions_seeds_and_machine(page):
    for part in ("torch 2.13.0", "Zebra 1.0", "seeds 0", "sparring 0.1.0", "device cpu", f"processor {SCRIPT}"):
        assert part in page.text


def test_the_same_run_gives_the_same_bytes(run, written, tmp_path):
    assert report.write(Study.open(run), tmp_path / "deep" / "again.html").read_text("utf-8") == written


def test_an_older_run_is_shown_without_what_it_lacks(run, tmp_path):
    """No attackers, no logits, no class names, no metrics but the first."""
    frame = pd.read_parquet(run / "results.parquet")
    old = [
        c
        for c in frame
        if c not in ("attacker", "seconds_per_image", "prediction_seconds_per_image") and "top5" not in c
    ]
    first = frame[(frame["defense"] == "none") & (frame["status"] == "done")].head(3)
    manifest = {"suite": {"name": "old", "description": "Why?", "data": {}}, "seeds": [0], "models": {}}
    for cell_id in first["cell_id"]:
        folder = tmp_path / "cells" / cell_id
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(run / "cells" / cell_id)
    first[old].to_parquet(tmp_path / "results.parquet", index=False)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    text = Page(report.write(Study.open(tmp_path)).read_text("utf-8")).text
    assert "Why?" in text
    assert "sparring run old" in text
    assert "None: every row is done." in text


def test_bad_input_is_one_message(run, tmp_path):
    with pytest.raises(InputError, match="no results here"):
        report.write(Study.open(tmp_path))
    with pytest.raises(InputError, match="this is a folder; name a file in it"):
        report.write(Study.open(run), tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("manifest.json", "results.parquet"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(InputError, match=r"10 of 10 finished cells of results\.parquet are not in cells/"):
        report.write(Study.open(tmp_path))
    with pytest.raises(InputError, match="can't be written"):
        report.write(Study.open(run), tmp_path / "file" / "report.html")


@pytest.mark.parametrize("status", ["failed", "missing", None])
def test_a_run_of_which_nothing_is_done(run, tmp_path, status):
    frame = pd.read_parquet(run / "results.parquet")
    (frame.assign(status=status) if status else frame.iloc[:0]).to_parquet(tmp_path / "results.parquet")
    (tmp_path / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    text = Page(report.write(Study.open(tmp_path)).read_text("utf-8")).text
    assert "Nothing here could show them" in text
    assert (f"rows {status} 12" in text) == bool(status)


def test_a_thousand_images_and_thirty_cells_stay_under_15_mb(tmp_path):
    study_run.write_study(
        tmp_path,
        datasets=("mnist",),
        models=("cnn",),
        defenses={"none": ("",), "a": ("",), "b": ("",), "c": ("",), "d": ("",)},
        attacks=(("fgsm", {"eps": 0.1}, 0.5), ("pgd", {"eps": 0.1}, 0.3)),
        libraries=("art", "foolbox", "torchattacks"),
        seeds=(0,),
        n=1000,
        shape=(3, 12, 12),
    )
    assert len(list((tmp_path / "cells").iterdir())) == 30
    assert report.write(Study.open(tmp_path)).stat().st_size < 15e6


# --- the pieces -------------------------------------------------------------------------------------------------------


def test_numbers_texts_and_intervals_of_a_table():
    frame = pd.DataFrame(
        {
            "model": ["a [b", "c"],
            "accuracy": [0.5, float("nan")],
            "accuracy_low": [0.4, float("nan")],
            "accuracy_high": [0.6, float("nan")],
            "works": [True, False],
        }
    )
    shown = page_table(StudyTable("t", "T", "C", frame, ("accuracy",)))
    assert shown.columns == ("model", "accuracy", "works")
    assert shown.numeric == (False, True, False)
    assert [[(c.text, c.interval, c.value) for c in row] for row in shown.rows] == [
        [("a [b", "", ""), ("0.500", "[0.400, 0.600]", "0.5"), ("yes", "", "")],
        [("c", "", ""), ("–", "", ""), ("no", "", "")],
    ]


def test_a_drawing_keeps_its_own_links_and_loses_what_acts():
    drawing = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
      width="100pt" height="50pt" viewBox="0 0 100 50" onload="alert(1)"><metadata>x</metadata><style>* {}</style>
      <defs><path id="m" style="stroke: #222222" fill="#222222"/></defs><script>alert(1)</script>
      <g clip-path="url(#c)"><use xlink:href="#m"/><a href="https://example.org"><text style="fill: #0072b2">id="m"</text></a></g></svg>"""
    made = inline(drawing, "f1-", "#222222")
    for gone in ("onload", "script", "metadata", "<style>", "example.org", "#222222"):
        assert gone not in made
    for kept in (
        'id="f1-m"',
        'xlink:href="#f1-m"',
        "url(#f1-c)",
        "stroke: var(--ink)",
        'fill="currentColor"',
        "--width: 100pt",
    ):
        assert kept in made
    assert 'id="m"' in entities.unescape(made)  # of the text, which is nobody's id
