"""`size`, `channels` and `test_share` on every kind of source, against Pillow, torch and counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sparring.adapters.errors import InputError
from sparring.models.data import datasets, reshaping
from sparring.models.data.torchvision_sets import from_torchvision_data
from sparring.models.spec import DataSpec

HERE = Path(".")
rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (10, 7, 5), np.uint8)
COLOUR = rng.integers(0, 256, (6, 7, 5, 3), np.uint8)


def npz(path, **content):
    np.savez(path, **content)
    return str(path)


def images(channels, n=3):
    return arrays(np.float32, (n, channels, 5, 7), elements=st.floats(0, 1, width=32))


@given(images(3), st.integers(1, 20))
def test_a_resized_image_stays_in_the_box_and_a_flat_one_flat(x, size):
    found = reshaping.resized(x, size)
    assert found.shape == (3, 3, size, size)
    assert found.dtype == np.float32
    assert x.min() - 1e-6 <= found.min() <= found.max() <= x.max() + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    flat = np.full((1, 1, 5, 7), x.flat[0], np.float32)
    np.testing.assert_allclose(reshaping.resized(flat, size), x.flat[0], atol=1e-6)


@pytest.mark.parametrize("size", [3, 9, 32])
def test_resizing_is_torchs_bilinear_interpolation_with_antialiasing(size):
    import torch
    from torch.nn.functional import interpolate

    x = rng.random((2, 3, 8, 11), np.float32)
    expected = interpolate(torch.from_numpy(x), (size, size), mode="bilinear", antialias=True, align_corners=False)
    np.testing.assert_allclose(reshaping.resized(x, size), expected.numpy(), atol=2e-6)


@given(images(3), images(1))
def test_grey_is_the_luma_and_colour_three_times_the_grey(colour, grey):
    np.testing.assert_array_equal(reshaping.with_channels(grey, 3), np.concatenate([grey] * 3, 1))
    np.testing.assert_allclose(reshaping.with_channels(reshaping.with_channels(grey, 3), 1), grey, atol=1e-6)
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    found = reshaping.with_channels(colour, 1)
    np.testing.assert_allclose(found[:, 0], luma, atol=1e-6)
    assert 0 <= found.min() <= found.max() <= 1
    assert found.dtype == np.float32


def test_grey_is_that_of_pillow():
    x = COLOUR.transpose(0, 3, 1, 2) / np.float32(255)
    pillows = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in COLOUR])
    assert abs(reshaping.with_channels(x, 1)[:, 0] * 255 - pillows).max() <= 1  # Pillow rounds down


def test_channels_that_cannot_be_made(tmp_path):
    path = npz(tmp_path / "four.npz", x=rng.integers(0, 256, (6, 7, 5, 4), np.uint8), y=np.arange(6) % 2)
    with pytest.raises(InputError, match=r"data\.channels: the images have 4 channels"):
        datasets.load(DataSpec(path=path, channels=3), base=HERE)


def test_an_npz_is_reshaped_and_its_digest_tells(tmp_path):
    path = npz(tmp_path / "my.npz", x=GREY, y=np.arange(10) % 3)
    plain, same = (datasets.load(DataSpec(path=path, **more), base=HERE) for more in ({}, {"channels": 1}))
    big = datasets.load(DataSpec(path=path, size=9, channels=3), base=HERE)
    assert plain.digest == same.digest != big.digest
    assert big.x.shape == (10, 3, 9, 9)
    np.testing.assert_array_equal(big.x, np.repeat(reshaping.resized(plain.x, 9), 3, 1))
    np.testing.assert_array_equal(big.y, plain.y)
    assert datasets.peek(DataSpec(path=path, size=9, channels=3), base=HERE).x.shape == (4, 3, 9, 9)


def test_whole_pictures_of_a_folder_are_resized(tmp_path):
    pixels = {}
    for name, (height, width) in {"cat/a.png": (7, 5), "dog/b.png": (40, 60)}.items():
        (tmp_path / name).parent.mkdir()
        pixels[name] = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels[name]).save(tmp_path / name)
    data = datasets.load(DataSpec(path=str(tmp_path), size=8), base=HERE)
    assert data.x.shape == (2, 3, 8, 8)
    exact = [reshaping.resized(p.transpose(2, 0, 1)[None] / np.float32(255), 8) for p in pixels.values()]
    np.testing.assert_allclose(data.x, np.concatenate(exact), atol=1 / 255)  # a picture's pixels are whole numbers
    cropped = datasets.load(DataSpec(path=str(tmp_path), crop=5, size=8, channels=1), base=HERE)
    centre = pixels["cat/a.png"][1:6].transpose(2, 0, 1)[None] / np.float32(255)
    np.testing.assert_allclose(cropped.x[:1], reshaping.resized(reshaping.with_channels(centre, 1), 8), atol=1e-6)


def test_the_embedded_and_torchvisions():
    from torchvision.datasets import FakeData

    assert datasets.load(DataSpec(name="digits", size=32, channels=3, samples=3), base=HERE).x.shape == (3, 3, 32, 32)
    data = FakeData(size=10, image_size=(3, 20, 24), num_classes=4)
    spec = DataSpec(name="fake", size=12, channels=1)
    pool = reshaping.reshaped(from_torchvision_data(data, False, spec, "test", "fake"), spec)
    assert pool.fetch(np.array([1, 4]), None).shape == (2, 1, 12, 12)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "gtsrb"])
def test_the_studies_data_are_all_of_one_shape(name):
    if datasets.data_folder() is None:
        pytest.skip("SPARRING_DATA is not set")
    spec = DataSpec(name=name, size=32, channels=3, samples=5, test_share=0.2)
    total = sum(datasets.size(DataSpec(name=name, split=part), base=HERE) for part in ("train", "test"))
    data, train = datasets.load(spec, base=HERE), datasets.load_train(spec, base=HERE, samples=7)
    assert (data.x.shape, train.x.shape) == ((5, 3, 32, 32), (7, 3, 32, 32))
    assert data.class_names == train.class_names
    assert datasets.size(spec, base=HERE) == round(total / 5)


# --- split anew -----------------------------------------------------------------------------------------------------


def test_all_images_are_in_one_part_or_the_other(tmp_path):
    x, y = np.arange(50, dtype=np.uint8).reshape(50, 1, 1).repeat(4, 1).repeat(4, 2), np.arange(50) % 5
    path = npz(tmp_path / "my.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    spec = DataSpec(path=path, test_share=0.2)
    test, train = datasets.load(spec, base=HERE), datasets.load_train(spec, base=HERE)
    held = [np.rint(data.x[:, 0, 0, 0] * 255).astype(int) for data in (test, train)]
    assert [len(one) for one in held] == [10, 40]
    assert sorted(np.concatenate(held)) == list(range(50))
    for values, data in zip(held, (test, train), strict=True):
        np.testing.assert_array_equal(data.y, values % 5)
        np.testing.assert_array_equal(
            data.x, np.broadcast_to(values.astype(np.float32)[:, None, None, None] / np.float32(255), data.x.shape)
        )
    assert 0 < (held[0] < 30).sum() < 10  # both parts' images are among them
    assert test.digest == datasets.load(spec, base=HERE).digest
    assert test.digest != datasets.load(spec.model_copy(update={"test_share": 0.3}), base=HERE).digest
    drawn = datasets.load(spec.model_copy(update={"samples": 4, "seed": 3}), base=HERE)
    assert set(np.rint(drawn.x[:, 0, 0, 0] * 255).astype(int)) <= set(held[0])
    whole = datasets.load(spec.model_copy(update={"split": "train"}), base=HERE)
    assert whole.digest == train.digest


def test_data_of_one_part_get_a_training_part(tmp_path):
    spec = DataSpec(path=npz(tmp_path / "my.npz", x=GREY, y=np.arange(10) % 3), test_share=0.3)
    assert len(datasets.load(spec, base=HERE).y) == 3
    assert len(datasets.load_train(spec, base=HERE).y) == 7
    for name in ("cat", "dog"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(COLOUR[0]).save(tmp_path / "zoo" / name / f"{i}.png")
    spec = DataSpec(path=str(tmp_path / "zoo"), size=4, test_share=0.5)
    assert len(datasets.load(spec, base=HERE).y) == len(datasets.load_train(spec, base=HERE).y) == 5


def test_a_damaged_file_is_still_named(tmp_path):
    path = tmp_path / "my.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"my\.npz can't be read"):
        datasets.load(DataSpec(path=str(path), test_share=0.5), base=HERE)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_a_part_empty(tmp_path, share):
    path = npz(tmp_path / "my.npz", x=GREY, y=np.arange(10) % 3)
    with pytest.raises(InputError, match=f"data.test_share: {share:g} of 10 images leaves a part without any"):
        datasets.load(DataSpec(path=path, test_share=share), base=HERE)


def test_parts_of_different_sizes_need_a_size(tmp_path):
    y = np.arange(10) % 3
    path = npz(tmp_path / "my.npz", x_train=GREY, y_train=y, x_test=GREY[:, :5], y_test=y)
    with pytest.raises(InputError, match=r"data.test_share: the parts hold images of .*: set data\.size"):
        datasets.load(DataSpec(path=path, test_share=0.5), base=HERE)
    assert datasets.load(DataSpec(path=path, test_share=0.5, size=6), base=HERE).x.shape == (10, 1, 6, 6)
