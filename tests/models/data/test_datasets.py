from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparring.adapters import arrays as big
from sparring.adapters.errors import InputError
from sparring.models.data import datasets, torchvision_sets
from sparring.models.data.pool import fixed_part
from sparring.models.recipes import array_digest
from sparring.models.spec import DataSpec

HERE = Path(".")
rng = np.random.default_rng(5)


def arrays(n=12, shape=(6, 5, 3), classes=3, dtype="uint8"):
    x = rng.integers(0, 256, (n, *shape)).astype(dtype)
    return (x if dtype == "uint8" else x / np.array(255, dtype)), np.arange(n) % classes


def npz(path: Path, **content) -> DataSpec:
    np.savez(path, **content)
    return DataSpec(path=str(path))


def picture(path: Path, width=40, height=30, mode="RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


# --- names ----------------------------------------------------------------------------------------------------------


def test_digits_are_the_pictures_of_scikit_learn():
    from sklearn.datasets import load_digits

    test, train = (datasets.load(DataSpec(name="digits", split=split), base=HERE) for split in ("test", "train"))
    assert test.x.dtype == np.float32
    assert test.y.dtype == np.int64
    assert test.x.shape == (359, 1, 8, 8)
    assert train.x.shape == (1438, 1, 8, 8)
    both = np.concatenate([train.x, test.x]).reshape(1797, 64) * 16
    assert sorted(map(tuple, both)) == sorted(map(tuple, load_digits().data))
    share = np.bincount(test.y) / np.bincount(np.concatenate([train.y, test.y]))
    assert (abs(share - 0.2) < 0.01).all()


@pytest.mark.parametrize(
    ("name", "shape", "classes", "first"),
    [
        ("mnist", (10000, 1, 28, 28), 10, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),  # the canonical order
        ("CIFAR-10", (10000, 3, 32, 32), 10, None),
        ("gtsrb", (1236, 3, 32, 32), 43, None),
    ],
)
def test_real_arrays_are_found_by_name(real_data, name, shape, classes, first):
    data = datasets.load(DataSpec(name=name), base=HERE)
    assert data.x.shape == shape
    assert len(data.class_names) == classes
    assert set(data.y) == set(range(classes))
    key = name.lower().replace("-", "")
    raw = np.load(real_data / key / f"{key}.npz")["x_test"]
    expected = raw if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.rint(data.x.reshape(expected.shape) * 255), expected)
    if first:
        assert data.y[:10].tolist() == first


def test_imagenet_samples_are_the_pictures_of_their_class(real_data):
    data = datasets.load(DataSpec(name="imagenet-samples", samples=7), base=HERE)
    assert data.x.shape == (7, 3, 224, 224)
    assert data.class_names[:2] == ("tench", "goldfish")
    folders = sorted(p for p in (real_data / "imagenet-samples").iterdir() if p.is_dir())
    for x, y in zip(data.x, data.y, strict=True):
        (file,) = folders[y].iterdir()
        whole = np.asarray(Image.open(file).convert("RGB"))
        top, left = (whole.shape[0] - 224) // 2, (whole.shape[1] - 224) // 2
        np.testing.assert_array_equal(np.rint(x.transpose(1, 2, 0) * 255), whole[top : top + 224, left : left + 224])


def test_the_same_file_by_name_and_by_path_is_the_same_data(real_data):
    by_name = datasets.load(DataSpec(name="gtsrb", samples=50, seed=3), base=HERE)
    by_path = datasets.load(DataSpec(path="gtsrb/gtsrb.npz", samples=50, seed=3), base=real_data)
    assert by_name.digest == by_path.digest
    assert by_name.class_names == by_path.class_names


def test_an_unknown_name_answers_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown data set 'mnits'.*Did you mean.*'mnist'"):
        datasets.load(DataSpec(name="mnits"), base=HERE)


def test_absent_data_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError) as error:
        datasets.load(DataSpec(name="imagenet-samples"), base=HERE)
    assert str(tmp_path / "data" / "imagenet-samples") in str(error.value)
    monkeypatch.delenv("SPARRING_DATA")
    with pytest.raises(InputError, match=r"SPARRING_DATA \(not set\)"):
        datasets.load(DataSpec(name="kmnist"), base=HERE, download=False)


def test_a_data_set_in_torchvisions_own_files_is_read_from_the_cache(cache):
    """KMNIST in the format in which it is published, written by hand: torchvision reads it, without a download."""
    raw = cache / "data" / "kmnist" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    content = {}
    for part, n in (("train", 20), ("t10k", 6)):
        content[part] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), content[part], strict=True):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    test = datasets.load(DataSpec(name="K-MNIST"), base=HERE, download=False)
    np.testing.assert_array_equal(np.rint(test.x[:, 0] * 255), content["t10k"][0])
    assert test.y.tolist() == content["t10k"][1].tolist()
    assert len(datasets.load_train(DataSpec(name="kmnist"), base=HERE).x) == 20


def test_a_failed_download_says_why(fresh):
    code = (
        "import socket; from pathlib import Path; from sparring.models.data import datasets; from sparring.models.spec import DataSpec\n"
        "try: datasets.load(DataSpec(name='usps'), base=Path('.'))\n"
        "except ValueError as error: print(' '.join(str(error).split()), socket.getdefaulttimeout())"
    )
    nowhere = "http://127.0.0.1:9"  # a proxy that isn't there: the connection is refused at once
    said = fresh(code, https_proxy=nowhere, http_proxy=nowhere, no_proxy="")
    assert "the data set 'usps' is not here" in said
    assert "refused" in said
    assert said.endswith("None")  # the timeout of the user's own sockets is as before


NOT_LABELLED_IMAGES = {
    "CarlaStereo", "CelebA", "Cityscapes", "CocoCaptions", "CocoDetection", "CREStereo", "DatasetFolder", "ETH3DStereo",
    "FakeData", "FallingThingsStereo", "Flickr30k", "Flickr8k", "FlyingChairs", "FlyingThings3D", "HD1K", "HMDB51",
    "ImageFolder", "InStereo2k", "Kinetics", "Kitti", "Kitti2012Stereo", "Kitti2015Stereo", "KittiFlow", "LFWPairs", "LSUN",
    "LSUNClass", "Middlebury2014Stereo", "MovingMNIST", "PhotoTour", "SBDataset", "SBU", "SceneFlowStereo", "Sintel",
    "SintelStereo", "UCF101", "VisionDataset", "VOCDetection", "VOCSegmentation", "WIDERFace", "wrap_dataset_for_transforms_v2",
}  # fmt: skip


def test_the_table_holds_every_labelled_data_set_of_torchvision():
    import torchvision.datasets

    known = {class_name for class_name, _ in torchvision_sets.TORCHVISION.values()}
    assert known | NOT_LABELLED_IMAGES >= set(torchvision.datasets.__all__)
    for class_name, parts in torchvision_sets.TORCHVISION.values():
        if hasattr(torchvision.datasets, class_name):
            taken = torchvision_sets._parameters(getattr(torchvision.datasets, class_name))
            assert all(set(part) <= taken for part in parts or ()), class_name


@pytest.mark.parametrize("parts_here", [True, False])
def test_pictures_of_torchvision_without_a_list_of_labels(parts_here):
    from torchvision.datasets import FakeData

    data = FakeData(size=10, image_size=(3, 20, 24), num_classes=4)
    spec = DataSpec(name="fake", crop=20)
    pool = torchvision_sets.from_torchvision_data(data, parts_here, spec, "test", "fake")
    assert len(pool.labels) == (2 if parts_here else 10)
    x = pool.fetch(np.array([1]), None)
    index = fixed_part(np.array([data[i][1] for i in range(10)]), "test")[1] if parts_here else 1
    expected = np.asarray(data[index][0])[:, 2:22].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(x[0], expected)


# --- sampling -------------------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_by_its_seed():
    def draw(**sample):
        return datasets.load(DataSpec(name="digits", **sample), base=HERE)

    everything, one, again, other = draw(), draw(samples=40), draw(samples=40), draw(samples=40, seed=1)
    assert one.digest == again.digest != other.digest
    np.testing.assert_array_equal(draw(samples=10).x, one.x[:10])
    pairs = {(x.tobytes(), y) for x, y in zip(everything.x, everything.y, strict=True)}
    assert all((x.tobytes(), y) in pairs for x, y in zip(one.x, one.y, strict=True))


def test_the_digest_is_of_the_arrays():
    data = datasets.load(DataSpec(name="digits", samples=5), base=HERE)
    content = b"<f4(5, 1, 8, 8)" + data.x.tobytes() + b"<i8(5,)" + data.y.tobytes()
    assert data.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("samples", [10, 33, 100, 359])
def test_a_stratified_sample_has_the_share_of_every_class(samples):
    labels = datasets.load(DataSpec(name="digits"), base=HERE).y
    drawn = datasets.load(DataSpec(name="digits", samples=samples, stratified=True), base=HERE).y
    exact = np.bincount(labels) * samples / len(labels)
    assert len(drawn) == samples
    assert (abs(np.bincount(drawn, minlength=10) - exact) < 1).all()


def test_more_samples_than_there_are():
    with pytest.raises(InputError, match="5000 images asked for, but there are 359"):
        datasets.load(DataSpec(name="digits", samples=5000), base=HERE)


@pytest.mark.parametrize("stratified", [False, True])
def test_images_to_fit_on_are_further_ones_of_the_same_permutation(stratified):
    def draw(samples, **more):
        return datasets.load(DataSpec(name="digits", samples=samples, stratified=stratified, **more), base=HERE)

    plain, data = draw(40), draw(40, fit=30)
    assert (data.digest, plain.fit_x, plain.fit_digest) == (plain.digest, None, "")
    assert (data.fit_x.shape, data.fit_y.shape) == ((30, 1, 8, 8), (30,))
    assert data.fit_digest == array_digest(data.fit_x, data.fit_y)
    if not stratified:
        np.testing.assert_array_equal(draw(70).x[40:], data.fit_x)
    everything = datasets.load(DataSpec(name="digits"), base=HERE)
    places = {(x.tobytes(), y): i for i, (x, y) in enumerate(zip(everything.x, everything.y, strict=True))}
    chosen = [places[x.tobytes(), y] for x, y in zip(data.x, data.y, strict=True)]
    fitted = [places[x.tobytes(), y] for x, y in zip(data.fit_x, data.fit_y, strict=True)]
    assert len({*chosen, *fitted}) == 70
    with pytest.raises(
        InputError, match=r"data\.fit of digits: 320 images asked for, but beside the sample there are 319"
    ):
        draw(40, fit=320)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True), st.integers(0, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_classes_to_include_come_first(classes, more, stratified):
    spec = DataSpec(
        name="digits",
        samples=len(classes) + more,
        fit=9,
        include=tuple(map(str, classes)),
        stratified=stratified,
        seed=more,
    )
    data, everything = datasets.load(spec, base=HERE), datasets.load(DataSpec(name="digits"), base=HERE)
    assert data.y[: len(classes)].tolist() == classes
    firsts = [everything.x[everything.y == c][0] for c in classes]
    np.testing.assert_array_equal(data.x[: len(classes)], firsts)
    drawn = [x.tobytes() for x in (*data.x, *data.fit_x)]
    assert len(drawn) == len(set(drawn)) == len(classes) + more + 9
    assert datasets.peek(spec, base=HERE, count=1).y.tolist() == classes[:1]


def test_what_can_not_be_included():
    with pytest.raises(InputError, match=r"data\.include: unknown class of digits 'ten'"):
        datasets.load(DataSpec(name="digits", samples=4, include=("ten",)), base=HERE)
    with pytest.raises(InputError, match="1 images, but `include` names 2"):
        datasets.load(DataSpec(name="digits", samples=1, include=("1", "2")), base=HERE)


# --- .npz -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["last", "first", "none"])
def test_arrays_become_channels_first_in_the_box(tmp_path, dtype, layout):
    x, y = arrays(dtype=dtype)
    given = {"last": x, "first": x.transpose(0, 3, 1, 2), "none": x[..., 0]}[layout]
    data = datasets.load(npz(tmp_path / "my.npz", x=given, y=y[:, None]), base=HERE)
    expected = (x[..., :1] if layout == "none" else x).transpose(0, 3, 1, 2)
    scaled = expected / np.float32(255) if dtype == "uint8" else expected.astype(np.float32)
    np.testing.assert_array_equal(data.x, scaled)
    assert data.x.dtype == np.float32
    assert data.y.tolist() == y.tolist()
    assert data.class_names == ("0", "1", "2")


def test_parts_and_their_common_classes(tmp_path):
    (x, y), (x2, y2) = arrays(12, classes=4), arrays(4, classes=2)
    spec = npz(tmp_path / "my.npz", x_train=x, y_train=y, x_test=x2, y_test=y2)
    test, train = datasets.load(spec, base=HERE), datasets.load_train(spec, base=HERE, samples=5, seed=1)
    assert (len(test.x), len(train.x)) == (4, 5)
    assert test.class_names == train.class_names == ("0", "1", "2", "3")
    (tmp_path / "class_names.txt").write_text("a\nb\nc\nd\n")
    assert datasets.load(spec, base=HERE).class_names == ("a", "b", "c", "d")


X, Y = arrays()
FLOATS = X / 255


def changed(array, value, where=0):
    array = np.array(array)
    array.flat[where] = value
    return array


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": X}, "no array 'y'.*holds x;"),
        ({"images": X, "labels": Y}, "no array 'x'.*images, labels"),
        ({"x_train": X, "y_train": Y}, "no array 'x'"),
        ({"x_test": X, "y_train": Y}, "no array 'y_test'"),
        ({"x": changed(FLOATS, np.nan), "y": Y}, "1 values that are NaN"),
        ({"x": changed(FLOATS, np.inf), "y": Y}, "1 values that are NaN or infinite"),
        ({"x": FLOATS * 2, "y": Y}, r"lie in \[0.*wanted floats in \[0, 1\]"),
        ({"x": FLOATS - 0.5, "y": Y}, r"lie in \[-0.5"),
        ({"x": X.astype(np.int64), "y": Y}, "dtype int64; wanted uint8"),
        ({"x": X, "y": changed(Y, -1)}, "labels out of range: they go from -1 to 2"),
        ({"x": X, "y": Y.astype(np.float32)}, "labels have dtype float32; wanted integers"),
        ({"x": X, "y": np.eye(3, dtype=int)[Y]}, "one-hot"),
        ({"x": X, "y": Y[:-1]}, "12 images but 11 labels"),
        ({"x": X[:0], "y": Y[:0]}, "empty"),
        ({"x": X[:, :, 0, 0], "y": Y}, r"shape \(12, 6\)"),
        ({"x": X[:, :3], "y": Y}, "channels could be first or last"),
        ({"x": np.zeros((12, 6, 5, 2)), "y": Y}, "neither axis"),
        ({"x": X.astype(object), "y": Y}, "pickled"),
    ],
)
def test_what_is_wrong_with_an_npz(tmp_path, content, message):
    spec = npz(tmp_path / "my.npz", **content)
    with pytest.raises(InputError, match=message) as error:
        datasets.load(spec, base=HERE)
    assert "my.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_beyond_the_named_classes(tmp_path):
    spec = npz(tmp_path / "my.npz", x=X, y=Y)
    (tmp_path / "class_names.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="labels out of range: they go from 0 to 2, and there are 2 classes"):
        datasets.load(spec, base=HERE)


def test_a_file_of_one_part_has_no_training_part(tmp_path):
    with pytest.raises(InputError, match="no training part"):
        datasets.load_train(npz(tmp_path / "my.npz", x=X, y=Y), base=HERE)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "npy", "flipped"])
def test_a_damaged_file(tmp_path, damage):
    path = tmp_path / "my.npz"
    np.savez(path, x=X, y=Y)
    whole = path.read_bytes()
    if damage == "npy":
        buffer = io.BytesIO()
        np.save(buffer, X)
        whole = buffer.getvalue()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255  # inside x: the checksum of the archive tells
    path.write_bytes(
        {"truncated": whole[:-200], "garbage": b"no archive", "empty": b"", "npy": whole, "flipped": bytes(flipped)}[
            damage
        ]
    )
    with pytest.raises(InputError, match=r"my\.npz"):
        datasets.load(DataSpec(path="my.npz"), base=tmp_path)


@pytest.mark.parametrize(("path", "message"), [("absent.npz", "no file or folder"), ("notes.txt", "neither an .npz")])
def test_a_path_that_is_no_data(tmp_path, path, message):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=message):
        datasets.load(DataSpec(path=path), base=tmp_path)


def test_a_crop_of_arrays_is_refused(tmp_path):
    spec = npz(tmp_path / "my.npz", x=X, y=Y)
    with pytest.raises(InputError, match=r"data\.crop is for folders"):
        datasets.load(spec.model_copy(update={"crop": 4}), base=HERE)


# --- folders --------------------------------------------------------------------------------------------------------


def test_pictures_are_resized_as_torchvision_does_it(tmp_path):
    from torchvision.transforms import CenterCrop, Compose, Resize

    # after the resize the margins are even, where the two ways to halve them agree
    picture(tmp_path / "cat" / "a.png", 67, 45)
    picture(tmp_path / "dog" / "b.png", 45, 60)
    data = datasets.load(DataSpec(path=str(tmp_path), resize=36, crop=24), base=HERE)
    transform = Compose([Resize(36), CenterCrop(24)])
    for x, file in zip(data.x, (tmp_path / "cat" / "a.png", tmp_path / "dog" / "b.png"), strict=True):
        cropped = np.asarray(transform(Image.open(file)))
        margin = np.asarray(Resize(36)(Image.open(file))).shape
        assert (margin[0] - 24) % 2 == 0
        if (margin[1] - 24) % 2 == 0:
            np.testing.assert_array_equal(np.rint(x.transpose(1, 2, 0) * 255), cropped)
    assert data.class_names == ("cat", "dog")
    assert data.y.tolist() == [0, 1]


def test_the_smaller_margin_is_left_and_above(tmp_path):
    pixels = picture(tmp_path / "cat" / "a.png", 35, 33)
    data = datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE)
    np.testing.assert_array_equal(np.rint(data.x[0].transpose(1, 2, 0) * 255), pixels[1:31, 2:32])


def test_grey_pictures_get_three_channels(tmp_path):
    picture(tmp_path / "cat" / "a.png", 30, 30, mode="L")
    data = datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE)
    assert data.x.shape == (1, 3, 30, 30)
    assert (data.x[:, 0] == data.x[:, 2]).all()


def test_parts_of_a_folder_share_one_numbering(tmp_path):
    for name in ("train/ant/1.png", "train/bee/1.png", "train/cow/1.png", "val/bee/1.png", "val/cow/1.png"):
        picture(tmp_path / name)
    spec = DataSpec(path=str(tmp_path), crop=30)
    test, train = datasets.load(spec, base=HERE), datasets.load_train(spec, base=HERE)
    assert test.class_names == train.class_names == ("ant", "bee", "cow")
    assert (test.y.tolist(), train.y.tolist()) == ([1, 2], [0, 1, 2])


def test_a_class_called_train_is_a_class(tmp_path):
    picture(tmp_path / "bus" / "1.png")
    picture(tmp_path / "train" / "1.png")
    assert datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE).class_names == ("bus", "train")


def test_only_the_sample_is_decoded(tmp_path):
    for i in range(20):
        picture(tmp_path / "cat" / f"{i:02}.png")
    spec = DataSpec(path=str(tmp_path), crop=30, samples=3)
    chosen = datasets.load(spec, base=HERE)
    drawn = set(np.random.default_rng(0).permutation(20)[:3])
    for i in set(range(20)) - drawn:
        (tmp_path / "cat" / f"{i:02}.png").write_bytes(b"not a picture")
    seen = []
    again = datasets.load(spec, base=HERE, progress=lambda done, total, what: seen.append((done, total)))
    assert again.digest == chosen.digest
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("content", [b"not a picture", None])
def test_a_broken_picture_is_named(tmp_path, content):
    picture(tmp_path / "cat" / "broken.png")
    whole = (tmp_path / "cat" / "broken.png").read_bytes()
    (tmp_path / "cat" / "broken.png").write_bytes(content or whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"broken\.png is not a readable picture"):
        datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE)


def test_a_picture_smaller_than_the_crop(tmp_path):
    picture(tmp_path / "cat" / "small.png", 40, 30)
    with pytest.raises(
        InputError, match=r"small\.png is 40 x 30 pixels, smaller than the crop of 224: set data\.crop to 30"
    ):
        datasets.load(DataSpec(path=str(tmp_path)), base=HERE)


def test_folders_that_are_no_data(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        datasets.load(DataSpec(path=str(tmp_path)), base=HERE)
    picture(tmp_path / "cat" / "a.png")
    with pytest.raises(InputError, match="no train part"):
        datasets.load_train(DataSpec(path=str(tmp_path)), base=HERE)
    (tmp_path / "class_names.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="names 2 classes, but there are 1 folders"):
        datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE)


# --- the catalogue and the doors --------------------------------------------------------------------------------------


def test_the_catalogue_tells_where_everything_is(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "mine.npz", x_test=X, y_test=Y)
    (tmp_path / "mine" / "class_names.txt").write_text("a\nb\nc")
    picture(tmp_path / "zoo" / "cat" / "a.png")
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path))
    infos = {info.name: info for info in datasets.catalogue()}
    assert infos["digits"] == datasets.DatasetInfo("digits", "embedded", (1, 8, 8), 10)
    assert infos["mine"] == datasets.DatasetInfo("mine", str(tmp_path / "mine" / "mine.npz"), (3, 6, 5), 3)
    assert infos["zoo"] == datasets.DatasetInfo("zoo", str(tmp_path / "zoo"), None, 1)
    assert infos["svhn"].where == "download"
    assert infos["imagenet-samples"].where == "missing"
    assert "weights" not in infos
    assert datasets.load(DataSpec(name="mine"), base=HERE).class_names == ("a", "b", "c")
    assert datasets.load(DataSpec(name="zoo", crop=30), base=HERE).x.shape == (1, 3, 30, 30)


def test_another_package_registers_a_data_set(tmp_path, monkeypatch):
    (tmp_path / "waves.py").write_text(
        "import numpy as np\n"
        "def load(split):\n"
        "    n = 6 if split == 'train' else 2\n"
        "    return np.full((n, 9, 9), 128, np.uint8), np.arange(n) % 2, ['calm', 'rough']\n"
    )
    (tmp_path / "waves-1.0.dist-info").mkdir()
    (tmp_path / "waves-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (tmp_path / "waves-1.0.dist-info" / "entry_points.txt").write_text("[sparring.datasets]\nsea-waves = waves:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    data = datasets.load(DataSpec(name="sea-waves"), base=HERE)
    assert data.class_names == ("calm", "rough")
    np.testing.assert_array_equal(data.x, np.full((2, 1, 9, 9), np.float32(128) / np.float32(255)))
    assert datasets.load_train(DataSpec(name="sea-waves"), base=HERE).y.tolist() == [0, 1] * 3
    assert "sea-waves" in {info.name for info in datasets.catalogue()}


def test_no_framework_is_imported_for_data(fresh):
    code = (
        "import sys, sparring.models.spec, sparring.models.prepared.prepare; from sparring.models.data import datasets\n"
        "from pathlib import Path\n"
        "datasets.load(sparring.models.spec.DataSpec(name='digits'), base=Path('.')); datasets.catalogue()\n"
        "print(sorted({'torch', 'torchvision', 'tensorflow', 'keras', 'onnxruntime'} & set(sys.modules)))"
    )
    assert fresh(code) == "[]"


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "my.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"no array")
    with pytest.raises(InputError, match=r"my\.npz"):
        datasets.load(DataSpec(path="my.npz"), base=tmp_path)


# --- many pictures --------------------------------------------------------------------------------------------------


def test_many_pictures_are_decoded_once_and_then_mapped(tmp_path, cache, monkeypatch):
    for i in range(6):
        picture(tmp_path / "cat" / f"{i}.png")
    spec = DataSpec(path=str(tmp_path), crop=30, samples=5)
    plain = datasets.load(spec, base=HERE)
    monkeypatch.setattr(big, "LARGE", 1)
    monkeypatch.setattr(big, "PIECE", 20_000)
    seen = []

    def load(**more):
        seen.clear()
        return datasets.load(spec.model_copy(update=more), base=HERE, progress=lambda *told: seen.append(told))

    first = load()
    assert len(seen) == 5
    again = load()
    assert not seen
    assert first.digest == again.digest == plain.digest
    np.testing.assert_array_equal(again.x, plain.x)
    assert not again.x.flags.writeable
    for other in ({"crop": 20}, {"seed": 1}, {"size": 30, "crop": None}):
        load(**other)
        assert seen, other
    file = tmp_path / "cat" / "3.png"
    picture(file)  # other pixels in the same place: the old array is not taken for them
    assert load().digest != plain.digest


def test_two_processes_decode_the_same_pictures_once(tmp_path, cache, fresh):
    code = f"""
from concurrent.futures import ThreadPoolExecutor; from pathlib import Path; import subprocess, sys
one = '''
from sparring.adapters import arrays as big; big.LARGE = 1
from pathlib import Path; from sparring.models.data import datasets; from sparring.models.spec import DataSpec
seen = []
data = datasets.load(DataSpec(path={str(tmp_path)!r}, crop=30), base=Path("."), progress=lambda *told: seen.append(told))
print(len(seen), data.digest)
'''
run = lambda _: subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, check=True).stdout.split()
print(sorted(ThreadPoolExecutor(2).map(run, range(2))))
"""
    for i in range(8):
        picture(tmp_path / "cat" / f"{i}.png", 400, 300)
    (nothing, digest), (everything, same) = eval(fresh(code))
    assert (nothing, everything) == ("0", "8")
    assert digest == same


def test_pictures_that_nobody_asked_for_in_a_month_are_removed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(big, "LARGE", 1)
    picture(tmp_path / "cat" / "1.png")
    old, new = (cache / "decoded" / name for name in ("old.float32", "new.float32"))
    old.parent.mkdir(exist_ok=True)
    for file, age in ((old, 40), (new, 20)):
        file.write_bytes(b"")
        os.utime(file, (time.time() - age * 86400,) * 2)
    datasets.load(DataSpec(path=str(tmp_path), crop=30), base=HERE)
    assert (old.exists(), new.exists()) == (False, True)
