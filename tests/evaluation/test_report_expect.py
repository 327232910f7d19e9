"""Published numbers beside those found here, and sides that are files of predictions alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluation.report_cases import (
    make_predictions,
    make_truth,
    other_truth,
    rows_of,
    trained_run,
    write_images,
)
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.report.expect import read_expectations
from vertebra.evaluation.report.render import write_report
from vertebra.ground import formats
from vertebra.ground.errors import UserError
from vertebra.recipes.installed import INSTALLED


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [trained_run(root, "vgg16", 0.4), trained_run(root, "r101", 0.9, 2)]


def ap_of(run: Path, name: str = "AP") -> float:
    return json.loads((run / "evaluation.json").read_text())["coco"][name]


def file_of(path: Path, *entries: dict[str, Any], **others: Any) -> Path:
    path.write_text(yaml.safe_dump({"expectations": list(entries), **others} if others else list(entries)))
    return path


def test_each_number_is_met_missed_or_not_here(runs, tmp_path):
    ap, ap50, vgg = ap_of(runs[1]), ap_of(runs[1], "AP50"), ap_of(runs[0])
    file = file_of(
        tmp_path / "expect.yaml",
        {"side": "r101", "figure": "AP", "value": ap + 0.4, "tolerance": 0.5, "source": "a paper"},
        {"side": "r101", "figure": "AP50", "value": ap50 + 0.6, "tolerance": 0.5},
        {"difference": ["r101", "vgg16"], "figure": "AP", "value": ap - vgg - 0.1, "tolerance": 0.2},
        {"difference": ["vgg16", "r101"], "figure": "AP", "value": ap - vgg, "tolerance": 0.2},
        {"side": "r50", "figure": "AP", "value": 1, "tolerance": 1},
        {"side": "vgg16", "figure": "flops", "value": "1.8e9", "tolerance": "1e8"},
        {"side": "vgg16", "figure": "latency_s", "value": 1, "tolerance": 1},
        source="its table",
    )
    written = write_report(runs, tmp_path / "out", expect=file)
    (content,) = written.contents
    outcomes = content.expectations
    assert [one.outcome for one in outcomes] == ["met", "missed", "met", "missed", "not here", "met", "not here"]
    assert [one.source for one in outcomes][:2] == ["a paper", "its table"]
    assert outcomes[2].ours == pytest.approx(ap - vgg) and outcomes[3].ours == pytest.approx(vgg - ap)
    assert len(written.expectations_missed) == 2
    assert written.expectations_missed[0] == (f"r101: AP50 is {ap50:.1f}, expected {ap50 + 0.6:.1f} ± 0.5 (its table)")
    row = rows_of((tmp_path / "out" / "report.md").read_text())["r101, AP50"]
    assert "| missed |" in row and f"{ap50:.1f}" in row
    assert 'id="expected"' in (tmp_path / "out" / "report.html").read_text()


def test_without_expectations_there_is_no_such_section(report):
    assert report.expectations_missed == () and 'id="expected"' not in report.page.read_text()


def test_expectations_of_another_head_are_left_to_it_or_said_to_be_of_none(tmp_path):
    entries = [{"side": "r101", "figure": "AP", "value": 0, "tolerance": 0, "head": head} for head in ("fpn", "fnp")]
    file = file_of(tmp_path / "expect.yaml", *entries, {**entries[1], "figure": "AP50"})
    runs = {head: trained_run(tmp_path / head, "r101", 0.5, protocol={"model.body": head}) for head in ("c4", "fpn")}
    alone = write_report([runs["c4"]], tmp_path / "alone", expect=file)
    assert alone.expectations_missed == ()
    assert alone.expectations_elsewhere == (
        "1 expectation is for head fpn, which no run here has (head c4), so nothing was compared with it",
        "2 expectations are for head fnp, which no run here has (head c4), so nothing was compared with them",
    )
    assert [(one.what, one.outcome) for one in alone.contents[0].expectations] == [
        ("r101 (fpn)", "not here"), ("r101 (fnp)", "not here"), ("r101 (fnp)", "not here")
    ]  # fmt: skip
    both = write_report(list(runs.values()), tmp_path / "both", expect=file)
    assert len(both.expectations_missed) == 1 and both.expectations_missed[0].startswith("r101 (fpn): AP is")
    assert both.expectations_elsewhere == (
        "2 expectations are for head fnp, which no run here has (heads c4 and fpn), so nothing was compared with them",
    )


def test_a_difference_of_costs_has_its_sign_and_its_unit(runs, tmp_path):
    entry = {"difference": ["r101", "vgg16"], "figure": "flops", "value": "-2.34e9", "tolerance": "1e8"}
    written = write_report(runs, tmp_path / "out", expect=file_of(tmp_path / "expect.yaml", entry))
    assert written.expectations_missed[0].replace("\u00a0", " ") == (
        "r101 \u2212 vgg16: flops is 0, expected \u22122.34 G ± 100 M"
    )
    assert formats.signed_by(formats.seconds, 0.012) == "+12.0\u00a0ms"


WRONG = [  # text of the file, what its message says
    ("[{side: a, figure: VOC 11, value: 1, tolerance: 1}]", "1: figure is 'VOC 11'; did you mean VOC 11-point"),
    ("[{side: a, figure: zzz, value: 1, tolerance: 1}]", "figure is 'zzz'; choose from AP, AP50"),
    ("[{side: a, figure: AP, value: x, tolerance: 1}]", "value is 'x'; it should be a valid number"),
    ("[{side: a, figure: AP, value: .nan, tolerance: 1}]", "value is nan; it should be a finite number"),
    ("[{side: a, figure: AP, value: yes, tolerance: 1}]", "value is True; it should be a number"),
    ("[{side: a, figure: AP, value: 1}]", "1: tolerance is missing"),
    ("[{side: a, figure: AP, value: 1, tolerance: -1}]", "tolerance is -1; it should be greater than or equal to 0"),
    ("[{side: a, figure: AP, value: 1, tolerence: 1}]", "tolerance is missing|no field tolerence"),
    ("[{side: a, figure: AP, value: 1, tolerance: 1, sauce: b}]", "there is no field sauce; did you mean source"),
    ("[{figure: AP, value: 1, tolerance: 1}]", "either side: NAME or difference"),
    ("[{side: a, difference: [a, b], figure: AP, value: 1, tolerance: 1}]", "either side: NAME or difference"),
    ("[{difference: a, figure: AP, value: 1, tolerance: 1}]", "difference is 'a'; it should be a valid tuple"),
    ("[{difference: [a], figure: AP, value: 1, tolerance: 1}]", "difference.2 is missing"),
    ("[AP]", "1: 'AP' should be a mapping"),
    ("", "a list of expectations"),
    ("a: [", "not valid YAML"),
    ("expect: []", "a list of expectations"),
    ("expectations: []", "expectations: List should have at least 1 item"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path, text, problem):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"wrong\.yaml: .*({problem})"):
        read_expectations(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        read_expectations(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted((INSTALLED / "published").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_published_figures_that_come_along_are_whole(path):
    expectations = read_expectations(path)
    values = {(one.sides, one.figure, one.head): one.value for one in expectations}
    for (sides, *of), value in values.items():
        if len(sides) == 2:
            assert value == pytest.approx(values[(sides[:1], *of)] - values[(sides[1:], *of)])
    assert all(one.source for one in expectations) and path.read_text().startswith("# ")


def test_anyones_predictions_can_be_a_side(runs, tmp_path):
    truth = make_truth()
    found = make_predictions(truth, share=0.7, seed=9)
    file = tmp_path / "yolo.json"
    file.write_text(json.dumps(found))
    (content,) = write_report(runs[1:], tmp_path / "out", predictions={"a YOLO": file}).contents
    run, yolo = content.sides
    assert yolo.label == "a YOLO" and yolo.file and not run.file
    assert yolo.figures["AP"].mean == pytest.approx(coco_figures(truth, found)["AP"])
    assert yolo.cost.measures["flops"] is None and yolo.weights == "unknown"
    assert content.first == [
        "a YOLO is a file of predictions only: how the detector was trained is not known, so differences are between "
        "detectors, not between backbones."
    ]
    assert content.headline.startswith("r101 and a YOLO cannot be told apart: ")
    assert content.caveat.endswith("their training protocols are not known to be equal.")
    assert content.fronts == {} and content.training[1].loss == []
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert rows_of(markdown)["FLOPs"].split("|")[3].strip() == formats.NONE


def test_several_files_of_a_side_are_its_seeds_and_still_give_no_verdict(runs, tmp_path):
    truth = make_truth()
    files: dict[str, list[Path]] = {}
    for name, share in (("first", 0.3), ("second", 0.95)):
        for seed in range(3):
            path = tmp_path / f"{name}{seed}.json"
            path.write_text(json.dumps(make_predictions(truth, share=share, seed=seed + 20)))
            files.setdefault(name, []).append(path)
    write_images(tmp_path / "pictures")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    pictures = tmp_path / "pictures"
    (content,) = write_report(
        [], tmp_path / "out", predictions=files, truth=tmp_path / "truth.json", images=pictures
    ).contents
    assert [len(side.seeds) for side in content.sides] == [3, 3]
    assert content.lead and content.lead.covers == "seeds and images"
    assert content.lead.differences["AP"].distinguishable
    assert content.headline.startswith("second beats first by ")
    assert content.caveat.endswith("their training protocols are not known to be equal.")
    assert content.gallery.images_not_found == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The cost of these detectors is not known" in page and "How these detectors were trained is not" in page


REFUSED = [  # predictions by side, of the files below; the truth; whether runs are given too; what the message says
    ({"a": ["empty"]}, None, False, "give the truth as well"),
    ({"r101": ["empty"]}, None, True, "a side is called r101 already; give the predictions another name"),
    ({"a": ["one", "one"]}, None, True, "is given twice as a; give one for each seed"),
    ({"a": ["one", "link"]}, None, True, "given twice"),
    ({"a": ["one", "copy"]}, None, True, "both have the same content"),
    ({"a": ["nowhere"]}, None, True, r"nowhere\.json: does not exist"),
    ({"a": ["empty"]}, "other", True, "differ in their annotations"),
]


@pytest.mark.parametrize(("sides", "truth", "beside_runs", "problem"), REFUSED)
def test_predictions_that_cannot_be_a_side_are_refused(runs, tmp_path, sides, truth, beside_runs, problem):
    found = json.dumps(make_predictions(make_truth(), share=0.5, seed=1))
    for name, text in (("empty", "[]"), ("one", found), ("copy", found), ("other", json.dumps(other_truth()))):
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "link.json").symlink_to(tmp_path / "one.json")
    predictions = {side: [tmp_path / f"{name}.json" for name in names] for side, names in sides.items()}
    with pytest.raises(UserError, match=problem):
        write_report(
            runs if beside_runs else [],
            tmp_path / "out",
            predictions=predictions,
            truth=tmp_path / f"{truth}.json" if truth else None,
        )
