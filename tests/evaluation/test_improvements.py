"""The cumulative table: figures from the rows' files, steps from the one comparison, the paper's beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.cases import random_case
from vertebra.evaluation.metrics.summary import summarise
from vertebra.evaluation.statistics.improvements import Evaluated, improvement_table, to_markdown
from vertebra.evaluation.statistics.resampling import compare, draw_counts, resample_coco
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json


def write(directory: Path, truth: dict, predictions: list, tested: str) -> Path:
    directory.mkdir()
    evaluation = summarise(truth, predictions) | {"cost": {"time_per_image_s": 0.5, "flops": 7}, "tested": tested}
    for name, value in (("truth", truth), ("predictions", predictions), ("evaluation", evaluation)):
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


def three(tmp_path: Path) -> tuple[dict, list[list], list[Evaluated]]:
    truth, predictions = random_case(0)
    files = [predictions, predictions[::2], predictions[1:]]
    rows = [
        Evaluated(key, title, write(tmp_path / str(place), truth, found, key))
        for place, (key, title, found) in enumerate(
            zip(("baseline", "refinement", "flip"), ("baseline", "+ box refinement", "+ mirrored images"), files)
        )
    ]
    return truth, files, rows


def test_the_table_has_each_rows_figures_steps_and_the_papers(tmp_path: Path) -> None:
    truth, files, rows = three(tmp_path)
    table = improvement_table(rows, resamples=50)
    assert [row["paper"] for row in table] == [{"AP": 27.2, "AP50": 48.4}, {"AP": 29.9, "AP50": 49.9}, None]
    assert table[0]["step"] == {"AP": None, "AP50": None} and table[1]["tested"] == "refinement"
    for place in (1, 2):
        pair = [resample_coco(truth, found, draw_counts(12, 50, 0))["AP"] for found in files[place - 1 : place + 1]]
        expected = compare(pair[:1], pair[1:])
        assert table[place]["step"]["AP"] == as_json(expected)
        gained = table[place]["figures"]["AP"] - table[place - 1]["figures"]["AP"]
        assert expected.estimate == pytest.approx(gained, abs=1e-9)
    text = to_markdown(table)
    lines = text.splitlines()
    assert len(lines) == 5 and all(line.count("|") == lines[0].count("|") for line in lines)
    assert f"{expected.estimate:+.1f} ({expected.low:+.1f} .. {expected.high:+.1f})" in lines[4]
    assert "| 29.9 | 49.9 |" in lines[3] and "| - | - |" in lines[4]


def test_rows_of_different_images_make_no_table(tmp_path: Path) -> None:
    _, _, rows = three(tmp_path)
    path = rows[1].directory / "truth.json"
    truth = json.loads(path.read_text())
    path.write_text(json.dumps({**truth, "images": truth["images"][:-1]}))
    with pytest.raises(UserError, match="different test images"):
        improvement_table(rows)
    path.write_text(json.dumps({**truth, "annotations": []}))
    with pytest.raises(UserError, match="no object to find"):
        improvement_table(rows[1:])
