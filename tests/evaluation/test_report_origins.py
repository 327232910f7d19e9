"""Unequal pre-training is the report's first line, in each of its files; equal one is not called unequal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report_cases import WEIGHTS, rows_of, trained_run
from vertebra.evaluation.report.content import Content
from vertebra.evaluation.report.render import write_report

TOGETHER = "differences come from backbones and pre-training together."
FULL = {
    **WEIGHTS,
    "training_data": {"name": "ImageNet", "images": 1_281_167},
    "epochs": 90.0,
    "iterations": 450_000,
    "protocol": {"solver.batch_size": 256, "solver.lr": 0.1, "solver.accumulate": 2},  # two parts of 128
}


def report_on(root: Path, weights: dict[str, Any]) -> Content:
    """The content of a report on one run a backbone."""
    runs = [trained_run(root, name, 0.5, draw, weights=one) for draw, (name, one) in enumerate(weights.items())]
    (content,) = write_report(runs, root / "out").contents
    return content


def test_equal_pre_training_on_two_backbones_is_not_called_unequal(tmp_path):
    content = report_on(tmp_path, {"r18": WEIGHTS, "r34": WEIGHTS})
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert content.first == [] and markdown.startswith("# ")
    assert [side.pretraining.top1 for side in content.sides] == [81.25, 81.25]
    assert "objects" in rows_of(markdown)["Data"] and "81.2" in rows_of(markdown)["Top-1"]


def test_unequal_budgets_are_the_first_line_of_every_file(tmp_path):
    (line,) = report_on(tmp_path, {"vgg16": {**FULL, "epochs": 74.0, "iterations": 370_000}, "r101": FULL}).first
    markdown, page = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert line == (
        "Pre-training is not equal (vgg16: ImageNet, 1.28\u00a0M images, 74 epochs, 94.7\u00a0M images seen; "
        f"r101: ImageNet, 1.28\u00a0M images, 90 epochs, 115\u00a0M images seen): {TOGETHER}"
    )
    assert markdown.replace("\\", "").startswith(f"**{' '.join(line.split())}")
    body = page[page.index("<main>") :]
    assert line in body and body.index(line) < body.index("<h1>")
    assert rows_of(markdown)["Epochs"].startswith("| Epochs | 74 | 90 |")
    assert "94.7 M | 115 M" in rows_of(markdown)["Images seen"].replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"source": "none"}, "r18: random initialisation"),
        ({**FULL, "training_data": {"name": "Places", "images": 1_281_167}}, "r18: Places"),
        (
            {**FULL, "protocol": {**FULL["protocol"], "solver.lr": 0.01}, "protocol_hash": "bb"},
            "recipes differ in solver.lr: 0.01 against 0.1",
        ),
    ],
)
def test_data_length_and_recipe_have_to_be_equal(tmp_path, other, difference):
    (line,) = report_on(tmp_path, {"r18": other, "r34": FULL}).first
    assert line.startswith("Pre-training is not equal (") and difference in line and line.endswith(TOGETHER)


def test_weights_without_provenance_are_not_known_to_be_equal(tmp_path):
    (line,) = report_on(tmp_path, {"r18": {"source": "torchvision"}, "r34": {"source": "torchvision"}}).first
    assert line.startswith("Pre-training is not known to be equal (r18 and r34: torchvision, data and length unknown)")


def test_random_initialisation_on_all_sides_is_equal(tmp_path):
    assert report_on(tmp_path, {"r18": {"source": "none"}, "r34": {"source": "none"}}).first == []
