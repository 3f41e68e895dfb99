"""A study's figures: which there are, that they are whole, the same each time, and show the numbers of the run."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from study_run import BLUR, write_study

from sparring.adapters.errors import InputError
from sparring.suites.cli.results import plot_command
from sparring.suites.report.figures import all as figures
from sparring.suites.report.figures.drawing import INK, style
from sparring.suites.report.study import Study

ODD = "a_b & $x^2$ % <script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    values = [{"data": "gtsrb", "model": ODD, "attack": "pgd", "metrics": {"accuracy": 0.5}}]
    write_study(
        folder,
        datasets=("mnist", "gtsrb"),
        models=(ODD,),
        seeds=(0,),
        n=43,
        published={"source": "x", "library": "art", "values": values},
    )
    return folder


@pytest.fixture(scope="module")
def every(run):
    return {figure.name: figure for figure in figures.figures(Study.open(run))}


@pytest.fixture(scope="module")
def drawn(every):
    """Those whose picture is looked at, drawn once."""
    wanted = [
        name
        for name in every
        if re.match(r"bars-accuracy-gtsrb|eps-gtsrb|time-gtsrb|published|loss-gtsrb|overview-gtsrb", name)
    ]
    wanted += [next(name for name in every if name.startswith("confusion-gtsrb"))]
    return {name.split("-a-b")[0]: (every[name], figures.svg(every[name])) for name in wanted}


def test_errors_by_eps_are_drawn_as_they_are(every, run):
    frame = pd.read_parquet(run / "results.parquet")
    (figure,) = (figure for name, figure in every.items() if name.startswith("errors"))
    axes = [axis for axis in figure.draw().axes if axis.get_visible()]
    assert len(axes) == 4  # the undefended, the two defenses, one of them by who knows of it and who doesn't
    mine = frame[(frame["dataset"] == "gtsrb") & (frame["attack"] == "fgsm") & (frame["defense"] == "none")]
    mine = mine[mine["library"] == "art"]
    for line, rate, before in zip(
        axes[0].get_lines(), ("robust_accuracy", "top5"), ("clean_accuracy", "clean_top5"), strict=False
    ):
        values = [mine[before].mean(), *mine.groupby("eps")[rate].mean()]
        assert list(line.get_ydata()) == pytest.approx([1 - value for value in values])
        assert list(line.get_xdata()) == [0, 0.1, 0.2]


def test_which_figures_there_are(every):
    kinds = [re.split(r"-a-b|-mnist|-gtsrb", name)[0] for name in every]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "bars-accuracy": 2,
        "bars-f1": 2,
        "bars-precision": 2,
        "bars-recall": 2,
        "bars-seconds-per-image": 2,
        "overview": 2,
        "eps": 2,
        "errors": 1,
        "time": 2,
        "published": 1,
        "confusion": 8,
        "loss": 2,
    }
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in every)
    assert all(figure.title and figure.caption for figure in every.values())


def test_each_is_well_formed_with_texts_in_ink_and_nothing_behind(drawn):
    for name, (_, text) in drawn.items():
        root = ET.fromstring(text)
        assert root.tag.endswith("svg"), name
        words = [element for element in root.iter() if element.tag.endswith("}text")]
        assert len(words) > 5, name
        inks = {re.search(r"fill: (#\w+)", element.get("style", ""))[1] for element in words}
        assert inks <= {INK, "#101010"}, name
        assert re.search(r'<path d="[^"]*"\s+style="([^"]*)"', text)[1] == "fill: none", name  # the first: the page
        assert "Date" not in text, name


def test_names_are_texts_and_no_tags(every, drawn):
    for figure, text in drawn.values():
        assert "<script" not in text
        assert ET.fromstring(text).get("aria-label") == figure.title
    (text,) = [text for name, (_, text) in drawn.items() if name.startswith("time")]
    shown = " ".join(
        "".join(element.itertext()) for element in ET.fromstring(text).iter() if element.tag.endswith("text")
    )
    assert "$x^2$" in shown  # no formula


def test_ids_are_the_figures_own_and_all_that_is_referred_to_is_there(drawn):
    seen = set()
    for _, text in drawn.values():
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(set(ids)) == len(ids)
        assert not seen & set(ids)
        seen |= set(ids)
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) == set(ids)


def test_the_same_figure_is_the_same_file(every, drawn):
    for name in ("bars-accuracy-gtsrb", "confusion-gtsrb"):
        figure, text = drawn[name]
        assert figures.svg(figure) == text
    png = figures._saved(drawn["eps-gtsrb"][0], "png", True)
    assert png == figures._saved(drawn["eps-gtsrb"][0], "png", True)


def test_bars_are_as_high_as_the_numbers(run, every):
    figure = next(figure for name, figure in every.items() if name.startswith("bars-accuracy-gtsrb"))
    axes = figure.draw().axes
    assert [axis.get_title() for axis in axes] == ["art", "foolbox"]
    frame = pd.read_parquet(run / "results.parquet")
    mine = frame[(frame["dataset"] == "gtsrb") & (frame["library"] == "art") & (frame["status"] == "done")]
    bars = {round(patch.get_height(), 9) for patch in axes[0].patches}
    assert bars == {round(value, 9) for value in [*mine["robust_accuracy"], *mine["clean_accuracy"]]}
    assert len(axes[0].patches) == 4 * 5 - 1  # undefended, trained, blurred twice; clean and four attacks; one failed
    hatched = [patch for patch in axes[0].patches if patch.get_hatch()]
    aware = mine[mine["attacker"] == "aware"]
    assert {round(patch.get_height(), 9) for patch in hatched[1:]} == {
        round(value, 9) for value in aware["robust_accuracy"]
    }
    ends = {round(float(y), 9) for bar in axes[0].collections for segment in bar.get_segments() for y in segment[:, 1]}
    assert {round(value, 9) for value in mine["robust_accuracy_low"]} <= ends
    assert {round(value, 9) for value in mine["robust_accuracy_high"]} <= ends


def test_a_library_of_its_own_attacks_alone_has_no_panel(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("cells"))
    frame = pd.read_parquet(run / "results.parquet")
    own = frame[(frame["attack"] == "pgd") & (frame["library"] == "art")].assign(
        library="sparring", attack="pixel-swap"
    )
    pd.concat([frame, own]).to_parquet(tmp_path / "run" / "results.parquet")
    figure = next(
        figure
        for figure in figures.figures(Study.open(tmp_path / "run"))
        if figure.name.startswith("bars-accuracy-mnist")
    )
    axes = figure.draw().axes
    assert [axis.get_title(loc="left") or axis.get_title() for axis in axes] == ["art", "foolbox"]
    names = [label.get_text().replace("\n", " ") for label in axes[-1].get_xticklabels()]
    assert names[-1] == "pixel-swap (sparring)"


def test_curves_begin_at_the_clean_accuracy(run, every):
    figure = next(figure for name, figure in every.items() if name.startswith("eps-mnist"))
    axes = [axis for axis in figure.draw().axes if axis.get_visible()]
    assert [axis.get_title().replace("\n", " ") for axis in axes] == [
        "undefended",
        "adversarial-training",
        f"{BLUR} (unaware)",
        f"{BLUR} (aware)",
    ]
    frame = pd.read_parquet(run / "results.parquet")
    mine = frame[(frame["dataset"] == "mnist") & (frame["library"] == "foolbox") & (frame["attacker"] == "aware")]
    sized = mine[mine["attack"] == "fgsm"].sort_values("eps")
    line = next(line for line in axes[3].lines if line.get_label() == "foolbox")
    assert list(line.get_xdata()) == [0, 0.1, 0.2]
    assert list(line.get_ydata()) == pytest.approx([mine["clean_accuracy"].iloc[0], *sized["robust_accuracy"]])


def test_confusion_counts_what_is_stored(run, every):
    from sklearn.metrics import confusion_matrix

    figure = next(figure for name, figure in every.items() if name.startswith("confusion-mnist"))
    axes = figure.draw().axes
    frame = pd.read_parquet(run / "results.parquet")
    first = frame[(frame["dataset"] == "mnist") & (frame["defense"] == "none") & (frame["library"] == "art")].iloc[0]
    with np.load(run / "cells" / first["cell_id"] / "images.npz") as stored:
        counts = confusion_matrix(stored["y"], stored["pred_adv"], labels=range(10))
    shown = {(round(t.get_position()[1]), round(t.get_position()[0])): int(t.get_text()) for t in axes[1].texts}
    assert shown == {place: counts[place] for place in zip(*np.nonzero(counts), strict=True)}
    assert axes[1].get_title() == "fgsm eps=0.1 (art)"


def test_losses_of_each_training_once(every):
    figure = next(figure for name, figure in every.items() if name.startswith("loss-mnist"))
    axes = [axis for axis in figure.draw().axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["undefended", "adversarial-training"]
    training, validation = axes[0].lines
    assert list(training.get_ydata())[:2] == [2.0, 1.0]
    assert validation.get_linestyle() == "--"


def test_nothing_overlaps_with_many_long_names(tmp_path):
    defenses = {
        "none": ("",),
        "adversarial-training(attack=fgsm, eps=0.1, ratio=0.5)": ("",),
        "randomization(rotation=15.0, shift=0.1, zoom=0.2)": ("unaware", "aware"),
        "distillation(temperature=10)": ("",),
        "adversarial-training + gaussian-blur(sigma=1.0)": ("unaware", "aware"),
        "bit-depth(levels=32)": ("unaware", "aware"),
    }
    attacks = (("fgsm", {"eps": 0.1}, 0.6), ("bim", {"eps": 0.1}, 0.4), ("deepfool", {}, 0.1), ("cw", {}, 0.1))
    write_study(
        tmp_path,
        datasets=("mnist",),
        models=("a-convolutional-network-with-dropout",),
        defenses=defenses,
        attacks=attacks,
        libraries=("art", "foolbox", "torchattacks"),
        seeds=(0,),
        n=30,
    )
    wanted = ("bars-accuracy", "overview", "time")
    for figure in figures.figures(Study.open(tmp_path)):
        if figure.name.startswith(wanted):
            with style(figure.name):
                drawing = figure.draw()
                FigureCanvasAgg(drawing).draw()
                _check_apart(drawing, figure.name)


def _check_apart(drawing, name):
    renderer = FigureCanvasAgg(drawing).get_renderer()
    page = drawing.bbox
    boxes = []
    for axis in drawing.axes:
        if not axis.get_visible():
            continue
        inside = []
        for side in (axis.xaxis, axis.yaxis):
            low, high = sorted(side.get_view_interval())
            inside += [tick.label1 for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
        for label in [*inside, axis.xaxis.label, axis.yaxis.label, axis._left_title]:
            if label.get_text() and label.get_visible():
                boxes.append((label.get_text(), label.get_window_extent(renderer)))
    for legend in drawing.legends:
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in legend.get_texts()]
    for text, box in boxes:
        assert box.x0 >= page.x0 - 2, (name, text)
        assert box.x1 <= page.x1 + 2, (name, text)
        assert box.y0 >= page.y0 - 2, (name, text)
    for i, (one, box) in enumerate(boxes):
        for other, there in boxes[i + 1 :]:
            apart = box.x1 <= there.x0 + 1 or there.x1 <= box.x0 + 1 or box.y1 <= there.y0 + 1 or there.y1 <= box.y0 + 1
            assert apart, (name, one, other)


def test_as_files(run, tmp_path, monkeypatch, capsys):
    few = [figure for figure in figures.figures(Study.open(run)) if figure.name.startswith(("time-mnist", "published"))]
    monkeypatch.setattr(figures, "figures", lambda run: few)
    plot_command(run, tmp_path / "here", "svg,png")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "published.png",
        "published.svg",
        "time-mnist.png",
        "time-mnist.svg",
    ]
    assert f"4 files in {tmp_path / 'here'}/" in capsys.readouterr().out
    assert "Accuracy against time: mnist" in (tmp_path / "here" / "time-mnist.svg").read_text()
    assert (tmp_path / "here" / "published.png").read_bytes().startswith(b"\x89PNG")


def test_what_can_not_be_drawn_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="--format: unknown format 'gif'"):
        plot_command(run, tmp_path / "here", "gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        plot_command(run, tmp_path / "file", "svg")
    with pytest.raises(InputError, match="no results here"):
        plot_command(tmp_path / "nowhere", None, "svg")


def test_nothing_done_is_nothing_to_draw(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("cells"))
    frame = pd.read_parquet(run / "results.parquet").assign(status="missing")
    frame.to_parquet(tmp_path / "run" / "results.parquet")
    assert [figure.name.split("-")[0] for figure in figures.figures(Study.open(tmp_path / "run"))] == ["loss", "loss"]
