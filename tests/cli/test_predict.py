"""tools/predict.py: what eval_det.py finds, drawn; what it says of everything that goes wrong."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.cli.conftest import run, run_until
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state, make_detector
from vertebra.engine.weights import save_weights
from vertebra.recipes.command_line import find_recipe, load_recipe
from vertebra.recipes.schema_detection import DetectionRecipe


def read(path):
    return json.loads(path.read_text())


def comparable(entries, name_of):
    return [(name_of[e["image_id"]], e["category_id"], tuple(e["bbox"]), e["score"]) for e in entries]


def write_clip(path, frames=6, size_hw=(120, 160)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, size_hw[::-1])
    for n in range(frames):
        writer.write(np.full((*size_hw, 3), 40 * n, np.uint8))
    writer.release()


def test_the_boxes_are_those_of_eval_det_to_the_bit(detectors, sample, tmp_path):
    pictures = sample / "scenes" / "images" / "val"
    flags = ("--device", "cpu", "--json-only", "--workers", 1, "--output", tmp_path)
    done = run("predict", pictures, "--weights", detectors["r18"], *flags)
    assert done.out.startswith("9 images, ") and str(tmp_path) in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.json", "predictions.json"]
    index, truth = read(tmp_path / "images.json"), read(detectors["r18"] / "truth.json")
    predicted = {image["id"]: image["file_name"].rpartition("/")[2] for image in index["images"]}
    evaluated = {image["id"]: image["file_name"].rpartition("/")[2] for image in truth["images"]}
    found, wanted = read(tmp_path / "predictions.json"), read(detectors["r18"] / "predictions.json")
    assert len(found) > 0 and comparable(found, predicted) == comparable(wanted, evaluated)
    assert [(c["id"], c["name"]) for c in index["categories"]] == [(c["id"], c["name"]) for c in truth["categories"]]
    assert len(COCO(str(tmp_path / "images.json")).loadRes(str(tmp_path / "predictions.json")).anns) == len(found)


@pytest.fixture(scope="module")
def mixed(detectors, sample, tmp_path_factory):
    """Pictures of one name, a cut one, a video, a broken video; predicted and drawn with every detection."""
    place = tmp_path_factory.mktemp("mixed")
    first, second = sorted((sample / "scenes" / "images" / "val").iterdir())[:2]
    for folder, source in (("a", first), ("b", second)):
        (place / folder).mkdir()
        shutil.copy(source, place / folder / "1.jpg")
    (place / "a" / "cut.jpg").write_bytes(first.read_bytes()[:400])
    write_clip(place / "b" / "clip.avi")
    (place / "b" / "broken.mp4").write_bytes(b"nothing")
    flags = ("--weights", detectors["r18"] / "model.safetensors", "--device", "cpu", "--workers", 0)
    more = ("--score", 0.01, "--classes", *frequent(detectors["r18"]), "--output", place / "out", "--batch-size", 2)
    return place, run("predict", place / "a", place / "b", *flags, *more, expect=1)


def frequent(run_dir):
    """The two classes that this hardly trained detector finds most often."""
    names = {category["id"]: category["name"] for category in read(run_dir / "truth.json")["categories"]}
    counts = Counter(names[entry["category_id"]] for entry in read(run_dir / "predictions.json"))
    return [name for name, _ in counts.most_common(2)]


def test_what_cannot_be_read_is_named_while_the_others_are_done(mixed):
    place, done = mixed
    assert f"{place}/a/cut.jpg: truncated" in done.err and f"{place}/b/broken.mp4: is not a video" in done.err
    assert "not read (2)" in done.err and done.out.startswith("8 images, ")
    assert {path.name for path in (place / "out").iterdir()} == {
        *("1.jpg", "1_2.jpg", "clip.mp4", "images.json", "predictions.json")
    }


def test_images_json_says_what_the_ids_mean(mixed):
    place, _ = mixed
    images = {image["id"]: image for image in read(place / "out" / "images.json")["images"]}
    assert {image["file_name"]: image["drawn"] for image in images.values()} == {
        f"{place}/a/1.jpg": "1.jpg", f"{place}/b/1.jpg": "1_2.jpg", f"{place}/b/clip.avi": "clip.mp4"
    }  # fmt: skip
    frames = [image for image in images.values() if "frame" in image]
    assert [image["frame"] for image in frames] == [0, 1, 2, 3, 4, 5]
    assert all((image["height"], image["width"]) == (120, 160) for image in frames)
    assert {entry["image_id"] for entry in read(place / "out" / "predictions.json")} <= set(images)


def test_only_the_classes_that_are_asked_for_are_there(mixed, detectors):
    place, _ = mixed
    names = {category["id"]: category["name"] for category in read(place / "out" / "images.json")["categories"]}
    found = {names[entry["category_id"]] for entry in read(place / "out" / "predictions.json")}
    assert len(names) == 10 and found and found <= set(frequent(detectors["r18"]))


def test_drawings_are_of_their_pictures(mixed):
    place, _ = mixed
    for source, drawn in (("a/1.jpg", "1.jpg"), ("b/1.jpg", "1_2.jpg")):
        before, after = cv2.imread(str(place / source)), cv2.imread(str(place / "out" / drawn))
        factor = after.shape[0] // before.shape[0]
        assert factor > 1 and after.shape[:2] == (factor * before.shape[0], factor * before.shape[1])
        small = cv2.resize(after, before.shape[1::-1], interpolation=cv2.INTER_AREA)
        different = np.abs(small.astype(int) - before).max(axis=2) > 40
        assert 0.001 < different.mean() < 0.8
    capture = cv2.VideoCapture(str(place / "out" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6 and capture.get(cv2.CAP_PROP_FPS) == 5


@pytest.fixture
def mask_detector(sample, tmp_path):
    """Weights of a Mask R-CNN that has learnt nothing."""
    recipe = load_recipe(DetectionRecipe, find_recipe("sample/detection.yaml"))
    model = recipe.model.model_copy(update={"masks": True})
    test = recipe.test.model_copy(update={"score": 0.0, "limit": 3, "detections": 20})
    changes = {"width": 0.25, "data": sample, "precision": "fp32", "model": model, "test": test}
    recipe = recipe.model_copy(update=changes)
    backbone = make_detector_backbone(recipe)
    categories = read(sample / "scenes" / "annotations" / "instances_val.json")["categories"]
    facts = {
        "detector": "Mask R-CNN",
        "recipe": recipe.model_dump(mode="json"),
        "class_names": [category["name"] for category in categories],
        "category_ids": [category["id"] for category in categories],
        "backbone": backbone.identity(),
    }
    detector = make_detector(recipe, backbone, len(categories))
    save_weights(tmp_path / "mask.safetensors", file_state(detector), facts)
    return tmp_path / "mask.safetensors"


def test_masks_are_evaluated_predicted_and_drawn(mask_detector, sample, tmp_path):
    run("eval_det", "--weights", mask_detector, "--device", "cpu", "--workers", 0, "--output", tmp_path / "eval")
    evaluation, wanted = (read(tmp_path / "eval" / f"{name}.json") for name in ("evaluation", "predictions"))
    assert evaluation["coco_segm"]["AP"] is not None and len(wanted) == 60
    names = [image["file_name"] for image in read(tmp_path / "eval" / "truth.json")["images"]]
    pictures = [next((sample / "scenes").rglob(name)) for name in names]
    run(
        "predict",
        *pictures,
        "--weights",
        mask_detector,
        "--device",
        "cpu",
        "--workers",
        0,
        "--output",
        tmp_path / "out",
    )
    found = read(tmp_path / "out" / "predictions.json")
    assert [entry["segmentation"] for entry in found] == [entry["segmentation"] for entry in wanted]
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (("{empty}",), 1, "no images or videos in this folder"),
        (("{pictures}", "--score", "50"), 2, "score: Input should be less than or equal to 1, not 50"),
        (("{pictures}", "--sccore", "0.5"), 2, "--score"),
        (("{pictures}", "--classes", "disk"), 2, "did you mean disc?"),
        (("{pictures}", "--flip"), 2, "--flip: is of a segmenter"),
        (("{pictures}", "--window", "64", "64"), 2, "--window: is of a segmenter"),
        (("{pictures}", "--output", "{pictures}"), 2, "which would be drawn over"),
        (("{pictures}", "--output", "{run}"), 2, "holds other files"),
        (("{pictures}", "--weights", "{backbone}"), 1, "does not hold a detector's recipe"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_a_sentence(detectors, weights, sample, tmp_path, flags, code, sentence):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "pictures": sample / "scenes" / "images" / "val", "run": detectors["r18"]}
    given = [flag.format(**places, backbone=weights["r18"]) for flag in flags]
    rest = ("--output", tmp_path / "out") if "--output" not in flags else ()
    rest += ("--weights", detectors["r18"]) if "--weights" not in flags else ()
    assert sentence in run("predict", *given, *rest, expect=code).err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_interrupted_it_keeps_what_it_has(detectors, sample, tmp_path):
    source = sorted((sample / "scenes" / "images" / "val").iterdir())[0]
    (tmp_path / "in").mkdir()
    for n in range(400):
        (tmp_path / "in" / f"{n:03}.jpg").write_bytes(source.read_bytes())
    out = tmp_path / "out"
    flags = (tmp_path / "in", "--weights", detectors["r18"], "--device", "cpu", "--output", out, "--workers", 1)
    done = run_until("predict", *flags, when=lambda: out.exists() and len(list(out.iterdir())) > 3, send=signal.SIGINT)
    assert done.code == 130 and "Traceback" not in done.err
    images = read(out / "images.json")["images"]
    assert 0 < len(images) < 400 and all((out / image["drawn"]).is_file() for image in images)
