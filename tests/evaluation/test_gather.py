"""The same evaluation on 1, 2 and 3 processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.gather_worker import ORDER, evaluate
from vertebra.evaluation.predict.inference import gather_by_image, in_order
from vertebra.ground.errors import UserError

WORKER = Path(__file__).with_name("gather_worker.py")


def run_group(size, folder):
    """What each process got, by rank."""
    command = [sys.executable, str(WORKER)]
    started = [subprocess.Popen([*command, str(rank), str(size), str(folder)]) for rank in range(size)]
    try:
        assert [process.wait(timeout=120) for process in started] == [0] * size
    finally:
        for process in started:
            process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_give_what_one_gives(size, tmp_path):
    alone = evaluate(0, 1)
    group = run_group(size, tmp_path)

    found = group[0]["detections"]
    assert [(row["image_id"], row["category_id"]) for row in found] == [
        (row["image_id"], row["category_id"]) for row in alone["detections"]
    ]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in alone["detections"]], abs=1e-5)
    assert found == alone["detections"]
    assert len({row["segmentation"]["counts"] for row in found}) > 20
    assert [other["detections"] for other in group[1:]] == [None] * (size - 1)

    for one in group:
        assert (one["ids"], one["ranks"]) == (alone["ids"], alone["ranks"])
    assert all("7.jpg is cut short" in one["fault"] for one in group)
    assert group[0]["fault"].startswith(f"UserError: process {size - 1} failed")
    assert group[-1]["fault"].startswith("OSError")


def test_detections_stand_in_the_data_sets_order_best_first():
    found = evaluate(0, 1)["detections"]
    images = list(dict.fromkeys(row["image_id"] for row in found))
    assert images == [image for image in ORDER if image % 7]
    for image in images:
        scores = [row["score"] for row in found if row["image_id"] == image]
        assert scores == sorted(scores, reverse=True) and len(scores) == image % 7


def test_without_an_order_images_stand_by_id():
    assert in_order({3: "c", 1: "a", 2: "b"}, None) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_lost_image_is_an_error():
    with pytest.raises(UserError, match=r"1 of 3 images were never evaluated \(first: image id 2\)"):
        in_order({1: "a", 3: "c"}, [1, 2, 3])


def test_alone_a_fault_is_raised_as_it_is():
    with pytest.raises(KeyError):
        gather_by_image({}, KeyError("x"), everywhere=True)
