"""VOC's submission files against a case worked by hand, and against the devkit's own reading of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vertebra.evaluation.metrics.summary import summarise
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.metrics.voc_server import write_voc_files
from vertebra.ground.errors import UserError

TRUTH = {
    "images": [
        {"id": 2008000002, "file_name": "VOC2012/JPEGImages/2008_000002.jpg", "width": 100, "height": 80},
        {"id": 2008000001, "file_name": "VOC2012/JPEGImages/2008_000001.jpg", "width": 100, "height": 80},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "tvmonitor"}],
    "annotations": [],
}
FOUND = [
    {"image_id": 2008000001, "category_id": 1, "bbox": [0, 0, 100, 80], "score": 0.25},
    {"image_id": 2008000002, "category_id": 1, "bbox": [47, 19, 23, 12], "score": 0.5},
    {"image_id": 2008000001, "category_id": 1, "bbox": [0.5, 1.25, 10, 20], "score": 0.75},
    {"image_id": 2008000001, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1e-7},
]


def test_the_files_are_those_of_a_case_worked_by_hand(tmp_path: Path):
    written = write_voc_files(TRUTH, FOUND, tmp_path)
    home = tmp_path / "results" / "VOC2012" / "Main"
    assert written == [home / f"comp4_det_test_{name}.txt" for name in ("cat", "dog", "tvmonitor")]
    # A box that covers the whole image is 1 1 100 80 in VOC's pixels; dog 48 20 70 31 is x 47, y 19, w 23, h 12.
    assert written[0].read_text() == (
        "2008_000002 0.500000 48.000 20.000 70.000 31.000\n"
        "2008_000001 0.750000 1.500 2.250 10.500 21.250\n"
        "2008_000001 0.250000 1.000 1.000 100.000 80.000\n"
    )
    assert written[1].read_text() == "2008_000001 0.000000 2.000 3.000 4.000 6.000\n"
    assert written[2].read_text() == ""


def test_read_back_as_the_devkit_reads_them_they_score_the_same(voc2007_dir: Path, tmp_path: Path):
    """Corners as they stand, widths inclusive: VOC's own IoU with its +1."""
    from vertebra.data.datasets.catalog import open_detection

    truth = open_detection(voc2007_dir, "voc2007/test").coco_truth()
    found = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "score": 1 - k / 1000,
         "bbox": [one["bbox"][0] + k % 7, *one["bbox"][1:]]}
        for k, one in enumerate(truth["annotations"])
    ]  # fmt: skip
    ids = {Path(one["file_name"]).stem: one["id"] for one in truth["images"]}
    categories = {one["name"]: one["id"] for one in truth["categories"]}
    again = []
    for path in write_voc_files(truth, found, tmp_path, year="2007", competition="comp3"):
        for line in path.read_text().splitlines():
            stem, score, *corners = line.split()
            x0, y0, x1, y1 = map(float, corners)
            box = [x0, y0, x1 - x0, y1 - y0]
            label = categories[path.stem.removeprefix("comp3_det_test_")]
            again.append({"image_id": ids[stem], "category_id": label, "score": float(score), "bbox": box})
    devkit = {**truth, "annotations": [
        {**one, "bbox": [one["bbox"][0] + 1, one["bbox"][1] + 1, one["bbox"][2] - 1, one["bbox"][3] - 1]}
        for one in truth["annotations"]
    ]}  # fmt: skip
    figures, from_files = voc_figures(truth, found), voc_figures(devkit, again, pixels="inclusive")
    assert from_files.per_class == pytest.approx(figures.per_class, nan_ok=True) and 50 < figures.mAP < 100


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": [{"id": 1}]}, "image 1 has no file_name"),
        ({"images": [{"id": 1, "file_name": "a/x.jpg"}, {"id": 2, "file_name": "b/x.jpg"}]}, "files of one name"),
        ({"images": [{"id": 1, "file_name": "my cat.jpg"}]}, "'my cat' has no name of VOC's kind"),
        ({"categories": [{"id": 1, "name": "cat/dog"}]}, "'cat/dog' cannot stand in a file's name"),
    ],
)
def test_what_the_server_could_not_read_is_refused(tmp_path: Path, change: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        write_voc_files({**TRUTH, **change}, [], tmp_path)


def test_without_truth_the_figures_are_none_and_a_sentence_says_why():
    summary = summarise(TRUTH, FOUND)
    assert "nothing to score against: the truth of 2 images has no object" in summary["note"]
    assert summary["coco"]["AP"] is None and summary["voc"]["mAP"] is None
    json.dumps(summary, allow_nan=False)
    some = [{"id": 1, "image_id": 2008000001, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]
    assert "note" not in summarise({**TRUTH, "annotations": some}, FOUND)
