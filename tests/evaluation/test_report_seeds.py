"""Several seeds of a backbone in the report: grouped, with mean and spread, and a verdict only where both have some."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from evaluation.coco import coco_figures
from evaluation.report import formats, write_report
from evaluation.report.collect import read_runs
from evaluation.report.seeds import MISSING, group_runs
from tests.evaluation.test_report import EMPTY_CLASS, make_predictions, make_run, make_truth


def runs_of(root: Path, backbone: str, share: float, seeds: int, first: int = 1) -> list[Path]:
    truth = make_truth()
    return [
        make_run(
            root / f"{backbone}_{seed}", backbone, make_predictions(truth, share=share, seed=first + seed), seed=seed
        )
        for seed in range(seeds)
    ]


def report_on(runs: list[Path], out: Path) -> tuple[dict[str, Any], str]:
    write_report(runs, out)
    return json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, Any], str]:
    root = tmp_path_factory.mktemp("seeds")
    runs = [*runs_of(root, "plain18", 0.35, 3), *runs_of(root, "r18", 0.95, 3, first=10)]
    return runs, *report_on(runs, root / "out")


def test_runs_that_differ_by_the_seed_alone_are_one_side(several):
    runs, content, markdown = several
    first, second = content["over_seeds"]["sides"]
    assert (first["label"], first["seeds"]) == ("plain18", [0, 1, 2]) and second["label"] == "r18"
    for side, directories in ((first, runs[:3]), (second, runs[3:])):
        for name in ("AP", "AP50", "APs"):
            values = [
                coco_figures(make_truth(), json.loads((one / "predictions.json").read_text()))[name]
                for one in directories
            ]
            told = side["figures"][name]
            if values[0] == values[0]:
                assert told["mean"] == pytest.approx(statistics.fmean(values))
                assert told["std"] == pytest.approx(statistics.stdev(values)) and told["n"] == 3
        assert (
            f"AP {formats.ap(side['figures']['AP']['mean'])} ± {formats.ap(side['figures']['AP']['std'])}" in markdown
        )


def test_with_seeds_on_both_sides_there_is_a_verdict(several):
    _, content, markdown = several
    (one,) = content["over_seeds"]["comparisons"]
    difference = one["differences"]["AP"]
    assert difference["seeds"] == [3, 3] and difference["covers"] == one["covers"] == "seeds and images"
    assert difference["low"] > 0 and difference["p_value"] < 0.05
    by = formats.ap(difference["estimate"])
    assert content["headline"] == f"r18 makes the better detector: {by}\u00a0AP above plain18, over 3 seeds"
    assert content["title"] == "plain18 against r18"
    assert f"{formats.signed(difference['estimate'])} (95 % interval" in content["accuracy_sentence"]
    assert content["accuracy_sentence"].endswith("the intervals cover seeds and images.")
    assert "no verdict" not in markdown and "Seeds: plain18 3 and r18 3." in " ".join(content["notes"])
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "VOC mAP"} == set(one["differences"])


def test_classes_have_corrected_p_values(several):
    _, content, markdown = several
    rows = {row["name"]: row["difference"] for row in content["over_seeds"]["comparisons"][0]["per_class"]}
    assert rows[EMPTY_CLASS] is None
    p_values = [rows[name]["p_value"] for name in ("ring", "star")]
    assert min(rows[name]["adjusted_p"] for name in ("ring", "star")) == pytest.approx(min(1, 2 * min(p_values)))
    assert re.search(r"\| ring \| \d+ \| .* to .* \|", markdown)


def test_equal_backbones_are_not_distinguishable_over_seeds(tmp_path):
    runs = [*runs_of(tmp_path, "r34", 0.7, 2, first=30), *runs_of(tmp_path, "r18", 0.7, 2, first=40)]
    content, markdown = report_on(runs, tmp_path / "out")
    assert "not distinguishable" in content["headline"] and "backbones" in content["headline"]
    assert "| not distinguishable |" in markdown


def test_with_one_seed_on_a_side_there_is_none(tmp_path):
    runs = [*runs_of(tmp_path, "plain18", 0.35, 1), *runs_of(tmp_path, "r18", 0.95, 2, first=10)]
    content, markdown = report_on(runs, tmp_path / "out")
    (one,) = content["over_seeds"]["comparisons"]
    assert one["covers"] == "images" and one["differences"]["AP"]["freedom"] is None
    assert content["over_seeds"]["sides"][0]["figures"]["AP"]["std"] is None
    assert MISSING in markdown and "image sampling only" in MISSING
    assert content["headline"].endswith("AP above plain18; one seed on a side gives no verdict on the backbones")


def test_seeds_of_one_backbone_are_not_compared_as_backbones(tmp_path):
    runs = [*runs_of(tmp_path / "good", "r18", 0.95, 1), *runs_of(tmp_path / "bad", "r18", 0.3, 2)[1:]]
    content, _ = report_on(runs, tmp_path / "out")
    assert len(content["over_seeds"]["sides"]) == 1 and not content["over_seeds"]["comparisons"]
    assert content["headline"].startswith("r18, seed 0 leads 2 seeds of one backbone")


def test_the_same_seed_again_is_no_second_draw(tmp_path):
    twice = [runs_of(tmp_path / name, "r18", 0.9, 2) for name in "ab"]
    runs, _ = read_runs([*twice[0], *twice[1]])
    sides = group_runs(runs)
    assert [side.places for side in sides] == [[0, 1], [2, 3]] and len({side.label for side in sides}) == 2
