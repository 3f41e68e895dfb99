"""Strips of images: which picture is chosen, what is drawn of it, and that a page can carry them."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sparring.adapters.attacks.catalogue import find
from sparring.suites.plan.cell import Result
from sparring.suites.report import strips
from sparring.suites.report.study import Study
from sparring.suites.results import store


def cell(run, cell_id, *, n=6, shape=(3, 8, 8), seed=0, hit=(3, 4), right=range(6), eps=0.1, logits=True, **more):
    """A stored cell of fgsm whose images are noise, and its row of the results."""
    draw = np.random.default_rng(seed)
    x = draw.random((n, *shape), dtype=np.float32)
    x_adv = np.clip(x + np.float32(eps) * draw.choice([-1, 1], x.shape), 0, 1).astype(np.float32)
    y = np.arange(n) % 4
    before = np.where(np.isin(np.arange(n), list(right)), y, (y + 1) % 4)
    after = np.where(np.isin(np.arange(n), list(hit)), (y + 2) % 4, before)
    told = {
        f"logits_{k}": (3 * np.eye(4)[p] + draw.random((n, 4))).astype(np.float32)
        for k, p in (("clean", before), ("adv", after))
    }
    delta = np.abs(x_adv - x).reshape(n, -1).astype(float)
    arrays = {
        "x": x,
        "x_adv": x_adv,
        "y": y,
        "target": y - 9,
        "pred_clean": before,
        "pred_adv": after,
        "success": after != y,
        "linf": delta.max(1),
        "l2": np.sqrt((delta**2).sum(1)),
        "l1": delta.sum(1),
        "l0": (delta > 0).sum(1),
        **(told if logits else {}),
    }
    store.write(run, cell_id, {}, Result("done", arrays=arrays))
    row = {
        "cell_id": cell_id,
        "status": "done",
        "dataset": "set",
        "model": "net",
        "defense": "none",
        "attacker": "",
        "attack": "fgsm",
        "norm": "linf",
        "library": "art",
        "route": "native",
        "reconcile": "",
        "targeted": False,
        "seed": 0,
        "n": n,
        "eps": eps,
        "params": json.dumps(find("fgsm").resolve({"eps": eps})),
    }
    return arrays, row | more


def results(run, *rows):
    pd.DataFrame(list(rows)).to_parquet(run / "results.parquet")
    (run / "manifest.json").write_text('{"suite": {}}')


def opened(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_the_first_image_that_was_turned(tmp_path):
    arrays, row = cell(tmp_path, "a", right=(0, 1, 2, 4), hit=(3, 4, 5))
    results(tmp_path, row)
    (strip,) = strips.strips(Study.open(tmp_path), {"set": ["zero", "one", "two", "three"]}).strips
    assert (strip.index, strip.success, strip.label) == (4, True, "zero")  # 3 was wrong before
    assert (strip.dataset, strip.attack, strip.library, strip.model) == ("set", "fgsm", "art", "net")
    for uri, image in ((strip.original, arrays["x"][4]), (strip.adversarial, arrays["x_adv"][4])):
        np.testing.assert_array_equal(opened(uri), np.rint(image.transpose(1, 2, 0) * 255))
    change = arrays["x_adv"][4] - arrays["x"][4]
    assert strip.scale == 5  # 0.1 times 5 reaches the ends
    np.testing.assert_array_equal(
        opened(strip.difference), np.rint((0.5 + 5 * change).clip(0, 1).transpose(1, 2, 0) * 255)
    )
    assert strip.linf == arrays["linf"][4]


def test_the_most_confident_predictions_with_their_probabilities(tmp_path):
    from scipy.special import softmax

    arrays, row = cell(tmp_path, "a")
    results(tmp_path, row)
    (strip,) = strips.strips(Study.open(tmp_path), {"set": "abcd"}).strips
    for guesses, logits in ((strip.before, arrays["logits_clean"]), (strip.after, arrays["logits_adv"])):
        expected = softmax(logits[3].astype(np.float64))
        order = np.argsort(-expected)[:3]
        assert [guess.name for guess in guesses] == ["abcd"[i] for i in order]
        np.testing.assert_allclose([guess.probability for guess in guesses], expected[order])
        assert [guess.right for guess in guesses] == [i == 3 for i in order]
    assert strip.before[0].right
    assert not strip.after[0].right


def test_a_run_without_logits_tells_the_decision(tmp_path):
    _, row = cell(tmp_path, "a", logits=False)
    results(tmp_path, row)
    (strip,) = strips.strips(Study.open(tmp_path), {}).strips
    assert strip.before == (strips.Prediction("3", None, True),)
    assert strip.after == (strips.Prediction("1", None, False),)


def test_an_attack_that_turned_none(tmp_path):
    _, row = cell(tmp_path, "a", hit=(), right=(2, 3))
    results(tmp_path, row)
    (strip,) = strips.strips(Study.open(tmp_path), {}).strips
    assert (strip.index, strip.success) == (2, False)


def test_gray_and_odd_channels(tmp_path):
    rows = [cell(tmp_path, str(c), shape=(c, 5, 4), attack=f"art:C{c}", params="{}")[1] for c in (1, 2)]
    results(tmp_path, *rows)
    assert [opened(strip.original).shape for strip in strips.strips(Study.open(tmp_path), {}).strips] == [
        (5, 4),
        (5, 4),
    ]


def test_large_pictures_are_shown_small(tmp_path):
    _, row = cell(tmp_path, "a", shape=(3, 300, 200))
    results(tmp_path, row)
    (strip,) = strips.strips(Study.open(tmp_path), {}).strips
    assert opened(strip.original).shape == (128, 85, 3)


def test_two_of_each_attack_and_library_that_differ_most(tmp_path):
    rows = [
        cell(tmp_path, "a")[1],
        cell(tmp_path, "b", eps=0.2)[1],
        cell(tmp_path, "c", model="other", defense="blur", attacker="aware")[1],
        cell(tmp_path, "d", library="foolbox")[1],
    ]
    results(tmp_path, *rows)
    found = strips.strips(Study.open(tmp_path), {})
    assert [(strip.library, strip.model, strip.defense, strip.attacker) for strip in found.strips] == [
        ("art", "net", "", ""),
        ("art", "other", "blur", "aware"),
        ("foolbox", "net", "", ""),
    ]
    assert found.left_out == 1


def test_the_bytes_are_shared_by_the_attacks(tmp_path):
    rows = [cell(tmp_path, f"{i}{k}", library=f"lib{i}", model=f"m{k}")[1] for i in range(5) for k in range(2)]
    results(tmp_path, *rows)
    one = strips.strips(Study.open(tmp_path), {}, each=1).strips[0]
    size = sum(map(len, (one.original, one.adversarial, one.difference)))
    found = strips.strips(Study.open(tmp_path), {}, most_bytes=int(4.5 * size))
    assert [(strip.library, strip.model) for strip in found.strips] == [(f"lib{i}", "m0") for i in range(5)]
    assert found.left_out == 5


def test_failed_rows_have_no_picture(tmp_path):
    _, row = cell(tmp_path, "a")
    results(tmp_path, row, {**row, "cell_id": "gone", "status": "failed", "library": "foolbox"})
    found = strips.strips(Study.open(tmp_path), {})
    assert (len(found.strips), found.left_out) == (1, 0)


@pytest.mark.parametrize(
    ("change", "scale"),
    [(0.5, 1), (0.3, 1), (0.25, 2), (0.1, 5), (0.03, 10), (8 / 255, 10), (0.004, 100), (0, 1000), (1, 1)],
)
def test_the_scale_is_round_and_fits(change, scale):
    assert strips._scale(np.array([change, -change / 2], np.float32)) == scale
