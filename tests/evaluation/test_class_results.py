"""Files of class predictions read back, and the messages about wrong lists of synsets."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from vertebra.evaluation.metrics.class_results import ilsvrc_text, predictions_text, read_synsets, results_table
from vertebra.evaluation.predict.classes import ClassPredictions
from vertebra.ground.errors import UserError

CLASSES = ("ant", "bee", "cow")
FILES = ("val/cow/2.jpg", "val/ant/3.jpg", "val/bee/1.jpg")


@pytest.fixture
def predictions() -> ClassPredictions:
    return ClassPredictions(
        image_ids_N=np.array([0, 1, 2]),
        labels_N=np.array([2, 0, -1]),
        rank_N=np.array([0, 2, -1]),
        best_NK=np.array([[2, 0, 1], [1, 2, 0], [1, 0, 2]]),
        probabilities_NK=np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]),
        classes=3,
    )


def test_predictions_read_back_from_json_lines(predictions):
    rows = [json.loads(line) for line in predictions_text(predictions, FILES, CLASSES, ".jsonl").splitlines()]
    assert rows[1] == {
        "image": "val/ant/3.jpg",
        "truth": "ant",
        "rank": 3,
        "top5": ["bee", "cow", "ant"],
        "probabilities": [0.75, 0.25, 0.0],
    }
    assert rows[0]["rank"] == 1 and rows[2]["truth"] is None and rows[2]["rank"] is None


def test_predictions_read_back_from_csv(predictions):
    rows = list(csv.DictReader(io.StringIO(predictions_text(predictions, FILES, CLASSES, ".csv"))))
    assert [row["rank"] for row in rows] == ["1", "3", ""] and [row["class1"] for row in rows] == ["cow", "bee", "bee"]
    assert float(rows[0]["probability2"]) == 0.25
    with pytest.raises(UserError, match=r"\.jsonl or \.csv, not as '\.txt'"):
        predictions_text(predictions, FILES, CLASSES, ".txt")


def test_a_submission_stands_in_the_order_of_the_images_names(predictions):
    assert ilsvrc_text(predictions, (30, 10, 20), FILES) == "10 30 20\n20 30 10\n10 20 30\n"


@pytest.mark.parametrize(
    "text",
    ["cow 20\nant 30\n\ndog 7\nbee 10\n", "cow,20\nbee,10\nant,30\n"],
)
def test_synsets_with_ids(tmp_path: Path, text):
    (tmp_path / "synsets.txt").write_text(text)
    assert read_synsets(tmp_path / "synsets.txt", CLASSES) == [30, 10, 20]


def test_synsets_alone_count_their_lines(tmp_path: Path):
    (tmp_path / "synsets.txt").write_text("cow\ndog\nant\nbee\n")
    assert read_synsets(tmp_path / "synsets.txt", CLASSES) == [3, 4, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ant 1\nbee 2\n", "has no id for 1 of the network's 3 classes .first: cow"),
        ("ant 1\nbee\ncow 3\n", "line 2: 'bee' is neither"),
        ("ant tench fish\n", "line 1: 'ant tench fish' is neither"),
        ("ant one\n", "line 1"),
        ("ant 1\nant 2\n", "line 2: the class ant has an id already"),
        ("ant 1\nbee 1\ncow 2\n", "two classes the same id"),
    ],
)
def test_wrong_synsets_are_named_by_line(tmp_path: Path, text, sentence):
    (tmp_path / "synsets.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_synsets(tmp_path / "synsets.txt", CLASSES)


def test_synsets_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "meta.mat").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"meta\.mat is not a text file"):
        read_synsets(tmp_path / "meta.mat", CLASSES)


def test_the_table_has_a_line_for_each_result():
    one = {"weights": "a.safetensors", "view": "multiscale", "sides": [128, 146], "size": 128, "flip": True}
    one |= {"error1": 20.0, "error5": 5.0, "error1_interval": (18.0, 22.0), "error5_interval": (4, 6)}
    one |= {"images_per_s": 12.34}
    both = {"weights": ["a", "b"], "view": "1crop", "images_per_s": 5.0}
    header, first, second = results_table([one, both]).splitlines()
    assert header.split()[:2] == ["weights", "view"]
    assert first.split()[:6] == ["a.safetensors", "multiscale", "128", "146", "whole", "yes"]
    assert "20.00 [18.00, 22.00]" in first and "5.00 [4.00, 6.00]" in first and first.endswith("12.3")
    assert second.startswith("ensemble of 2") and "no labels" in second
