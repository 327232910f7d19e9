"""Shards: what is trained from them is what is trained from the folder, wherever they lie; damage is named."""

import errno
import functools
import io
import os
import re
import resource
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.batches import assert_processes_share, assert_same
from tests.data.file_server import FileServer
from tests.data.writers import write_folders
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.shards import as_url, is_url
from vertebra.data.loading.classification import classification_test_loader, classification_train_loader
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.sampling import Share
from vertebra.data.loading.views import Crops, view_loader
from vertebra.data.prepare.check import check
from vertebra.data.prepare.shard_files import index_shards, write_shards
from vertebra.data.transforms.classification_views import ClassificationTransform
from vertebra.ground.errors import BadSample, DataError

VIEW = ClassificationTransform(size=32, shorter=32, augment="crop", min_scale=0.3, flip=0.5)


def loader_of(dataset: ClassificationDataset, **share: int) -> Loader:
    return classification_train_loader(dataset, VIEW, Share(**{"batch": 8, "seed": 7, **share}), cache_mb=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, counts in (("train", {"ant": 7, "bee": 11, "cat": 5}), ("val", {"ant": 2, "cat": 3})):
        write_folders(tmp_path / "folders", counts, split)
    return tmp_path / "folders"


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """The folder's training and test images, the former in several shards."""
    for split in ("train", "val"):
        write_shards(open_classification(folder, split), tmp_path / "shards", split, size_mb=0.02)
    assert len(list((tmp_path / "shards").glob("train-*.tar"))) > 2
    return tmp_path / "shards"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("split", ["train", "val", "train45k", "val5k"])
def test_shards_hold_what_the_folder_holds(folder: Path, shards: Path, split: str):
    sharded, whole = open_classification(shards, split), open_classification(folder, split)
    assert sharded.fingerprint() == whole.fingerprint() and sharded.class_names == ("ant", "bee", "cat")
    assert all(sharded.read(i) == whole.read(i) for i in range(len(whole)))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_shards_is_training_from_the_folder(folder: Path, shards: Path, workers: int):
    whole = list(loader_of(open_classification(folder, "train"), stop=7))
    dataset = open_classification(shards, "train")
    assert_same(whole, loader_of(dataset, stop=7, workers=workers))
    assert_same(whole[4:], loader_of(dataset, start=4, stop=7, workers=workers))
    assert_processes_share(functools.partial(loader_of, dataset), stop=7)


def test_the_same_data_give_the_same_shards_in_another_order_than_the_classes(folder: Path, shards: Path, tmp_path):
    write_shards(open_classification(folder, "train"), tmp_path / "again", "train", size_mb=0.02)
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (shards / path.name).read_bytes()
    with tarfile.open(shards / "train-000000.tar") as tar:
        labels = [tar.extractfile(m).read() for m in tar if m.name.endswith(".cls")]  # type: ignore[union-attr]
    assert labels != sorted(labels)


def test_webdataset_reads_our_shards(folder: Path, shards: Path):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    samples = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("__key__", "jpg", "cls")
    found = {int(key): (image, int(label)) for key, image, label in samples}
    dataset = open_classification(folder, "train")
    assert found == {i: (dataset.read(i), int(dataset.labels_I[i])) for i in range(len(dataset))}


def test_arrays_become_pictures_without_loss(folder: Path, tmp_path: Path):
    pixels_IHW3 = np.random.default_rng(0).integers(0, 256, (23, 32, 32, 3), np.uint8)
    dataset = replace(open_classification(folder, "train"), pixels_IHW3=pixels_IHW3)
    write_shards(dataset, tmp_path / "arrays", "train")
    transform = ClassificationTransform(size=32, shorter=32)
    (batch,) = classification_test_loader(open_classification(tmp_path / "arrays", "train"), transform, Share(batch=23))
    assert np.array_equal(batch.inputs[0].permute(0, 2, 3, 1).numpy(), pixels_IHW3)


def test_shards_of_others_get_an_index(folder: Path, tmp_path: Path, monkeypatch):
    """As img2dataset and the like write them: any keys, more members, .jpeg, a folder for the split."""
    dataset = open_classification(folder, "train")
    for number in range(2):
        members: dict[str, bytes] = {"README": b"about"}
        for i in range(number, 20, 2):
            members[f"some/key{i}.json"] = b"{}"
            if i != 4:  # a sample of metadata alone
                members[f"some/key{i}.jpeg"] = dataset.read(i)
                members[f"some/key{i}.cls"] = b"%d\n" % dataset.labels_I[i]
        write_tar(tmp_path / "others" / f"imagenet-train-{number:04}.tar", members)
    with pytest.raises(DataError, match=r"train-0000.tar: a shard, but there is no index of the 2; run .*--index-only"):
        open_classification(tmp_path / "others", "train")
    index_shards(str(tmp_path / "others"), tmp_path / "others", "train")
    found = open_classification(tmp_path / "others", "train")
    order = [i for number in range(2) for i in range(number, 20, 2) if i != 4]
    assert [found.read(place) for place in range(len(found))] == [dataset.read(i) for i in order]
    assert found.labels_I.tolist() == dataset.labels_I[order].tolist()
    assert found.class_names == ("0", "1", "2")[: max(found.labels_I) + 1]
    (tmp_path / "others" / "classnames.txt").write_text("ant\nbee\ncat\n")
    elsewhere = tmp_path / "index"  # the shards' own folder may be another's
    index_shards(str(tmp_path / "others"), elsewhere, "train")
    assert open_classification(elsewhere, "train").class_names == ("ant", "bee", "cat")
    assert open_classification(elsewhere, "train").read(0) == found.read(0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others" / "classnames.txt").unlink()
    index_shards("others", Path("again"), "train")
    assert open_classification("again", "train").read(0) == found.read(0)


def test_shards_in_memory_or_on_a_server_give_what_those_on_disk_give(shards: Path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    local = loader_of(open_classification(shards, "train"), stop=5)
    remote = open_classification(Path("memory://bucket"), "train")  # as --data has it: a Path
    assert is_url(remote.shards.places[0])
    for workers in (0, 2):
        assert_same(local, loader_of(remote, workers=workers, stop=5))
    assert [v.inputs[1].tolist() for v in view_loader(remote, [Crops(32, 32)], Share(batch=9))]


@pytest.fixture
def server(shards: Path) -> Iterator[FileServer]:
    """A web server of the shards."""
    pytest.importorskip("aiohttp")
    with FileServer({path.name: path.read_bytes() for path in shards.iterdir()}) as running:
        yield running


def test_shards_on_a_web_server(shards: Path, server: FileServer, tmp_path: Path):
    local = loader_of(open_classification(shards, "train"), stop=5)
    remote = open_classification(Path(server.url), "train")
    for workers in (0, 2):
        assert_same(local, loader_of(remote, workers=workers, stop=5))
    names = [path.name for path in sorted(shards.glob("train-*.tar"))]
    index_shards(server.url, tmp_path / "index", "train", shards=names)
    indexed = open_classification(tmp_path / "index", "train")
    assert len(indexed) == len(remote) and indexed.shards.places == remote.shards.places
    assert not check(tmp_path / "index", "train").faults


def test_a_server_that_fails_stops_the_training_in_a_sentence(server: FileServer, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    dataset = open_classification(Path(server.url), "train")
    server.behaviour.files.clear()
    loader = loader_of(dataset, stop=1)
    with pytest.raises(DataError, match=r"http://.*train-.*tar .*: cannot be read .*; check the address"):
        list(loader)


def test_a_url_survives_being_a_path():
    for url in ("https://a.org/b/c", "s3://bucket/b", "simplecache::https://a.org/b", "file:///a/b"):
        assert as_url(Path(url)) == url and is_url(Path(url))
    assert as_url(Path("/data/a:b")) == "/data/a:b" and not is_url(Path("/data/a:b")) and not is_url("C:/data")


def test_a_url_without_an_index_is_named():
    missing = r"memory://nothing/train.index.jsonl: no such index; write one with .*--index-only"
    with pytest.raises(DataError, match=missing):
        open_classification(Path("memory://nothing"), "train")
    with pytest.raises(DataError, match=r"gopher://x/.*: such addresses cannot be read here"):
        open_classification(Path("gopher://x"), "train")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"1", "b.jpg": b"2", "b.cls": b"0"}, r"sample a has no class \(KEY.cls\)"),
        ({"a.cls": b"1"}, r"sample a has no image \(KEY.jpg\)"),
        ({"a.jpg": b"1", "b.jpg": b"2", "a.cls": b"0"}, "sample a has no class"),
        ({"a.jpg": b"1", "a.cls": b"-1"}, "a.cls holds '-1', not a class number from 0 on"),
        ({"a.jpg": b"1", "a.cls": b"cat"}, "a.cls holds 'cat', not a class number"),
        ({"a.jpg": b"1", "a.cls": b"2"}, "class 2, but only 2 classes have names"),
        ({"a.txt": b"1"}, "no samples in it nor in the others"),
        ({}, "no samples in it nor in the others"),
    ],
)
def test_samples_that_are_not_whole_are_named(tmp_path: Path, members: dict[str, bytes], message: str):
    write_tar(tmp_path / "train-0.tar", members)
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=f"train-0.tar: .*{message}"):
        index_shards(str(tmp_path), tmp_path, "train")
    assert not (tmp_path / "train.index.jsonl").exists()


@pytest.mark.parametrize("keep", [0, 100, 700, 2000, 6 * 1024])  # the last: all members, but not the end's mark
def test_a_cut_shard_is_named(tmp_path: Path, keep: int):
    path = write_tar(tmp_path / "train-0.tar", {f"{i}.{end}": b"1" for i in range(3) for end in ("jpg", "cls")})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-0.tar: does not read as a tar file \(.+\); fetch or write it again"):
        index_shards(str(tmp_path), tmp_path, "train")


def test_missing_cut_and_changed_shards_are_named(shards: Path):
    path = shards / "train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    faults = [str(fault) for fault in check(shards, "train").faults]
    assert any("train-000001.tar" in fault and "its bytes are not those" in fault for fault in faults)
    path.write_bytes(content[:-512])
    with pytest.raises(DataError, match=r"train-000001.tar: has \d+ bytes where .*says \d+; fetch that shard again"):
        open_classification(shards, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"train-000001.tar: no such shard, though .*index.jsonl lists it; fetch"):
        open_classification(shards, "train")
    assert "no such shard" in str(check(shards, "train").faults[0])


def test_a_shard_that_vanishes_during_the_training_is_a_bad_sample(shards: Path):
    dataset = open_classification(shards, "train")
    for path in shards.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:3000])
    cut = r"train-0.*tar \(at byte \d+\): gives \d+ of \d+ bytes; fetch that shard again"
    with pytest.raises(BadSample, match=cut):
        [dataset.read(i) for i in range(len(dataset))]
    (shards / "train-000000.tar").unlink()
    with pytest.raises(BadSample, match=r"cannot be read \(No such file or directory\)"):
        [dataset.read(i) for i in np.flatnonzero(dataset.shards.shard_I == 0)]


@pytest.mark.parametrize(
    ("pattern", "instead", "reason"),
    [
        (r"\n[^\n]*\Z", "", "images"),
        ("shards 1", "shards 9", "shards 9"),
        ('"ant", "bee"', '"dog"', "classes"),
        (r"(\n[^\n]{50})[^\n]*\Z", r"\1", "JSONDecodeError"),
        (r"(?s).*", "", "not enough values"),
        (r"(?s)\n.*", r'\n{"shard": "x"}', "KeyError"),
        (r"\Z", r"\n5", "TypeError"),
        ('"bytes"', '"byte"', "bytes"),
        ('"sha256"', '"sha"', "sha256"),
        (r'"names": \[[^]]*\]', '"names": 5', "int"),
        (r'"offsets": \[\d+, ', '"offsets": [', "different"),
        (r'"labels": \[\d+', '"labels": [-1', "classes -1 to"),
        (r'"places": \[(\d+), \d+', r'"places": [\1, \1', "one of them twice"),
        (r'"bytes": \d+', '"bytes": "9"', "no length"),
    ],
)
def test_a_damaged_index_is_named(shards: Path, pattern: str, instead: str, reason: str):
    path = shards / "train.index.jsonl"
    path.write_text(re.sub(pattern, instead, path.read_text().strip(), count=1))
    with pytest.raises(DataError, match=f"train.index.jsonl: .*{reason}.*; write it anew"):
        open_classification(shards, "train")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_on_a_full_disk_nothing_unfinished_bears_its_final_name(
    folder: Path, tmp_path: Path, monkeypatch, written: int
):
    rename, calls = os.replace, []

    def full(source: Path, target: Path) -> None:
        if len(calls) == written:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(target)
        rename(source, target)

    monkeypatch.setattr("os.replace", full)
    dataset, output = open_classification(folder, "train"), tmp_path / "shards"
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); make room there"):
        write_shards(dataset, output, "train", size_mb=0.02)
    assert sorted(output.iterdir()) == sorted(calls) and len(calls) == written
    monkeypatch.undo()
    write_shards(dataset, output, "train", size_mb=0.02)  # again, over what is there
    assert len(open_classification(output, "train")) == 23
    with pytest.raises(DataError, match="are written already; give another --output, or remove them"):
        write_shards(dataset, output, "train")


def test_a_disk_that_fills_up_within_a_shard_leaves_no_part_of_it(folder: Path, tmp_path: Path):
    dataset, output = open_classification(folder, "train"), tmp_path / "shards"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # of one file: a shard of all images takes more
    try:
        with pytest.raises(DataError, match=r"train-000000.tar: cannot be written \(File too large\); make room there"):
            write_shards(dataset, output, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(output.iterdir())
