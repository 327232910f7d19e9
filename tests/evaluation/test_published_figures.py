"""The figures that others published for their fixtures, to the last digit they give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.evaluation.cases import read_text_set
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures
from vertebra.evaluation.metrics.voc import voc_figures


@pytest.mark.parametrize(("iou_type", "results"), [("bbox", "fakebbox100"), ("segm", "fakesegm100")])
def test_cocoapi_example_gives_its_twelve_published_figures(fixtures_dir: Path, iou_type, results):
    folder = fixtures_dir / "coco_val2014_100"
    published = (folder / "val2014_fake_eval_res.txt").read_text().split(f"type={iou_type}")[1]
    expected = [float(value) for value in re.findall(r"\] = (\d\.\d+)", published)[:12]]
    predictions = folder / f"instances_val2014_{results}_results.json"
    figures = coco_figures(folder / "instances_val2014_100.json", predictions, iou_type=iou_type)
    assert [round(figures[name] / 100, 3) for name in FIGURES] == expected


def test_review_coco_case_gives_its_published_figures(fixtures_dir: Path):
    # Its areas are the boxes' areas, not the masks'.
    folder = fixtures_dir / "review" / "test_coco_eval"
    figures = coco_figures(folder / "gts" / "sampled_gts_bbox_area.json", folder / "cocoapi_results.json")
    expected = {"AP": 0.503647, "AP50": 0.696973, "AP75": 0.571667}
    assert {name: round(figures[name] / 100, 6) for name in expected} == expected


# Both text sets give corners x, y, x + w, y + h with both ends inside, so their IoU has the +1: "inclusive".


def test_person_set_gives_its_published_ap(fixtures_dir: Path):
    folder = fixtures_dir / "person_set"
    truth, predictions = read_text_set(folder / "groundtruths", folder / "detections")
    area = voc_figures(truth, predictions, metric="voc10", iou=0.3, pixels="inclusive")
    eleven = voc_figures(truth, predictions, metric="voc07", iou=0.3, pixels="inclusive")
    assert area.mAP == pytest.approx(24.56, abs=0.01)  # published as 24.56 and as 24.57
    assert round(eleven.mAP, 2) == 26.84


@pytest.mark.parametrize(
    ("iou", "eleven", "area"), [(0.1, 0.3333, 0.3372), (0.3, 0.2684, 0.2457), (0.5, 0.0303, 0.0222), (0.75, 0, 0)]
)
def test_review_case_1_gives_its_published_ap(fixtures_dir: Path, iou, eleven, area):
    folder = fixtures_dir / "review" / "test_case_1"
    truth, predictions = read_text_set(folder / "gts", folder / "dets")
    for metric, expected in (("voc07", eleven), ("voc10", area)):
        figures = voc_figures(truth, predictions, metric=metric, iou=iou, pixels="inclusive")
        assert round(figures.mAP / 100, 4) == expected


def test_the_pixel_convention_matters_to_these_sets(fixtures_dir: Path):
    folder = fixtures_dir / "review" / "test_case_1"
    truth, predictions = read_text_set(folder / "gts", folder / "dets")
    assert round(voc_figures(truth, predictions, metric="voc10", iou=0.3, pixels="exact").mAP, 2) == 22.54
