"""Signs of masked gradients: each is told where it is there, and none where the attacks agree."""

import json

import numpy as np
import pandas as pd
import pytest

from sparring.adapters.attacks.catalogue import find
from sparring.suites.plan.cell import Result
from sparring.suites.report import masking
from sparring.suites.report.study import Study
from sparring.suites.results import store

N = 100


class Folder:
    """A run folder with one model, on which attacks left what is said."""

    def __init__(self, path):
        self.path, self.rows = path, []

    def add(
        self,
        attack,
        broken,
        *,
        norm=None,
        distance=0.05,
        attacker="",
        seed=0,
        library="art",
        defense="blur",
        still=0,
        clean=N,
        variant="",
        space="pixels",
        temperature=1.0,
        **params,
    ):
        """``broken``: which images it turned, ``distance`` away in every norm; ``clean``: the first so many are right."""
        canonical = find(attack, norm)
        params = canonical.resolve(params)
        y = np.zeros(N, np.int64)
        wrong = np.zeros(N, bool)
        wrong[list(broken)] = True
        pred_clean = np.where(np.arange(N) < clean, 0, 1)
        far = np.full(N, distance)
        far[:still] = 0
        pred_adv = np.where(wrong, 1, pred_clean)
        arrays = {"y": y, "pred_clean": pred_clean, "pred_adv": pred_adv, "success": pred_adv != y, "target": y - 1}
        cell_id = f"cell{len(self.rows)}"
        store.write(
            self.path, cell_id, {}, Result("done", arrays=arrays | {name: far for name in ("l0", "l1", "l2", "linf")})
        )
        self.rows.append(
            {
                "cell_id": cell_id,
                "status": "done",
                "dataset": "mnist",
                "model": "cnn",
                "defense": defense,
                "attacker": attacker,
                "attack": attack,
                "norm": canonical.norm,
                "library": library,
                "route": "native",
                "reconcile": "",
                "variant": variant,
                "space": space,
                "temperature": temperature,
                "targeted": False,
                "seed": seed,
                "n": N,
                "params": json.dumps(params),
                "eps": params.get("eps", float("nan")),
                "robust_accuracy": float((pred_adv == y).mean()),
            }
        )
        return self

    def examine(self):
        pd.DataFrame(self.rows).to_parquet(self.path / "results.parquet")
        (self.path / "manifest.json").write_text('{"suite": {}}')
        return masking.examine(Study.open(self.path))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def signs(found):
    return [(item.sign, item.weak, item.strong) for item in found.findings]


def test_an_attacker_who_knows_of_the_defense(folder):
    folder.add("pgd", range(10), eps=0.1, attacker="unaware").add("pgd", range(70), eps=0.1, attacker="aware")
    found = folder.examine()
    assert signs(found) == [("unaware", "pgd (art)", "pgd (art)")]
    (item,) = found.findings
    assert (item.weak_accuracy, item.strong_accuracy, item.difference) == (0.9, 0.3, pytest.approx(0.6))
    assert 0.48 < item.low < 0.6 < item.high < 0.7
    (line,) = masking.sentences(found.findings)
    assert line.startswith(
        "cnn with blur on mnist: pgd (art) leaves 90 % right while it does not know of the defense and 30 %"
    )
    assert "masked gradients" in line


def test_a_small_difference_is_not_told(folder):
    folder.add("pgd", range(10), eps=0.1, attacker="unaware").add("pgd", range(18), eps=0.1, attacker="aware")
    found = folder.examine()
    assert found.findings == ()
    assert found.compared > 0


def test_a_difference_within_the_interval_is_not_told(folder):
    # 12 points, but made of 30 images against 18: the paired interval holds zero
    folder.add("pgd", range(18), eps=0.1, attacker="unaware").add("pgd", range(40, 70), eps=0.1, attacker="aware")
    assert folder.examine().findings == ()


def test_knowing_less_is_no_sign(folder):
    folder.add("pgd", range(70), eps=0.1, attacker="unaware").add("pgd", range(10), eps=0.1, attacker="aware")
    assert folder.examine().findings == ()


def test_only_the_same_attack_is_compared_between_attackers(folder):
    folder.add("pgd", range(10), eps=0.1, attacker="unaware").add("pgd", range(70), eps=0.2, attacker="aware")
    assert "unaware" not in {item.sign for item in folder.examine().findings}


def test_divided_logits_show_a_saturated_cross_entropy(folder):
    folder.add("fgsm", range(10), eps=0.1).add("fgsm", range(70), eps=0.1, variant="logits / 100", temperature=100.0)
    found = folder.examine()
    assert signs(found) == [("temperature", "fgsm (art)", "fgsm (art, logits / 100)")]
    (line,) = masking.sentences(found.findings)
    assert line.startswith(
        "cnn with blur on mnist: fgsm (art, logits / 100) leaves 30 % right, fgsm (art) with the logits"
    )


def test_divided_logits_are_compared_with_the_same_attack_alone(folder):
    folder.add("fgsm", range(10), eps=0.1).add("fgsm", range(70), eps=0.2, variant="logits / 100", temperature=100.0)
    folder.add("fgsm", range(70), eps=0.1, library="foolbox", variant="logits / 100", temperature=100.0)
    assert folder.examine().findings == ()


def test_pictures_that_were_damaged_before_the_attack_show_nothing(folder):
    folder.add("pgd", range(10), eps=0.1).add("square", range(80), eps=0.1, variant="first", space="normalised-first")
    assert folder.examine() == masking.Masking((), 1)


def test_balls_are_those_of_attacks_in_pixels(folder):
    """An eps in units of the normalised input is no radius for images in [0, 1]; what such an attack finds counts."""
    folder.add("fgsm", range(50), eps=0.2, distance=0.06, variant="n", space="normalised").add(
        "pgd", range(10), eps=0.1
    )
    folder.add("square", range(60), eps=0.1)
    assert signs(folder.examine()) == [("black-box", "pgd (art) within linf 0.1", "square (art)")]


def test_several_attacks_together(folder):
    folder.add("pgd", range(10), eps=0.1).add("autoattack", range(60), eps=0.1)
    found = folder.examine()
    assert signs(found) == [("ensemble", "pgd (art) within linf 0.1", "autoattack (art)")]
    assert "too weak to measure" in masking.sentences(found.findings)[0]


def test_apgd_on_the_difference_of_logits_follows_no_cross_entropy(folder):
    folder.add("pgd", range(10), eps=0.1).add("apgd", range(60), eps=0.1, loss="dlr").add("apgd", range(12), eps=0.1)
    assert [item.sign for item in folder.examine().findings] == ["margin"]


def test_an_attack_without_gradients_in_the_same_ball(folder):
    folder.add("pgd", range(10), eps=0.1).add("square", range(60), norm="linf", eps=0.1)
    found = folder.examine()
    assert signs(found) == [("black-box", "pgd (art) within linf 0.1", "square (art)")]
    assert "sees no gradients" in masking.sentences(found.findings)[0]


def test_what_lies_outside_the_ball_is_no_sign(folder):
    folder.add("pgd", range(10), eps=0.1).add("square", range(60), norm="linf", eps=0.3, distance=0.2)
    assert folder.examine().findings == ()


def test_images_of_a_minimal_attack_count_where_they_are_near(folder):
    folder.add("bim", range(10), eps=0.1).add("hopskipjump", range(60), norm="linf", distance=0.09)
    assert signs(folder.examine()) == [("black-box", "bim (art) within linf 0.1", "hopskipjump (art)")]


def test_the_gradient_attacks_count_together(folder):
    folder.add("pgd", range(30), eps=0.1).add("fgsm", range(30, 60), eps=0.1).add(
        "square", range(60), norm="linf", eps=0.1
    )
    assert "black-box" not in {item.sign for item in folder.examine().findings}


def test_the_logits_where_the_cross_entropy_fails(folder):
    folder.add("bim", range(5), eps=0.3).add("cw", range(80), distance=0.2)
    found = folder.examine()
    assert signs(found) == [("margin", "bim (art) within linf 0.3", "cw (art)")]
    assert "cross-entropy" in masking.sentences(found.findings)[0]


def test_one_step_and_cw_are_not_set_against_each_other(folder):
    """FGSM is weak without any masking."""
    folder.add("fgsm", range(5), eps=0.3).add("cw", range(80), distance=0.2)
    assert folder.examine().findings == ()


def test_one_step_that_beats_many(folder):
    folder.add("pgd", range(48), eps=0.1).add("fgsm", range(86), eps=0.1)
    found = folder.examine()
    assert signs(found) == [("one-step", "pgd (art) within linf 0.1", "fgsm (art)")]
    assert "one step of fgsm (art) leaves 14 % right" in masking.sentences(found.findings)[0]


def test_gradients_that_are_zero(folder):
    folder.add("fgsm", range(60, 70), eps=0.1, still=40, clean=80)
    (item,) = folder.examine().findings
    assert (item.sign, item.difference, item.n) == ("vanishing", 0.5, 80)  # 40 of the 80 that were right
    assert "50 % of the 80 images" in item.sentence


def test_untouched_images_that_were_wrong_before_are_no_sign(folder):
    folder.add("fgsm", (), eps=0.1, clean=0, still=100)
    assert folder.examine().findings == ()


def test_an_image_is_broken_if_any_seed_broke_it(folder):
    for seed, broken in enumerate((range(30), range(30, 60))):
        folder.add("pgd", broken, eps=0.1, seed=seed, attacker="unaware")
    folder.add("pgd", range(62), eps=0.1, attacker="aware")
    assert folder.examine().findings == ()  # 60 against 62


def test_defenses_are_not_compared_with_each_other(folder):
    folder.add("pgd", range(5), eps=0.1, defense="none").add("square", range(80), norm="linf", eps=0.1)
    assert folder.examine().findings == ()


def test_one_sentence_for_each_model_and_sign(folder):
    for library, count in (("art", 60), ("foolbox", 75), ("torchattacks", 40)):
        folder.add("pgd", range(10), eps=0.1, attacker="unaware", library=library)
        folder.add("pgd", range(count), eps=0.1, attacker="aware", library=library)
    found = folder.examine()
    assert len(found.findings) == 3
    (line,) = masking.sentences(found.findings)
    assert "pgd (foolbox) leaves 90 %" in line
    assert line.endswith("2 other comparisons of this kind say so too.")


def test_nothing_to_compare(folder):
    found = folder.add("cw", range(80)).examine()
    assert (found.findings, found.compared) == ((), 0)


def test_the_route_is_not_what_tells_attackers_apart(folder):
    """Who does not know of the defense attacks the undefended model natively."""
    folder.add("pgd", range(10), eps=0.1, attacker="unaware").add("pgd", range(70), eps=0.1, attacker="aware")
    folder.rows[-1]["route"] = "bridged"
    assert [item.sign for item in folder.examine().findings] == ["unaware"]


SUITE = {
    "name": "masks",
    "data": {"name": "digits", "samples": 50},
    "models": [{"name": "cnn", "architecture": "cnn", "framework": "torch", "train": {"epochs": 8, "seed": 0}}],
    "defenses": [[], "distillation"],
    "libraries": ["foolbox"],
    "variants": [{"name": "plain"}, {"name": "logits / 100", "temperature": 100, "attacks": ["pgd"]}],
    "attacks": [
        {"attack": "pgd", "norm": "linf", "eps": 0.2, "steps": 10, "random_start": False},
        {"attack": "square", "norm": "linf", "eps": 0.2, "queries": 200, "libraries": ["art"]},
    ],
}


def test_real_distillation_masks_its_gradients_and_the_undefended_network_does_not(tmp_path):
    """Papernot 2016, broken as by Carlini, Wagner 2016: saturated logits, whose gradients are zero until divided."""
    from sparring.suites.runner.run import run

    run(SUITE, out=tmp_path, device="cpu")
    found = masking.examine(Study.open(tmp_path))
    assert {item.defense for item in found.findings} == {"distillation"}
    assert {item.sign for item in found.findings} == {"black-box", "vanishing", "temperature"}
    black_box = next(item for item in found.findings if item.sign == "black-box")
    assert black_box.difference > 0.2
    divided = next(item for item in found.findings if item.sign == "temperature")
    assert divided.difference > 0.2
    assert divided.strong == "pgd (foolbox, logits / 100)"
    assert "cnn with distillation on digits" in black_box.sentence
