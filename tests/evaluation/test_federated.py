"""LVIS' figures against lvis-api's own."""

from __future__ import annotations

import copy
import json
import sys
import types

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of, with_masks
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.federated import FIGURES
from vertebra.ground.errors import UserError


def as_lvis(truth, seed):
    """The truth with LVIS' lists and frequencies drawn by lot, and without crowds and difficult objects."""
    random = np.random.default_rng(seed)
    ids = [category["id"] for category in truth["categories"]]
    there = {image["id"]: set() for image in truth["images"]}
    for entry in truth["annotations"]:
        there[entry["image_id"]].add(entry["category_id"])
        entry |= {"iscrowd": 0, "difficult": 0}
    for image in truth["images"]:
        present = sorted(there[image["id"]])
        absent = [id_ for id_ in ids if id_ not in present]
        image["neg_category_ids"] = [id_ for id_ in absent if random.random() < 0.6]
        image["not_exhaustive_category_ids"] = [id_ for id_ in ids if random.random() < 0.3]
    for category in truth["categories"]:
        category["frequency"] = "rcf"[category["id"] % 3]
    return truth


@pytest.fixture
def lvis_api(monkeypatch):
    """lvis-api without its drawing, which asks for matplotlib, and with a name that numpy has given up."""
    drawing = types.ModuleType("lvis.vis")
    drawing.LVISVis = None
    monkeypatch.setitem(sys.modules, "lvis.vis", drawing)
    monkeypatch.setattr(np, "float", float, raising=False)
    return pytest.importorskip("lvis", reason="pip install --no-deps lvis")


def by_lvis_api(lvis_api, path, truth, predictions, iou_type):
    path.write_text(json.dumps(truth))
    index = lvis_api.LVIS(str(path))
    judge = lvis_api.LVISEval(index, lvis_api.LVISResults(index, copy.deepcopy(predictions)), iou_type)
    judge.run()
    return {"AR300" if name == "AR@300" else name.removesuffix("@300"): value for name, value in judge.results.items()}


@pytest.mark.parametrize(
    "iou_type, case",
    [("bbox", {}), ("bbox", {"levels": 5}), ("bbox", {"images": 3, "classes": 3, "most_guesses": 900}), ("segm", {})],
)
@pytest.mark.parametrize("seed", range(2))
def test_figures_are_those_of_lvis_api(tmp_path, lvis_api, seed, case, iou_type):
    truth, predictions = random_case(seed, **{"classes": 7, **case})
    truth = as_lvis(truth, seed)
    if iou_type == "segm":
        truth, predictions = with_masks(truth, predictions, boxes=False)
    expected = by_lvis_api(lvis_api, tmp_path / "truth.json", truth, predictions, iou_type)
    found = coco_figures(truth, predictions, iou_type=iou_type, federated=True)
    assert tuple(found.figures) == FIGURES
    assert {name: 100 * expected[name] if expected[name] >= 0 else np.nan for name in FIGURES} == pytest.approx(
        found.figures, abs=1e-10, nan_ok=True
    )
    assert found.figures != coco_figures(truth, predictions, iou_type=iou_type).figures


def lvis_truth(**lists):
    truth = truth_of([thing([0, 0, 10, 10])], classes=("cat", "dog"))
    truth["images"][0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [], **lists}
    for category in truth["categories"]:
        category["frequency"] = "f"
    return truth


@pytest.mark.parametrize(
    "lists, wrong, ap",
    [
        ({}, guess([50, 50, 9, 9], 0.9), 50),  # of a class that is there: wrong
        ({}, guess([50, 50, 9, 9], 0.9, category=2), 100),  # of one that nobody has looked for: left out
        ({"not_exhaustive_category_ids": [1]}, guess([50, 50, 9, 9], 0.9), 100),  # not every one was marked
    ],
)
def test_what_counts_as_wrong(lists, wrong, ap):
    found = coco_figures(lvis_truth(**lists), [guess([0, 0, 10, 10], 0.5), wrong], federated=True)
    assert found["AP"] == found["APf"] == pytest.approx(ap) and np.isnan(found["APr"])


@pytest.mark.parametrize("part, key", [("images", "neg_category_ids"), ("categories", "frequency")])
def test_truth_of_another_kind_is_refused(part, key):
    truth = lvis_truth()
    del truth[part][0][key]
    with pytest.raises(UserError, match=rf"has no .*{key}.*metric coco"):
        coco_figures(truth, [], federated=True)
