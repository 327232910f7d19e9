"""ImageNet-style folders and CIFAR-10: labels, splits, and what is refused in which words."""

import codecs
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.writers import paths, write_folders, write_picture, write_text
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.strings import Strings
from vertebra.ground.errors import DataError


def test_labels_are_the_class_folders_in_alphabetical_order(tmp_path: Path):
    write_folders(tmp_path, {"zebra": 2, "ant": 3})
    dataset = open_classification(tmp_path, "train")
    assert dataset.class_names == ("ant", "zebra") and dataset.labels_I.tolist() == [0, 0, 0, 1, 1]
    assert [path.name for path in paths(dataset)] == ["000.jpg", "001.jpg", "002.jpg", "000.jpg", "001.jpg"]
    assert all(path.is_file() for path in paths(dataset))


def test_a_class_missing_in_val_does_not_shift_the_labels(tmp_path: Path):
    write_folders(tmp_path, {"ant": 1, "bee": 1, "cow": 1})
    write_folders(tmp_path, {"cow": 2, "ant": 1}, "val")
    dataset = open_classification(tmp_path, "val")
    assert dataset.class_names == ("ant", "bee", "cow") and dataset.labels_I.tolist() == [0, 2, 2]
    assert "no image in 1 of 3 classes" in dataset.notes[0]


@pytest.mark.parametrize("name", ["a.gif", "a.heic", "more/a.jpg", "a.jpg.bak", "._a.jpg", "@eaDir/a.jpg", "a.xml"])
def test_what_is_left_out_of_a_class_is_said(tmp_path: Path, name: str):
    write_folders(tmp_path, {"ant": 1})
    write_text(tmp_path / "train" / "ant" / name, "a picture")
    dataset = open_classification(tmp_path, "train")
    said = [f"{tmp_path}/train/ant/{name.partition('/')[0]}: does not have an image's name; it is left out"]
    hidden = name in ("._a.jpg", "@eaDir/a.jpg", "a.xml")
    assert len(dataset) == 1 and [note.partition("; rename")[0] for note in dataset.notes] == said[hidden:]


def test_the_fingerprint_names_the_images_and_not_their_place(tmp_path: Path):
    for name in ("one", "two"):
        write_folders(tmp_path / name, {"ant": 2, "bee": 2})
    one, two = (open_classification(tmp_path / name, "train").fingerprint() for name in ("one", "two"))
    assert one == two
    write_picture(tmp_path / "two" / "train" / "bee" / "9.PNG", 20, 20)
    assert open_classification(tmp_path / "two", "train").fingerprint() != one


def test_the_sample_sets_objects_are_found_beside_its_scenes(tmp_path: Path):
    write_folders(tmp_path / "objects", {"star": 2})
    assert len(open_classification(tmp_path, "train")) == 2


@pytest.mark.parametrize(
    ("there", "place", "split", "sentence"),
    [
        ("", "nowhere", "train", "nowhere: no such directory; give the data's place with --data"),
        ("train/000.tar", "", "train45k", r"train: holds tar files and no class folders; unpack.*--split train\)"),
        ("val/bee/0.jpg", "", "val", r"val/bee: a class that .*train does not have .*; remove it or add"),
        ("a.tar.xz", "a.tar.xz", "train", r"a\.tar\.xz: a file, not a directory; unpack it"),
    ],
)
def test_a_place_without_class_folders_is_named(tmp_path: Path, there: str, place: str, split: str, sentence: str):
    (tmp_path / "train").mkdir()
    if there:
        write_text(tmp_path / there, "")
    with pytest.raises(DataError, match=sentence):
        open_classification(tmp_path / place, split)


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """CIFAR-10's python batches with 10 images each; label and red channel are the image's number mod 10."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for batch, name in enumerate(names):
        rows_ID = np.zeros((10, 3072), np.uint8)
        rows_ID[:, :1024] = np.arange(10)[:, None]
        rows_ID[:, 1024:2048] = batch
        rows_ID[:, 2048] = 77  # the first blue pixel, top left
        value = {b"data": rows_ID, b"labels": list(range(10)), b"filenames": [b"%d.png" % i for i in range(10)]}
        (folder / name).write_bytes(pickle.dumps(value, protocol=2))
    meta = {b"label_names": [b"class%d" % i for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return tmp_path


def test_cifars_python_batches_become_rgb_images(batches: Path):
    dataset = open_classification(batches, "train")
    assert len(dataset) == 50 and dataset.class_names[3] == "class3" and dataset.labels_I[13] == 3
    assert dataset.pixels_IHW3 is not None
    assert dataset.pixels_IHW3[13, 0, 0].tolist() == [3, 1, 77] and dataset.pixels_IHW3[13, 0, 1].tolist() == [3, 1, 0]
    test = open_classification(batches, "test")
    assert len(test) == 10 and test.fingerprint() == open_classification(batches, "val").fingerprint()
    with pytest.raises(DataError, match=r"no split 'tset'; CIFAR-10 has train, train45k, val5k"):
        open_classification(batches, "tset")


def test_a_tenth_of_each_training_class_can_be_held_out(tmp_path: Path):
    write_folders(tmp_path, {"ant": 20, "bee": 10})
    write_folders(tmp_path, {"ant": 1, "bee": 1}, "test")
    whole, train, val = (open_classification(tmp_path, split) for split in ("train", "train45k", "val5k"))
    assert (len(train), len(val)) == (27, 3) and val.labels_I.tolist() == [0, 0, 1]
    assert sorted([*paths(train), *paths(val)]) == sorted(paths(whole))
    assert [path.name for path in paths(val)] == ["018.jpg", "019.jpg", "009.jpg"]
    assert len({dataset.fingerprint() for dataset in (whole, train, val)}) == 3


ROW = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}


class Harmful:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Harmful(), r"does not read as a CIFAR-10 batch \(it wants \w+.print, which only a harmful file would\)"),
        ([1], "holds a list, not a CIFAR-10 batch; download it again"),
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, "not a CIFAR-10 batch"),
        ({**ROW, b"filenames": [codecs.encode]}, "its names are no texts"),
        ({**ROW, b"filenames": [b"a", b"b"]}, "2 file names for 1 images"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused_unread(batches: Path, value: object, sentence: str, capsys):
    path = batches / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(DataError, match=rf"data_batch_2: {sentence}"):
        open_classification(batches, "train")
    assert capsys.readouterr().out == ""


def test_imagenette_reads_as_it_lies(shared_data: Path):
    train, val = (open_classification(shared_data / "imagenette", split) for split in ("train", "val"))
    assert np.bincount(train.labels_I).tolist() == [600] * 10 and np.bincount(val.labels_I).tolist() == [150] * 10
    assert train.class_names == val.class_names and train.class_names[0] == "n01440764"


def test_cifar_folders_from_the_archive_read_as_they_lie(shared_data: Path, tmp_path: Path):
    with tarfile.open(shared_data / "cifar10_jpg.tar.xz") as archive:
        for number, member in enumerate(archive):  # enough of it: the archive takes seconds to unpack whole
            if number > 300:
                break
            archive.extract(member, tmp_path)
    roots = [folder.parent for folder in (*tmp_path.rglob("train"), *tmp_path.rglob("test"))]
    split = "train" if (roots[0] / "train").is_dir() else "test"
    dataset = open_classification(roots[0], split)
    assert len(dataset) > 200 and dataset.path(0).suffix == ".jpg"


def test_a_subset_has_its_images_and_their_labels_alone(tmp_path: Path):
    whole = open_classification(write_folders(tmp_path, {"a": 3, "b": 3}), "train")
    part = whole.subset([1, 4])
    assert [path.parent.name + path.name for path in paths(part)] == ["a001.jpg", "b001.jpg"]
    assert part.labels_I.tolist() == [0, 1] and part.class_names == whole.class_names
    assert part.fingerprint() != whole.fingerprint() == whole.subset(range(6)).fingerprint()


def test_strings_are_joined_and_taken_as_lists_are(monkeypatch):
    monkeypatch.setattr("vertebra.data.datasets.strings._AT_ONCE", 3)
    parts = [["a", "", "bcd"], [], ["é", "xyz"]]
    joined = Strings.joined([Strings(part) for part in parts])
    assert list(joined) == ["a", "", "bcd", "é", "xyz"]
    for indices in ([4, 3, 2, 1, 0], [2, 2, 1], [], [1], [0, 1, 2, 3, 4, 0, 1]):
        assert list(joined.take(np.array(indices, int))) == [joined[i] for i in indices]
