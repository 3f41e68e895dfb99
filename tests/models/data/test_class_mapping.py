from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sparring.adapters.errors import InputError
from sparring.models.data import class_mapping, datasets
from sparring.models.spec import DataSpec

HERE = Path(".")
KAGGLE = [
    "apple",
    "banana",
    "beetroot",
    "bell pepper",
    "cabbage",
    "capsicum",
    "carrot",
    "cauliflower",
    "chilli pepper",
    "corn",
    "cucumber",
    "eggplant",
    "garlic",
    "ginger",
    "grapes",
    "jalepeno",
    "kiwi",
    "lemon",
    "lettuce",
    "mango",
    "onion",
    "orange",
    "paprika",
    "pear",
    "peas",
    "pineapple",
    "pomegranate",
    "potato",
    "raddish",
    "soy beans",
    "spinach",
    "sweetcorn",
    "sweetpotato",
    "tomato",
    "turnip",
    "watermelon",
]


def pictures(root: Path, folders, count=1, part="test") -> DataSpec:
    rng = np.random.default_rng(0)
    for name in folders:
        (root / part / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / part / name / f"{i}.png")
    return DataSpec(path=str(root), crop=20)


def mapped(root: Path, spec: DataSpec, content: object, **more) -> datasets.Dataset:
    (root / "mine.yaml").write_text(yaml.safe_dump(content))
    return datasets.load(spec.model_copy(update={"mapping": "mine.yaml", **more}), base=root)


def test_imagenets_classes_are_those_of_torchvision_and_of_the_pictures(real_data):
    import torchvision

    known = class_mapping.imagenet()
    assert [name for _, name in known] == torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    folders = sorted(p.name for p in (real_data / "imagenet-samples").iterdir() if p.is_dir())
    assert [wnid for wnid, _ in known] == folders


def test_all_of_imagenets_folders_have_its_names(tmp_path):
    wnids = [wnid for wnid, _ in class_mapping.imagenet()]
    spec = pictures(tmp_path / "all", wnids, part="val")
    found = datasets.load(spec.model_copy(update={"include": ("toaster", "electric ray"), "samples": 2}), base=HERE)
    assert found.class_names[859] == "toaster"
    assert found.y.tolist() == [859, 5]
    fewer = datasets.peek(pictures(tmp_path / "some", wnids[:3]), base=HERE)
    assert fewer.class_names == tuple(wnids[:3])


def test_the_fruits_and_vegetables_of_the_study(tmp_path):
    spec = pictures(tmp_path, [name.title() for name in KAGGLE] + ["durian"])
    data = datasets.load(spec.model_copy(update={"mapping": "fruits-vegetables"}), base=HERE)
    assert len(data.class_names) == 1000
    told = {folder.lower(): label for folder, label in data.facts["classes"].items()}
    assert told == {
        "apple": "948 Granny Smith",
        "banana": "954 banana",
        "bell pepper": "945 bell pepper",
        "cabbage": "936 head cabbage",
        "capsicum": "945 bell pepper",
        "cauliflower": "938 cauliflower",
        "corn": "987 corn",
        "cucumber": "943 cucumber",
        "lemon": "951 lemon",
        "orange": "950 orange",
        "pineapple": "953 pineapple",
        "pomegranate": "957 pomegranate",
        "sweetcorn": "987 corn",
    }
    assert Counter(data.y.tolist()) == Counter(int(label.split()[0]) for label in told.values())
    assert len(data.facts["left_out"]) == 36 - len(told) + 1
    assert data.facts["left_out"]["Kiwi"] == class_mapping.NO_CLASS
    assert data.facts["left_out"]["durian"] == class_mapping.NOT_NAMED
    mapping = class_mapping.read("fruits-vegetables", HERE)
    assert sorted(mapping.classes) == sorted(KAGGLE)
    assert {group: len(held) for group, held in mapping.groups.items()} == {"fruit": 10, "vegetable": 26}


@pytest.mark.parametrize("folder", ["Bell Pepper", "bell_pepper", "BELLPEPPER", "jalapeño", "Soy Bean", "radish"])
def test_folders_are_compared_without_case_accents_and_spaces(folder):
    mapping = class_mapping.read("fruits-vegetables", HERE)
    said = class_mapping.mapped(mapping, [folder, "corn"], "it")
    assert {**said.labels, **said.left_out}[folder] in (945, class_mapping.NO_CLASS)


def test_so_many_of_every_group_at_random(tmp_path):
    spec = pictures(tmp_path, ["apple", "banana", "corn", "lemon", "garlic"], 4)
    spec = spec.model_copy(update={"mapping": "fruits-vegetables"})

    def draw(**more):
        return datasets.load(spec.model_copy(update=more), base=HERE)

    fruits = {948, 954}
    data = draw(per_group=5, fit=4)
    assert [y in fruits for y in data.y.tolist()] == [True, False] * 5  # so a small sample lies in a large one
    np.testing.assert_array_equal(draw(per_group=2).x, data.x[:4])
    assert len({x.tobytes() for x in (*data.x, *data.fit_x)}) == 14
    assert draw(per_group=5, seed=1).digest != data.digest == draw(per_group=5).digest
    assert data.facts["groups"] == {"fruit": ["apple", "banana"], "vegetable": ["corn", "lemon"]}
    with pytest.raises(InputError, match="the group 'fruit': 9 images asked for, but there are 8"):
        draw(per_group=9)


def test_imagenets_own_fruits_and_vegetables(real_data):
    mapping = class_mapping.read("imagenet-produce", HERE)
    index = {wnid: i for i, (wnid, _) in enumerate(class_mapping.imagenet())}
    names = [name for _, name in class_mapping.imagenet()]
    assert {wnid: names[index[wnid]] for wnid in mapping.classes} == mapping.classes
    data = datasets.load(DataSpec(name="imagenet-samples", mapping="imagenet-produce", per_group=10), base=HERE)
    assert len(data.y) == 20
    assert all(data.class_names[y] in mapping.classes.values() for y in data.y)
    assert len(data.facts["left_out"]) == 1000 - len(mapping.classes)


def test_a_mapping_of_ones_own(tmp_path):
    spec = pictures(tmp_path, ["1", "fish", "Katze"], 2)
    content = {"classes": {1: "n01440764", "fish": "Goldfish", "katze": 281}, "groups": {"all": [1, "katze"]}}
    data = mapped(tmp_path, spec, content)
    assert data.y.tolist() == [0, 0, 281, 281, 1, 1]
    assert mapped(tmp_path, spec, content, per_group=1).y.tolist()[0] in (0, 281)
    assert mapped(tmp_path, spec, content, samples=3, include=("tabby",)).y[0] == 281
    del content["groups"]
    with pytest.raises(InputError, match="its mapping has no groups"):
        mapped(tmp_path, spec, content, per_group=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"classes": {"fish": "golden fish"}},
            r"classes\.fish: unknown class of ImageNet 'golden fish'\. Did you mean 'goldfish'",
        ),
        ({"classes": {"fish": 1000}}, "1000 is no index of a class of ImageNet: they go from 0 to 999"),
        ({"classes": {"fish": None}}, r"has a class of ImageNet for none of the folders \(cat, fish\)"),
        (
            {"classes": {"fish": 1}, "groups": {"wet": ["fisch"]}},
            "groups.wet: unknown folder 'fisch'. Did you mean 'fish'",
        ),
        ({"classes": {"fish": 1}, "also": {"fisch": "fsh"}}, "also.fisch: unknown folder 'fsh'"),
        ({"classes": {"fish": [1]}}, "classes.fish: "),
        ({"clases": {"fish": 1}}, "classes: Field required"),
        (["fish"], "classes: Input should be a valid dict"),
    ],
)
def test_what_is_wrong_with_a_mapping(tmp_path, content, message):
    spec = pictures(tmp_path, ["cat", "fish"])
    with pytest.raises(InputError, match=message) as error:
        mapped(tmp_path, spec, content)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mapping_that_is_not_there(tmp_path):
    spec = pictures(tmp_path, ["cat"])
    with pytest.raises(InputError, match=r"unknown mapping 'fruit-vegetables'\. Did you mean 'fruits-vegetables'"):
        datasets.load(spec.model_copy(update={"mapping": "fruit-vegetables"}), base=HERE)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"bad\.yaml can't be read"):
        datasets.load(spec.model_copy(update={"mapping": "bad.yaml"}), base=tmp_path)
    with pytest.raises(InputError, match=r"data\.mapping is for folders of pictures"):
        datasets.load(DataSpec(name="digits", mapping="fruits-vegetables"), base=HERE)


def test_the_mapping_of_the_documentation(tmp_path):
    text = (Path(__file__).parents[3] / "docs" / "suites.md").read_text("utf-8")
    (shown,) = re.findall(r"```yaml\n(classes: .*?)```", text, re.DOTALL)
    spec = pictures(tmp_path, ["lemons", "Oranges", "figs", "quinces"])
    data = mapped(tmp_path, spec, yaml.safe_load(shown), per_group=1)
    assert sorted(data.facts["classes"].values()) == ["950 orange", "951 lemon", "952 fig"]
    assert data.facts["left_out"] == {"quinces": class_mapping.NO_CLASS}
    assert [int(y) in (950, 951) for y in data.y] == [True, False]
