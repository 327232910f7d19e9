"""tools/prepare_data.py and tools/score.py as a user of other people's data sets types them."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from tests.cli.conftest import run
from tests.data.file_server import FileServer
from vertebra.data.datasets.catalog import open_classification, open_detection
from vertebra.data.prepare.archives import ARCHIVES


def test_downloads_come_from_a_mirror_and_are_unpacked_and_checked(sample, tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("train2017", "val2017"):  # any archive will do: COCO publishes no checksum
            archive.add(sample / "sample.json", name)
    with FileServer({"mirror/val2017.zip": content.getvalue()}) as server:
        mirror = ("--download", "--mirror", f"{server.url}/mirror")
        done = run("prepare_data", "coco", "--data", tmp_path / "new", *mirror, expect=1)
        assert f"{server.url}/mirror/train2017.zip: the server answers 404" in done.err
        done = run("prepare_data", "voc07", "--data", tmp_path / "new", *mirror, expect=1)
        assert "VOCtrainval_06-Nov-2007.tar: the server answers 404" in done.err and len(done.err.splitlines()) == 1


def test_a_whole_download_ends_in_a_data_set_that_is_checked(tmp_path):
    import zipfile

    from tests.data.writers import write_picture

    files: dict[str, bytes] = {}
    for archive, split in (("train2014.zip", "train2014"), ("val2014.zip", "val2014")):
        write_picture(tmp_path / "made" / f"{split}.jpg", 60, 80)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            packed.write(tmp_path / "made" / f"{split}.jpg", f"{split}/COCO_{split}_000000000009.jpg")
        files[archive] = content.getvalue()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for split in ("train2014", "val2014"):
            image = {"id": 9, "file_name": f"COCO_{split}_000000000009.jpg", "width": 80, "height": 60}
            objects = [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}]
            value = {"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
            packed.writestr(f"annotations/instances_{split}.json", json.dumps(value))
    files["annotations_trainval2014.zip"] = content.getvalue()
    with FileServer(files) as server:
        text = run("prepare_data", "coco2014", "--data", tmp_path / "coco", "--download", "--mirror", server.url).out
        assert text.count("the owner publishes no checksum") == 3
        assert "coco/train2014: no faults" in text and "coco/val2014: no faults" in text
        asked = len(server.behaviour.requests)
        run("prepare_data", "coco2014", "--data", tmp_path / "coco", "--download", "--mirror", server.url)
        assert len(server.behaviour.requests) == asked == 3


def test_a_wrong_checksum_ends_the_command(tmp_path):
    with FileServer({"cifar-10-python.tar.gz": pickle.dumps(np.zeros(9))}) as server:
        done = run("prepare_data", "cifar10", "--data", tmp_path, "--download", "--mirror", server.url, expect=1)
    assert f"not the owner's {ARCHIVES['cifar10'].files[0].md5}, and was removed" in done.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said_with_where_to_get_it(tmp_path):
    text = run("prepare_data", "voc12", "--data", tmp_path, expect=1).out
    assert "Get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 page" in text and "or add --download." in text
    text = run("prepare_data", "imagenet_det", "--data", tmp_path, expect=1).out
    assert "Get ILSVRC2017_DET.tar.gz from the ImageNet page" in text and "--download" not in text
    account = run("prepare_data", "imagenet_det", "--data", tmp_path, "--download", expect=1).err
    assert "needs an account with ImageNet's owner" in account and "log in there" in account
    assert "add --download" in run("prepare_data", "coco", "--data", tmp_path, "--mirror", "http://x", expect=2).err


def test_sets_go_through_all_forms_by_commands_alone(sample, tmp_path):
    out = tmp_path / "out"
    text = run(
        "prepare_data", "convert", "--data", sample, "--source", "sample/val", "--to", "yolo", "--output", out / "y"
    ).out
    assert "YOLO text cannot carry: " in text and "masks (--polygons writes outlines)" in text
    assert (
        f"9 images, {len(open_detection(sample, 'sample/val').labels_K)} objects: open it as yolo:{out}/y/val" in text
    )
    assert "yolo:data.yaml/val: no faults" in run("prepare_data", "check", "--data", out / "y").out
    text = run(
        "prepare_data", "convert", "--data", out / "y", "--source", "yolo:val", "--to", "voc", "--output", out / "v"
    ).out
    assert f"open it as vocxml:{out}/v/val with --data {out}/v" in text
    assert "no faults" in run("prepare_data", "check", "--data", out / "v").out
    source = ("--data", out / "v", "--source", "vocxml:v/val")
    run(
        "prepare_data", "convert", "--data", out, *source[2:], "--to", "coco", "--output", out / "c", "--images", "copy"
    )
    first, last = open_detection(sample, "sample/val"), open_detection(out / "c", "coco/val")
    assert np.abs(first.bbox_xywh_K4 - last.bbox_xywh_K4).max() < 1e-6
    assert first.class_names == last.class_names and first.labels_K.tolist() == last.labels_K.tolist()
    assert (
        "coco/val: no faults" in (text := run("prepare_data", "check", "--data", out / "c").out)
        and "\nval:" not in text
    )


def test_a_conversion_that_cannot_be_is_a_sentence(sample, tmp_path):
    base = ("prepare_data", "convert", "--data", sample, "--source")
    text = run(*base, "sample/vla", "--to", "yolo", "--output", tmp_path / "y", expect=1).err
    assert "no annotations/instances_vla.json" in text and "there is train, val" in text
    text = run(*base, "sample/val", "--to", "voc", "--output", tmp_path / "v", "--polygons", expect=2).err
    assert "--polygons is for --to yolo" in text
    assert "yolo" in run(*base, "sample/val", "--to", "yulo", "--output", tmp_path / "y", expect=2).err


def test_a_detector_predicts_on_a_test_set_without_truth_and_says_so(detectors, sample, tmp_path):
    """From images alone to VOC's submission."""
    files = sorted((sample / "scenes" / "images" / "val").iterdir())[:3]
    truth = json.loads((sample / "scenes" / "annotations" / "instances_val.json").read_text())
    listed = [one for one in truth["images"] if one["file_name"] in {path.name for path in files}]
    (tmp_path / "image_info_test.json").write_text(json.dumps({"images": listed, "categories": truth["categories"]}))
    flags = ("--test-source", f"json:{tmp_path}/image_info_test.json", "--data", sample / "scenes" / "images" / "val")
    output = tmp_path / "out"
    done = run(
        "eval_det", detectors["r18"], *flags, "--output", output, "--score", 0, "--device", "cpu", "--workers", 0
    )
    assert "nothing to score against: the truth of 3 images has no object" in done.out + done.err
    written = json.loads((output / "evaluation.json").read_text())
    assert written["coco"]["AP"] is None and written["images"] == 3 and "nothing to score" in written["note"]
    scored = ("--truth", output / "truth.json", "--predictions", output / "predictions.json", "--metric", "voc10")
    text = run("score", *scored, "--voc-files", tmp_path / "send", "--voc-competition", "comp3").out
    assert "There is nothing to score against" in text and "10 files in" in text and "tar czf results.tgz" in text
    lines = [line for path in (tmp_path / "send/results/VOC2012/Main").glob("comp3_det_test_*.txt") for line in
             path.read_text().splitlines()]  # fmt: skip
    assert len(lines) == len(json.loads((output / "predictions.json").read_text())) > 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifars_own_archive_is_named_as_its_owner_names_it(tmp_path, split):
    """The optional copy as folders is used where it lies there, and nothing else is missed."""
    content = io.BytesIO()
    from tests.data.writers import write_picture

    write_picture(tmp_path / "made.png", 32, 32)
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for part in ("train", "test"):
            archive.add(tmp_path / "made.png", f"{part}/cat/0000.png")
    (tmp_path / "cifar10_jpg.tar.xz").write_bytes(content.getvalue())
    assert f"{split}: no faults" in run("prepare_data", "cifar10", "--data", tmp_path).out
    assert len(open_classification(tmp_path, split)) == 1


def spoilt(sample, root):
    """A copy of the sample set with a picture cut off, one of the training pictures among the test set's, a bad box."""
    shutil.copytree(sample, root)
    pictures = root / "scenes" / "images"
    train, (first, second, *_) = sorted((pictures / "train").iterdir()), sorted((pictures / "val").iterdir())
    first.write_bytes(first.read_bytes()[:200])
    second.write_bytes(train[3].read_bytes())
    annotations = root / "scenes" / "annotations" / "instances_val.json"
    value = json.loads(annotations.read_text())
    value["annotations"][-1]["bbox"] = [1, 2, -3, 4]
    annotations.write_text(json.dumps(value))
    return train[3].name, first.name, second.name


def test_check_compares_train_and_test_writes_json_and_a_set_without_the_faults(sample, tmp_path):
    copied, cut, copy = spoilt(sample, tmp_path / "set")
    flags = ("--data", tmp_path / "set", "--source", "sample/train", "sample/val", "--config", "sample/fpn")
    places = ("--json", tmp_path / "out" / "report.json", "--fix", tmp_path / "clean")
    text = run("prepare_data", "check", *flags, *places).out  # 0: what was written has no faults
    assert "sample/val: 2 faults" in text and f"{cut}: truncated" in text and "has a box of negative size" in text
    assert "1 picture of sample/val like one of sample/train, so" in text and f"{copy} is {copied}" in text
    assert "as sample/fpn sees them (shorter side 224 px)" in text
    assert f"sample/val: 8 images written; open them as coco/val with --data {tmp_path}/clean" in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sources"]["sample/val"]["images"] == 9 and len(report["sources"]["sample/val"]["faults"]) == 2
    assert report["comparisons"][0]["near_duplicates"][0]["test"].endswith(copy)
    assert any("truncated" in change for change in report["sources"]["sample/val"]["fixed"]["changes"])
    again = run("prepare_data", "check", "--data", tmp_path / "clean").out
    assert "coco/train: no faults\n" in again and "coco/val: no faults\n" in again


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (("--source", "sample/vla"), 1, "no annotations/instances_vla.json"),
        (("--source", "voc2012"), 1, "no folder 'voc2012'"),
        (("--source", "coco:val"), 1, "source 'coco:val': is not known; write voc2007/trainval"),
        (("--source", "{tmp}/a.json"), 1, "is not known; write json:{tmp}/a.json"),
        (("--source", "json:{tmp}"), 1, "is a directory; name the JSON file in it\n"),
        (("--sorce", "sample/val"), 2, "--source"),
        (("--config", "sample/fpm"), 2, "no recipe sample/fpm; did you mean sample/fpn.yaml?"),
        (("--config", "fpm.yaml"), 2, "no recipe fpm.yaml; did you mean sample/fpn.yaml?"),
        (("--config", "nothere.yaml"), 2, "no recipe nothere.yaml; known recipes: cifar10/"),
        (("--config", "sample/objects"), 2, "there is no field input.size"),
        (("--fix", "{sample}"), 1, "is the data set itself; give --fix a new directory"),
        (("--fix", "{tmp}"), 1, "is there already; give --fix a new directory"),
        (("--json", "{tmp}"), 2, "is a directory: name a file"),
        (("--processes", "-1"), 2, "--processes -1: give 1 or more"),
    ],
)
def test_a_check_that_cannot_be_is_a_sentence_before_any_work(sample, tmp_path, flags, code, sentence):
    (tmp_path / "there").touch()
    given = [flag.format(sample=sample, tmp=tmp_path) for flag in flags]
    done = run("prepare_data", "check", "--data", sample, *given, expect=code)
    assert sentence.format(tmp=tmp_path) in done.out + done.err
