"""The report on finished runs: same figures in its three files, nothing from outside, and sentences for bad input."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.cases import with_masks
from tests.evaluation.report_cases import (
    EMPTY_CLASS,
    PROTOCOL,
    WEIGHTS,
    make_predictions,
    make_run,
    make_truth,
    other_truth,
    rows_of,
    trained_run,
)
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.report import latex
from vertebra.evaluation.report.content import ClassRow, Content
from vertebra.evaluation.report.page import write_all
from vertebra.evaluation.report.render import Written, write_report
from vertebra.evaluation.report.runs import read_run
from vertebra.evaluation.report.sides import label_runs
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.statistics.comparison import holm
from vertebra.evaluation.why.errors import KINDS
from vertebra.evaluation.why.explain import explain, judge
from vertebra.ground import formats
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json


@pytest.fixture(scope="module")
def written(report: Written) -> Path:
    assert report.page.name == "report.html"
    return report.page.parent


@pytest.fixture(scope="module")
def content(report: Written) -> Content:
    (content,) = report.contents
    return content


def test_report_json_is_the_content(written: Path, content: Content) -> None:
    assert json.loads((written / "report.json").read_text()) == json.loads(json.dumps(as_json(content)))


def test_every_file_shows_the_same_figures(content: Content, written: Path, pair: list[Path]) -> None:
    page, markdown, tex = ((written / f"report.{kind}").read_text() for kind in ("html", "md", "tex"))
    rows = rows_of(markdown)
    for side, directory in zip(content.sides, pair):
        evaluation = json.loads((directory / "evaluation.json").read_text())
        for name in ("AP", "AP50", "AP75", "APs", "AR100"):
            assert side.figures[name] == Spread(pytest.approx(evaluation["coco"][name]), None, 1)
        for name, metric in (("VOC 11-point", "voc07"), ("VOC area", "voc10")):
            expected = voc_figures(
                make_truth(), json.loads((directory / "predictions.json").read_text()), metric=metric
            )
            assert side.figures[name].mean == pytest.approx(expected.mAP)
    for name in content.figures:
        cells = re.search(rf'<th scope="row">{name}<.*?</tr>', page, re.S)
        line = next(line for line in tex.splitlines() if line.startswith(f"{name} "))
        assert cells
        difference = content.differences_to_baseline[0].differences[name]
        texts = [str(side.figures[name]) for side in content.sides]
        for text in (*texts, difference.text() if difference else formats.NONE):
            assert f">{text}<" in cells[0]
            assert text in rows[name]
            assert latex.escape(text) in line
    for row in content.per_class:
        if row.difference:
            assert row.difference.text() in rows[row.name]
            assert f">{row.difference.text()}<" in page
    assert sum(bool(row.difference) for row in content.per_class) == 2


def test_classes_sizes_recall_and_curves_are_pycocotools_own(content: Content, pair: list[Path]) -> None:
    for place, directory in enumerate(pair):
        figures = coco_figures(directory / "truth.json", directory / "predictions.json")
        for row in content.per_class:
            if row.truths:
                assert row.truths == figures.truths[row.name]
                assert row.figures["AP"][place].mean == pytest.approx(figures.per_class[row.name]["AP"])
                assert row.figures["AP50"][place].mean == pytest.approx(figures.per_class[row.name]["AP50"])
                curve = content.precision_recall.per_class[row.name][place]
                assert curve == pytest.approx(figures.curves[row.name], abs=1e-4)
        for size in content.per_size:
            expected = figures[size.figure]
            assert size.AP[place].mean == (pytest.approx(expected) if expected == expected else None)


def test_errors_are_tides_and_their_differences_add_up(content: Content, written: Path, pair: list[Path]) -> None:
    reasons = content.reasons.to_dict()
    errors = reasons["errors"]
    explained = [explain(judge(directory / "truth.json", directory / "predictions.json")) for directory in pair]
    assert [kind["kind"] for kind in errors["kinds"] if not kind["special"]] == list(KINDS)
    for kind in errors["kinds"]:
        part = "special" if kind["special"] else "lost"
        lost = [one["errors"][part][kind["kind"]] for one in explained]
        assert kind["lost"] == pytest.approx(lost)
        difference = errors["differences"][0]["kinds"][kind["kind"]]
        assert difference.estimate == pytest.approx(lost[1] - lost[0])
        assert difference.low <= difference.estimate <= difference.high
        if not kind["special"]:
            assert kind["counts"] == [one["errors"]["counts"][kind["kind"]] for one in explained]
    assert reasons["calibration"][1]["ece"] == pytest.approx(explained[1]["calibration"]["ece"])
    assert "Calibration" in (written / "report.md").read_text()


def test_mask_ap_is_shown_where_all_runs_have_it(tmp_path: Path) -> None:
    runs = []
    for name, share in (("r18", 0.4), ("r50", 0.9)):
        truth, found = with_masks(make_truth(), make_predictions(make_truth(), share=share, seed=1), boxes=True)
        runs.append(make_run(tmp_path / name, name, found, truth=truth))
    (content,) = write_report(runs, tmp_path / "out").contents
    row = rows_of((tmp_path / "out" / "report.md").read_text())["mask AP"]
    for side, directory in zip(content.sides, runs):
        figure = json.loads((directory / "evaluation.json").read_text())["coco_segm"]["AP"]
        assert side.figures["mask AP"].mean == pytest.approx(figure) and formats.ap(figure) in row
    first, second = (side.figures["mask AP"].mean for side in content.sides)
    assert formats.signed(second - first) in row


def test_mask_ap_is_not_shown_of_boxes(content: Content, written: Path) -> None:
    assert "mask AP" not in (written / "report.md").read_text()
    assert "mask AP" not in content.figures and all("mask AP" not in side.figures for side in content.sides)


def test_with_one_seed_each_the_report_is_about_detectors(content: Content, written: Path) -> None:
    assert content.lead
    difference = content.lead.differences["AP"]
    assert difference and difference.low > 0 and difference.distinguishable and difference.covers == "images"
    half = difference.high - difference.estimate
    assert content.headline.replace("\u00a0", " ") == (
        f"r18 beats plain18 by {difference.estimate:.1f} ± {half:.1f} AP (1 seed each)"
    )
    assert content.caveat == "This compares two trained detectors, not their backbones: both have only one seed."
    assert any("intervals cover the choice of test images only" in note for note in content.notes)
    assert any("generator 5eed" in note for note in content.notes)
    page = html.unescape((written / "report.html").read_text())
    assert all(text in page for text in (content.headline, content.caveat, *content.sentences, *content.notes))
    assert "r18 needs the same FLOPs (1.82\u00a0G), the same time per image" in content.sentences[1]


def test_the_page_asks_nothing_from_outside_itself(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", page)
    references = re.findall(r'(?:src|href|action|srcset|poster)="([^"]*)"', page)
    assert references and all(re.match(r"#|data:", reference) for reference in references)
    assert "default-src 'none'" in page
    assert len(page) < 13_000_000


def test_images_and_charts_have_a_text_for_those_who_cannot_see_them(written: Path) -> None:
    page = (written / "report.html").read_text()
    for tag in re.findall(r"<svg[^>]*>", page):
        assert 'aria-hidden="true"' in tag or re.search(r'role="img"[^>]*aria-label="[^"]+"', tag), tag
    for tag in re.findall(r"<th[ >][^>]*", page):
        assert "scope=" in tag


def test_tables_in_markdown_are_whole(written: Path) -> None:
    lines = (written / "report.md").read_text().splitlines()
    rules = [place for place, line in enumerate(lines) if line.startswith("|---")]
    assert len(rules) >= 3
    for place in rules:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines[place - 1 : place + 2]}
        assert len(cells) == 1 and cells != {0}, lines[place - 1 : place + 2]


def test_names_from_the_data_are_escaped(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert "never &lt;b&gt;seen" in page and "<b>seen" not in page
    assert r"never \<b\>seen\</b\> \| here" in (written / "report.md").read_text()


def test_a_class_without_objects_is_shown_without_a_figure(content: Content) -> None:
    nothing = [Spread(None, None, 1)] * 2
    assert content.per_class[-1] == ClassRow(EMPTY_CLASS, 0, {"AP": nothing, "AP50": nothing}, None)
    assert EMPTY_CLASS not in content.precision_recall.per_class


def test_images_that_differ_most_come_first_and_both_sides_are_there(
    content: Content,
) -> None:
    gallery = content.gallery
    assert gallery and gallery.better_first + gallery.better_second + gallery.equal == 12
    sizes = [abs(image.difference) for image in gallery.images]
    assert sizes == sorted(sizes, reverse=True)
    assert gallery.images_not_found == 0


def test_training_curves_come_from_the_metrics(content: Content) -> None:
    curve = content.training[0]
    assert curve.runs[0].loss[0] == (1.0, 2.0) and curve.runs[0].loss[-1][0] == 39.0
    assert curve.loss[-1][0] == 39.0
    assert curve.figures["AP"] == [(20.0, 10.0), (39.0, 19.5)]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    write_all(tmp_path, {"run": 1}, "# old", "<p>old")

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_all(tmp_path, {"run": 2}, "# new", "<p>new")
    assert json.loads((tmp_path / "report.json").read_text()) == {"run": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


REFUSED = [  # the second run's provenance, truth or protocol; files written over; what the message says
    ({"protocol": {**PROTOCOL, "solver.lr": 0.01, "norms": "trained"}}, {},
     r"differ in norms: None against 'trained'; solver\.lr: 0\.02 against 0\.01; train both under one protocol"),
    ({"finished": False}, {}, "the run is not finished; run its command again with --resume"),
    ({"truth": other_truth()}, {}, "truth.json differ, so they were scored on different annotations"),
    ({"sample_hash": "0ld"}, {}, r"different generators \(5eed against 0ld\); make the sample set anew"),
    ({"protocol_hash": "beef"}, {}, "protocol hashes differ .* equal; train both with one version of the code"),
    ({}, {"metrics.jsonl": '{"iteration": 1, "loss": 2}\n{"iteration": null, "loss": 2}\n'},
     r"metrics\.jsonl, line 2: iteration None is not a whole number; remove it"),
    ({}, {"predictions.json": '[{"image_id"'},
     r"predictions\.json: does not parse as JSON .*; it may be cut short: write it again"),
    ({}, {"predictions.json": "{}"}, r"predictions\.json: is a single object; COCO results are a list"),
    ({}, {"predictions.json": "[]"}, r"evaluation\.json: it has AP .* scores 0\.00.*; score the run again"),
    ({}, {"predictions.json": None}, r"predictions\.json: it is missing; score the run"),
    ({}, {"config.yaml": "a: ["}, r"config\.yaml: it is not valid YAML .*restore it or run again"),
    ({}, {"config.yaml": "label_smoothing: 0.1"}, r"it is a run of train_backbone\.py; a report compares detectors"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "files", "problem"), REFUSED)
def test_a_run_that_cannot_be_compared_is_refused(
    pair: list[Path], tmp_path: Path, facts: dict[str, Any], files: dict[str, str | None], problem: str
) -> None:
    run = trained_run(tmp_path, "r50", 0.9, 3, **facts)
    for name, text in files.items():
        (run / name).unlink() if text is None else (run / name).write_text(text)
    with pytest.raises(UserError, match=problem):
        write_report([pair[0], run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


NO_RUNS = [  # what is named, relative to a directory with runs and data; what the message says
    (["runs"], "runs: it holds no run (no config.yaml); name the runs in it: run0, run1, run2, run3, run4, run5, run6, "
     "run7 and 2 more"),
    (["data"], "data: it holds no run (no config.yaml); name a training's output directory"),
    (["runs/run0"], "provenance.json: it is missing; the run has not finished"),
    (["nowhere"], "nowhere: it is not a directory"),
    (["good/r18", "good/r18"], "given twice"),
    ([], "nothing to report on"),
]  # fmt: skip


@pytest.mark.parametrize(("named", "problem"), NO_RUNS)
def test_directories_without_a_run_are_refused(tmp_path: Path, named: list[str], problem: str) -> None:
    for number in range(10):
        (tmp_path / "runs" / f"run{number}").mkdir(parents=True)
        (tmp_path / "runs" / f"run{number}" / "config.yaml").write_text("")
    (tmp_path / "data" / "train").mkdir(parents=True)
    trained_run(tmp_path / "good", "r18", 0.9)
    with pytest.raises(UserError, match=re.escape(problem)):
        write_report([tmp_path / name for name in named], tmp_path / "out")


def test_a_run_that_found_nothing_scores_zero(pair: list[Path], tmp_path: Path) -> None:
    (content,) = write_report([make_run(tmp_path / "c", "r50", []), pair[1]], tmp_path / "out").contents
    assert content.sides[0].figures["AP"].mean == 0
    assert content.headline.startswith("r18 beats r50 by ")


def test_one_run_alone_is_reported_without_a_comparison(pair: list[Path], tmp_path: Path) -> None:
    (content,) = write_report(pair[:1], tmp_path / "out").contents
    figure = formats.ap(content.sides[0].figures["AP"].mean)
    assert content.headline == f"plain18 reaches {figure}\u00a0AP" and content.caveat == ""
    assert content.lead is None and content.differences_to_baseline == [] and content.fronts == {}


def test_equal_detectors_cannot_be_told_apart(tmp_path: Path) -> None:
    runs = [trained_run(tmp_path, name, 0.8, 5) for name in ("r18", "r34")]
    (content,) = write_report(runs, tmp_path / "out").contents
    assert "cannot be told apart: 0.0" in content.headline and content.caveat
    assert content.gallery and content.gallery.equal == 12 and content.gallery.images_not_found == 12
    assert "not distinguishable" in rows_of((tmp_path / "out" / "report.md").read_text())["AP"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No image differs between r18 and r34" in page
    assert "could not be read" in page


def test_three_sides_are_ranked_against_the_best_and_the_baseline(pair: list[Path], tmp_path: Path) -> None:
    third = trained_run(tmp_path, "vgg16", 0.6, 4, weights={"source": "none"})
    report = write_report([*pair, third], tmp_path / "out")
    (content,) = report.contents
    assert content.best == "r18" and content.baseline == "plain18" and content.pair == ["plain18", "r18"]
    assert [one.b for one in content.differences_to_baseline] == ["r18", "vgg16"]
    assert [one.a for one in content.best_against_others] == ["vgg16", "plain18"]
    assert content.lead == content.best_against_others[0]
    # The best was chosen by these data, so its p-values are of all three pairs; the baseline's are of its own two.
    to_best, to_baseline = (
        [one.differences["AP"] for one in comparisons]
        for comparisons in (content.best_against_others, content.differences_to_baseline)
    )
    every_p = [one.p_value for one in (*to_best, to_baseline[1]) if one]
    assert [one.adjusted_p for one in to_best if one] == pytest.approx(holm(every_p)[:2])
    baseline_p = [one.p_value for one in to_baseline if one]
    assert [one.adjusted_p for one in to_baseline if one] == pytest.approx(holm(baseline_p))
    assert any("against the best all 3 pairs of sides" in note for note in content.notes)
    assert content.headline.startswith("r18 beats the runner-up, vgg16, by ")
    assert "<title>plain18 against r18 against vgg16</title>" in report.page.read_text()
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "## Each side against plain18, the baseline" in markdown
    assert "## r18, the best, against each other side" in markdown
    difference = content.best_against_others[1].differences["AP50"]
    text = difference and difference.text()
    assert text and any(line.startswith("| plain18 |") and text in line for line in markdown.splitlines())


def test_one_backbone_twice_is_distinguished_by_what_differs(tmp_path: Path) -> None:
    def labels(*provenances: dict[str, Any]) -> list[str]:
        where = tmp_path / str(len(list(tmp_path.iterdir())))
        return label_runs([read_run(make_run(where / str(i), "r18", [], **one)) for i, one in enumerate(provenances)])

    assert labels({}, {"weights": {"source": "none"}}) == ["r18, pre-trained", "r18, no pre-training"]
    assert labels({"seed": 0}, {"seed": 1}) == ["r18, seed 0", "r18, seed 1"]
    assert labels({"backbone": {"name": "r18", "width": 0.5}}, {}) == ["r18, \u00d70.5 width", "r18"]
    assert labels({"backbone": {"name": "vgg11", "width": 0.5}}, {}) == ["vgg11, \u00d70.5 width", "r18"]
    assert labels({}, {}) == ["r18, 0", "r18, 1"]
    longer = {**WEIGHTS, "epochs": 90.0}
    assert labels({"weights": {**WEIGHTS, "epochs": 30.0}}, {"weights": longer}) == ["r18, 30 epochs", "r18, 90 epochs"]


OLD = Path(__file__).parents[1] / "old_runs"
WORDS = {"title", "first", "headline", "sentences", "notes", "note", "measure", "meaning", "directory"}
# The old runs name a folder of pictures that is on no other machine.
NOT_COMPARED = {*WORDS, "images_not_found"}


def assert_alike(old: Any, new: Any, where: str = "report") -> None:
    """Every key and figure of `old` is in `new`; words may differ, and keys and notes may be added."""
    if isinstance(old, dict):
        assert not old.keys() - new.keys(), where
        for key in old.keys() - NOT_COMPARED:
            assert_alike(old[key], new[key], f"{where}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), where
        for place, pair in enumerate(zip(old, new)):
            assert_alike(*pair, f"{where}[{place}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-12), where
    else:
        assert old == new, where


def test_old_runs_give_the_report_that_they_gave(tmp_path: Path) -> None:
    write_report([OLD / "det_0", OLD / "det_1"], tmp_path)
    assert_alike(json.loads((OLD / "report.json").read_text()), json.loads((tmp_path / "report.json").read_text()))
