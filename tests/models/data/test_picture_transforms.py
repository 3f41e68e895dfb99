from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.adapters.errors import InputError
from sparring.models import weights_enums
from sparring.models.data import datasets, picture_transforms, pictures
from sparring.models.model_spec import ModelSpec, model_spec
from sparring.models.spec import DataSpec

HERE = Path(".")
ENUMS = ["AlexNet_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2", "EfficientNet_B0_Weights.IMAGENET1K_V1"]


def model(name: str, weights: str | None, **more) -> ModelSpec:
    return model_spec(name=name, architecture="resnet50", weights=weights, **more)


@pytest.mark.parametrize("enum", [*ENUMS, "Inception_V3_Weights.IMAGENET1K_V1"])
def test_pictures_are_those_of_torchvisions_own_preset(real_data, enum):
    """Before it normalises: bit for bit, on real pictures of several shapes, whose margins are odd in every second."""
    import torchvision
    from torchvision.transforms._presets import ImageClassification

    own = torchvision.models.get_weight(enum).transforms()
    bare = ImageClassification(
        crop_size=own.crop_size[0],
        resize_size=own.resize_size[0],
        interpolation=own.interpolation,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    data = datasets.load(DataSpec(name="imagenet-samples", samples=8, transforms=enum), base=HERE)
    assert data.facts["resize"] == own.resize_size[0]
    folders = sorted(p for p in (real_data / "imagenet-samples").iterdir() if p.is_dir())
    for x, y in zip(data.x, data.y, strict=True):
        (file,) = folders[y].iterdir()
        np.testing.assert_array_equal(x, bare(Image.open(file).convert("RGB")).numpy())


@pytest.mark.parametrize("sides", [(61, 40), (40, 61), (41, 41), (63, 42)])
def test_where_margins_are_odd_only_transforms_round_as_torchvision_does(tmp_path, sides):
    from torchvision.transforms import CenterCrop, Resize

    pixels = np.random.default_rng(1).integers(0, 256, (sides[1], sides[0], 3), dtype=np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.png")
    spec = DataSpec(path=str(tmp_path), resize=41, crop=30, interpolation="bilinear")
    named = datasets.load(spec.model_copy(update={"transforms": ENUMS[0]}), base=HERE).x[0]
    theirs = np.asarray(CenterCrop(30)(Resize(41)(Image.fromarray(pixels)))).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(named, theirs)


def test_all_that_torchvision_publishes_has_transforms():
    every = [weights_enums.transforms(enum) for enum in weights_enums._every()]
    assert len(every) > 100
    assert {own.interpolation for own in every} == {"bilinear", "bicubic"}
    assert all(own.resize >= own.crop for own in every)


def test_what_the_suite_says_goes_before():
    found = picture_transforms.resolved(DataSpec(name="x", transforms=ENUMS[2], crop=64))
    assert (found.resize, found.crop, found.interpolation) == (256, 64, "bicubic")
    assert picture_transforms.resolved(found) == found
    with pytest.raises(InputError, match=r"data\.transforms: unknown weights enum 'ResNet50_Weights\.V1'"):
        picture_transforms.resolved(DataSpec(name="x", transforms="ResNet50_Weights.V1"))
    with pytest.raises(InputError, match=r"data\.transforms: 'ResNet50_Weights\.DEFAULT' means other weights"):
        picture_transforms.resolved(DataSpec(name="x", transforms="ResNet50_Weights.DEFAULT"))


def test_pictures_are_made_as_the_models_want_them_where_the_suite_leaves_it_open():
    open_, alike = (
        DataSpec(name="x"),
        [model("a", ENUMS[0]), model("b", None), model("c", "ResNet18_Weights.IMAGENET1K_V1")],
    )
    found = picture_transforms.for_models(open_, alike)
    assert (found.resize, found.crop, found.interpolation, found.transforms) == (256, 224, "bilinear", ENUMS[0])
    assert picture_transforms.for_models(open_, alike[1:2]) == open_
    differing = [*alike, model("d", ENUMS[1])]
    told = r"a \(.*V1\) and c \(.*\): resize 256, crop 224, bilinear; d \(.*V2\): resize 232, crop 224, bilinear\): say `transforms: ENUM`"
    with pytest.raises(InputError, match=told):
        picture_transforms.for_models(open_, differing)
    for said in ({"crop": 100}, {"resize": 50}, {"size": 32}):
        spec = DataSpec(name="x", **said)
        assert picture_transforms.for_models(spec, differing) == spec
    assert picture_transforms.for_models(DataSpec(name="x", transforms=ENUMS[1]), differing).resize == 232


def test_pictures_that_are_not_made_as_a_model_wants_them():
    own = {"resize": 256, "crop": 224, "interpolation": "bilinear", "mean": [0.5]}
    same = pictures.picture_facts(picture_transforms.resolved(DataSpec(name="x", transforms=ENUMS[0])))
    assert picture_transforms.differences(same, own) == {}
    other = pictures.picture_facts(DataSpec(name="x", resize=232, crop=224))
    assert picture_transforms.differences(other, own) == {"resize": {"here": 232, "weights": 256}}
    assert picture_transforms.differences({}, own) == {}


def test_which_data_are_pictures(real_data, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for spec, expected in (
        (DataSpec(name="imagenet-samples"), True),
        (DataSpec(name="Imagenet Samples"), True),
        (DataSpec(path="a"), True),
        (DataSpec(name="mnist"), False),
        (DataSpec(name="digits"), False),
        (DataSpec(name="kmnist"), False),
    ):
        assert datasets.of_pictures(spec, tmp_path) is expected


def test_arrays_take_no_transforms():
    with pytest.raises(InputError, match=r"data\.(resize|transforms) is for folders of pictures"):
        datasets.load(DataSpec(name="digits", transforms=ENUMS[0]), base=HERE)
