"""The debugger names planted defects, never tells equal libraries apart, and says all of it on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from models_for_tests import OutputsOnly, labels, linear
from planted import OF_THE_END, OF_THE_LIBRARIES, OF_THE_REFEREE, SETTINGS, Planted
from typer.testing import CliRunner

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.library import load_library
from sparring.adapters.errors import InputError, NotSupported
from sparring.suites.cli.app import app, main
from sparring.suites.explain.cotangents import Rescaled
from sparring.suites.explain.explanation import Explanation, explain
from sparring.suites.explain.subject import choose, parameters
from sparring.suites.plan.file import load_suite

SUSPECTS = {
    "start",
    "step",
    "number of steps",
    "projection order",
    "box clip",
    "loss reduction",
    "label source",
    "overshoot",
    "sign of zero",
    "early stop",
    "best against last iterate",
    "batch size",
    "dtype",
}
MODELS = {"convolutional": planted.convolutional, "normalised": planted.normalised}


def explanation_of(case: Planted, classifier: Any) -> Explanation:
    x, y = planted.data(classifier)
    return explain(case.attack, case.library, case.defective(), classifier, x, y, case.params, norm=case.norm)


def wrong(rows: list[tuple[Planted, Explanation]]) -> list[str]:
    """Prints the table of the proof; the defects that are not named rightly."""
    for case, explanation in rows:
        right = "right" if explanation.suspect == case.suspect else "WRONG"
        print(f"{right}  {case.name!r:90}  ->  {explanation.suspect}  (left {explanation.residual:.2g})")
    return [case.name for case, explanation in rows if explanation.suspect != case.suspect]


def test_the_planted_defects_cover_every_suspect() -> None:
    assert {case.suspect for case in OF_THE_REFEREE} >= SUSPECTS
    assert len(OF_THE_REFEREE) >= 14


@pytest.mark.parametrize("model", MODELS)
def test_defects_of_the_referee_are_named(model: str) -> None:
    classifier = MODELS[model]()
    rows = [(case, explanation_of(case, classifier)) for case in OF_THE_REFEREE]
    assert len(wrong(rows)) <= 1
    for case, explanation in rows:
        if explanation.suspect == case.suspect:
            assert explanation.verdict == "different"
            assert explanation.first_parting is not None
            assert explanation.first_parting.largest > 1e-5


def test_defects_of_the_libraries_are_named() -> None:
    models = [build() for build in MODELS.values()]
    rows = [(case, explanation_of(case, models[index % 2])) for index, case in enumerate(OF_THE_LIBRARIES)]
    assert len(wrong(rows)) <= 1


@pytest.mark.parametrize("case", OF_THE_END, ids=lambda case: case[0].name)
@pytest.mark.parametrize("model", MODELS)
def test_where_two_changes_do_as_well_the_queries_decide(model: str, case: tuple[Planted, dict[str, Any]]) -> None:
    """Either library may be the defective one; what shows in no image is the same."""
    planted_, overrides = case
    classifier = MODELS[model]()
    x, y = planted.data(classifier, 8)
    params = find(planted_.attack).resolve(overrides)
    for pair in ((planted_.library, planted_.defective()), (planted_.defective(), planted_.library)):
        one = explain(planted_.attack, *pair, classifier, x, y, params)
        assert one.suspect == planted_.suspect, (one.verdict, one.suspect, one.change)
        assert one.verdict == "different"


EQUAL = (
    ("fgsm", "linf", "torchattacks", "foolbox"),
    ("fgsm", "linf", "art", "referee"),
    ("bim", "linf", "torchattacks", "art"),
    ("bim", "linf", "foolbox", "referee"),
    ("pgd", "linf", "foolbox", "art"),
    ("pgd", "linf", "torchattacks", "referee"),
    ("pgd", "l2", "foolbox", "referee"),
    ("mi-fgsm", "linf", "torchattacks", "art"),
    ("deepfool", "l2", "art", "referee"),
)


@pytest.mark.parametrize(("attack", "norm", "a", "b"), EQUAL)
@pytest.mark.parametrize("model", [planted.convolutional, planted.normalised, planted.tied])
def test_equal_libraries_are_not_told_apart(model: Any, attack: str, norm: str, a: str, b: str) -> None:
    classifier = model()
    x, y = planted.data(classifier)
    if model is planted.tied:
        y[:] = np.where(y == 3, 2, y)  # libraries may break the tie either way
    assert explain(attack, a, b, classifier, x, y, SETTINGS[attack, norm], norm=norm).verdict == "same"


@pytest.mark.parametrize(("attack", "norm", "a", "b"), [each for each in EQUAL if "referee" not in each])
def test_equal_libraries_are_not_told_apart_on_saturated_logits(attack: str, norm: str, a: str, b: str) -> None:
    classifier = planted.normalised(40.0)
    x, y = planted.data(classifier)
    assert explain(attack, a, b, classifier, x, y, SETTINGS[attack, norm], norm=norm).verdict == "same"


def test_a_model_without_gradients_says_why() -> None:
    classifier = OutputsOnly(planted.convolutional())
    x, y = planted.data(planted.convolutional(), 2)
    classifier.lacks = {"gradients": "needs gradients, and it.onnx has a staircase"}
    with pytest.raises(InputError, match=r"^pgd needs gradients, and it\.onnx has a staircase$"):
        explain("pgd", "art", "foolbox", classifier, x, y, {"eps": 0.1})


@pytest.mark.parametrize(("attack", "norm"), SETTINGS)
@pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks", "referee"])
def test_no_library_is_told_apart_from_itself(library: str, attack: str, norm: str) -> None:
    classifier = planted.convolutional()
    x, y = planted.data(classifier, 3)
    if (attack, norm) == ("ni-fgsm", "linf") and library in ("art", "foolbox"):
        with pytest.raises(NotSupported, match="Nesterov"):
            explain(attack, library, library, classifier, x, y, SETTINGS[attack, norm], norm=norm)
        return
    same = explain(attack, library, library, classifier, x, y, SETTINGS[attack, norm], norm=norm)
    assert (same.verdict, same.largest, same.first_parting) == ("same", 0.0, None)


def test_a_random_start_is_shared_by_a_library_with_itself_and_named_between_two() -> None:
    classifier = planted.convolutional()
    x, y = planted.data(classifier)
    params = {**planted.PGD, "random_start": True}
    assert explain("pgd", "art", "art", classifier, x, y, params).verdict == "same"
    assert explain("pgd", "art", "referee", classifier, x, y, params).suspect == "start"


def test_saturated_logits_tell_a_float32_loss_from_an_exact_one() -> None:
    classifier = planted.normalised(40.0)
    x, y = planted.data(classifier)
    one = explain("pgd", "torchattacks", "referee", classifier, x, y, planted.PGD)
    assert (one.verdict, one.suspect) == ("different", "dtype")
    assert "float32" in one.change


def test_a_mean_that_vanishes_in_a_batch_is_told_from_a_sum() -> None:
    """Of logits so far apart that the smallest gradients are near float32's smallest number."""
    classifier, _ = linear(5)
    far: Any = Rescaled(classifier, 150.0)
    far.logits = lambda x: classifier.logits(x) * np.float32(150)
    x = np.random.default_rng(0).uniform(0.2, 0.8, (32, 1, 6, 6)).astype(np.float32)
    y = labels(classifier, x)
    params = {"eps": 0.02, "eps_step": 0.01, "steps": 3}
    one = explain("bim", "torchattacks", "foolbox", far, x, y, params)
    assert (one.verdict, one.suspect) == ("different", "loss reduction")
    assert "32 times" in one.change
    assert one.first_parting is not None
    assert explain("bim", "foolbox", "art", far, x, y, params).verdict == "same"


def test_on_a_recurrent_keras_network() -> None:
    classifier = planted.recurrent()
    x, y = planted.data(classifier, 2)
    short = {**planted.PGD, "steps": 3}
    assert explain("pgd", "torchattacks", "foolbox", classifier, x, y, short).verdict == "same"
    assert explain("pgd", "foolbox", "referee", classifier, x, y, short).verdict == "same"
    defect = next(case for case in OF_THE_REFEREE if case.suspect == "number of steps")
    assert explain("pgd", "referee", defect.defective(), classifier, x, y, short).suspect == "number of steps"


def test_what_an_explanation_tells() -> None:
    case = next(case for case in OF_THE_REFEREE if (case.suspect, case.attack) == ("step", "pgd"))
    one = explanation_of(case, planted.convolutional())
    assert one.first_parting is not None
    assert (one.first_parting.step, one.first_parting.at_the_end) == (1, False)
    assert one.first_parting.largest == pytest.approx(0.1 * 0.03, rel=1e-3)
    c, h, w = one.first_parting.pixels[0]
    assert one.first_parting.by[c, h, w] == one.first_parting.largest
    assert all(len(image) == planted.PGD["steps"] + 1 for image in one.steps)
    start = one.steps[0][0]
    assert start.distance == (0.0, 0.0)
    assert start.apart == 0
    losses = [step.loss[0] for step in one.steps[0]]
    assert max(loss for loss in losses if loss is not None) > (losses[0] or 0.0)
    assert "1.1 times" in one.change
    meeting = [trial.suspect for trial in one.trials if trial.meets]
    assert meeting == ["step"]


def test_what_no_change_explains_is_said() -> None:
    """Square under another norm is another attack: no parameter makes one of the other."""
    other = load_library("torchattacks")
    square = other.attacks["square", "l2"]
    mixed = replace(other, name="mixed", attacks={**other.attacks, ("square", "linf"): square})
    classifier = planted.convolutional()
    x, y = planted.data(classifier, 3)
    one = explain("square", other, mixed, classifier, x, y, find("square").resolve({"eps": 0.1, "queries": 20}))
    assert (one.verdict, one.suspect, one.named) == ("different", None, False)
    assert one.trials


def test_bad_input_is_one_message() -> None:
    classifier = planted.convolutional()
    x, y = planted.data(classifier)
    with pytest.raises(InputError, match="at least one image"):
        explain("pgd", "art", "foolbox", classifier, x[:0], y[:0], planted.PGD)
    with pytest.raises(InputError, match="unknown library 'artt'"):
        explain("pgd", "artt", "foolbox", classifier, x, y, planted.PGD)
    with pytest.raises(InputError, match="canonical"):
        explain("art:DeepFool", "art", "foolbox", classifier, x, y)
    with pytest.raises(InputError, match="write numbers"):
        choose("0,b", classifier, x, y)
    with pytest.raises(InputError, match="no image 77"):
        choose("77", classifier, x, y)


def test_the_images_chosen_hold_one_that_the_model_misreads() -> None:
    classifier = planted.convolutional()
    x, y = planted.data(classifier, 12)
    y[1], y[11] = classifier.logits(x)[1].argmax(), (y[11] + 1) % 10
    assert choose(None, classifier, x, y) == (0, 1, 2, 3, 4, 5, 6, 11)
    assert choose("3,1", classifier, x, y) == (3, 1)


def test_parameters_come_from_the_call_then_the_suite_then_the_defaults() -> None:
    suite = load_suite("quickstart")
    params, source = parameters(find("fgsm"), suite, {})
    assert (params["eps"], source) == (0.1, "the parameters of the suite quickstart")
    params, source = parameters(find("pgd"), suite, {"steps": 3})
    assert (params["steps"], params["eps_step"]) == (3, 0.01)
    params, source = parameters(find("mi-fgsm"), suite, {})
    assert params["eps"] == 0.1
    assert "canonical defaults" in source
    with pytest.raises(InputError, match="unknown parameter 'stepz'"):
        parameters(find("pgd"), suite, {"stepz": 1})


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from planted import OF_THE_REFEREE\n"
        "LIBRARY = next(one for one in OF_THE_REFEREE if one.suspect == 'step').defective()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plot, file = tmp_path / "paths.png", tmp_path / "found.json"
    words = ["explain", "pgd", "--libraries", "referee,elsewhere:LIBRARY", "--images", "0,5", "--param", "steps=4"]
    result = CliRunner().invoke(app, [*words, "--plot", str(plot), "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "Different: step. defective: 1.1 times the step asked for" in result.output
    assert "The paths first part at step 1, of image" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    content = json.loads(file.read_text())
    assert (content["verdict"], content["suspect"], content["images"], content["named"]) == (
        "different",
        "step",
        [0, 5],
        True,
    )
    assert len(content["steps"][0]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pgd", "--libraries", "art"], "name two"),
        (["pgd", "--libraries", "art,nobody"], "unknown library 'nobody'"),
        (["pgdd", "--libraries", "art,foolbox"], "unknown attack 'pgdd'"),
        (["pgd", "--libraries", "art,foolbox", "--model", "nothing"], "unknown model 'nothing'"),
        (["pgd", "--libraries", "art,foolbox", "--param", "steps"], "write key=value"),
        (["pgd", "--libraries", "art,foolbox", "--plot", "paths.txt"], "must end in .png"),
    ],
)
def test_bad_input_on_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sparring", "explain", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err
