"""The report on finished runs: same figures in its three files, nothing from outside, and sentences for bad input."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.summary import summarise
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.report import Written, latex, write_report
from vertebra.evaluation.report.render import write_all
from vertebra.evaluation.report.runs import read_run
from vertebra.evaluation.report.sides import label_runs
from vertebra.evaluation.report.spread import Spread, change
from vertebra.evaluation.statistics.comparison import holm
from vertebra.evaluation.why.errors import KINDS
from vertebra.evaluation.why.explain import explain
from vertebra.ground import formats
from vertebra.ground.errors import UserError

PROTOCOL = {"solver.lr": 0.02, "solver.iterations": 90, "data.source": "sample/val", "data.sides": [224]}
EMPTY_CLASS = "never <b>seen</b> | here"
WEIGHTS = {
    "source": "runs/backbone/model.safetensors",
    "training_data": {"name": "objects", "images": 900},
    "protocol_hash": "aa",
    "figures": {"top1": 81.25, "top5": 99.0},
}


def make_truth(images: int = 12) -> dict[str, Any]:
    """Three classes, the last without an object; one crowd, one difficult object, one image without objects."""
    random = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images):  # the last image stays empty
        for _ in range(int(random.integers(1, 4))):
            x, y = random.uniform(0, 60, size=2)
            width, height = random.uniform(12, 36, size=2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(random.choice([3, 7])),
                    "bbox": [float(x), float(y), float(width), float(height)],
                    "area": float(width * height),
                    "iscrowd": 0,
                    "difficult": 0,
                }
            )
    annotations[0]["iscrowd"], annotations[3]["difficult"] = 1, 1
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg", "width": 100, "height": 100} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "ring"}, {"id": 7, "name": "star"}, {"id": 9, "name": EMPTY_CLASS}],
    }


def make_predictions(truth: dict[str, Any], *, share: float, seed: int) -> list[dict[str, Any]]:
    """A share of the truths, a little off, and a false positive in every other image."""
    random = np.random.default_rng(seed)
    predictions = []
    for annotation in truth["annotations"]:
        if random.random() < share:
            box = np.array(annotation["bbox"]) + random.normal(0, 1.2, size=4)
            predictions.append(_prediction(annotation["image_id"], annotation["category_id"], box, random))
    for image in truth["images"][::2]:
        box = np.array([*random.uniform(0, 60, size=2), *random.uniform(12, 36, size=2)])
        predictions.append(_prediction(image["id"], 3, box, random))
    return predictions


def _prediction(image_id: int, category_id: int, box: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    score = round(float(random.uniform(0.2, 1)), 4)
    return {"image_id": image_id, "category_id": category_id, "bbox": [float(v) for v in box], "score": score}


def make_run(
    directory: Path,
    name: str,
    predictions: list[dict[str, Any]],
    *,
    truth: dict[str, Any] | None = None,
    protocol: dict[str, Any] = PROTOCOL,
    **provenance: Any,
) -> Path:
    """A run directory as training leaves it; `provenance` overrides its fields."""
    truth = truth or make_truth()
    directory.mkdir(parents=True)
    cost = {"parameters": 11_700_000, "flops": 1.82e9, "time_per_image_s": 0.0352, "input_hw": [224, 224]}
    evaluation = summarise(truth, predictions) | {"cost": cost, "image_root": str(directory.parent / "images")}
    facts = {
        "backbone": {"name": name, "width": 1.0, "shortcut": "B", "stride_in": "3x3"},
        "protocol": protocol,
        "protocol_hash": "cafe",
        "weights": WEIGHTS,
        "commit": "0123abc",
        "command": f"python tools/train_det.py --backbone {name}",
        "machine": {"cpu": "a processor", "cores": 2, "gpus": []},
        "sample_hash": "5eed",
        "seed": 0,
        "finished": True,
        "training_s": 241.3,
    } | provenance
    (directory / "truth.json").write_text(json.dumps(truth))
    (directory / "predictions.json").write_text(json.dumps(predictions))
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    (directory / "provenance.json").write_text(json.dumps(facts))
    (directory / "config.yaml").write_text(yaml.safe_dump({"backbone": name, "seed": facts["seed"]}))
    lines = [{"iteration": i, "loss": 2.0 / i, "loss_rpn": 1.0 / i, "lr": 0.02} for i in range(1, 40)]
    lines += [{"iteration": i, "AP": i / 2, "AP50": float(i)} for i in (20, 39)]
    (directory / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 40, "lo'
    )
    return directory


def write_images(directory: Path) -> None:
    import cv2

    directory.mkdir()
    for image in make_truth()["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (100, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(directory / image["file_name"]), pixels)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("pair")
    write_images(root / "images")
    truth = make_truth()
    return [
        make_run(root / "a", "plain18", make_predictions(truth, share=0.4, seed=1)),
        make_run(root / "b", "r18", make_predictions(truth, share=0.95, seed=2)),
    ]


@pytest.fixture(scope="module")
def report(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_report(pair, tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def written(report: Written) -> Path:
    assert report.page.name == "report.html"
    return report.page.parent


def content_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def rows_of(markdown: str) -> dict[str, str]:
    """Lines of Markdown's tables by their first cell, what stands in brackets aside; the first of equal names."""
    rows: dict[str, str] = {}
    for line in markdown.splitlines():
        if line.startswith("| "):
            rows.setdefault(line.split("|")[1].strip().split(" (")[0], line)
    return rows


def test_every_file_shows_the_same_figures(report: Written, written: Path, pair: list[Path]) -> None:
    (content,) = report.contents
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
        texts = [str(side.figures[name]) for side in content.sides]
        for text in (*texts, change(content.differences_to_baseline[0].differences[name])):
            assert f">{text}<" in cells[0]
            assert text in rows[name]
            assert latex.escape(text) in line
    for row in content.per_class:
        if row.truths:
            assert change(row.difference) in rows[row.name]
            assert f">{change(row.difference)}<" in page


def test_classes_sizes_recall_and_curves_are_pycocotools_own(written: Path, pair: list[Path]) -> None:
    content = content_of(written)
    for place, directory in enumerate(pair):
        figures = coco_figures(make_truth(), json.loads((directory / "predictions.json").read_text()))
        for row in content["per_class"]:
            if row["truths"]:
                assert row["truths"] == figures.truths[row["name"]]
                for name in ("AP", "AP50"):
                    assert row[name][place]["mean"] == pytest.approx(figures.per_class[row["name"]][name])
                curve = content["precision_recall"]["per_class"][row["name"]][place]
                assert curve == pytest.approx(figures.curves[row["name"]], abs=1e-4)
        for row in content["per_size"]:
            expected = figures[row["figure"]]
            assert row["AP"][place]["mean"] == (pytest.approx(expected) if expected == expected else None)


def test_errors_are_tides_and_their_differences_add_up(written: Path, pair: list[Path]) -> None:
    content = content_of(written)
    errors = content["reasons"]["errors"]
    told = [explain(directory / "truth.json", directory / "predictions.json") for directory in pair]
    assert [kind["kind"] for kind in errors["kinds"] if not kind["special"]] == list(KINDS)
    for kind in errors["kinds"]:
        part = "special" if kind["special"] else "lost"
        lost = [one["errors"][part][kind["kind"]] for one in told]
        assert kind["lost"] == pytest.approx(lost)
        difference = errors["differences"][0]["kinds"][kind["kind"]]
        assert difference["estimate"] == pytest.approx(lost[1] - lost[0])
        assert difference["low"] <= difference["estimate"] <= difference["high"]
        if not kind["special"]:
            assert kind["counts"] == [one["errors"]["counts"][kind["kind"]] for one in told]
    assert content["reasons"]["calibration"][1]["ece"] == pytest.approx(told[1]["calibration"]["ece"])
    assert "Calibration" in (written / "report.md").read_text()


def with_squares(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with their box as their mask."""
    from pycocotools import mask

    def squares(entry: dict[str, Any]) -> dict[str, Any]:
        runs = mask.frPyObjects(np.array([entry["bbox"]], np.float64), 100, 100)[0]
        return {**entry, "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()}}

    return [squares(entry) for entry in entries]


def test_mask_ap_is_shown_where_all_runs_have_it(pair: list[Path], tmp_path: Path) -> None:
    truth = make_truth()
    truth["annotations"] = with_squares(truth["annotations"])
    runs = [
        make_run(tmp_path / name, name, with_squares(make_predictions(truth, share=share, seed=1)), truth=truth)
        for name, share in (("r18", 0.4), ("r50", 0.9))
    ]
    write_report(runs, tmp_path / "out")
    told = content_of(tmp_path / "out")["sides"]
    row = rows_of((tmp_path / "out" / "report.md").read_text())["mask AP"]
    for side, directory in zip(told, runs):
        figure = json.loads((directory / "evaluation.json").read_text())["coco_segm"]["AP"]
        assert side["figures"]["mask AP"]["mean"] == pytest.approx(figure) and formats.ap(figure) in row
    assert formats.signed(told[1]["figures"]["mask AP"]["mean"] - told[0]["figures"]["mask AP"]["mean"]) in row


def test_mask_ap_is_not_shown_of_boxes(written: Path) -> None:
    assert "mask AP" not in (written / "report.md").read_text()
    assert all("mask AP" not in side["figures"] for side in content_of(written)["sides"])


def test_with_one_seed_each_the_report_is_about_detectors(report: Written, written: Path) -> None:
    (content,) = report.contents
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


def test_a_class_without_objects_is_shown_without_a_figure(written: Path) -> None:
    content = content_of(written)
    empty = content["per_class"][-1]
    nothing = [{"mean": None, "std": None, "n": 1}] * 2
    assert empty == {"name": EMPTY_CLASS, "truths": 0, "AP": nothing, "AP50": nothing, "difference": None}
    assert EMPTY_CLASS not in content["precision_recall"]["per_class"]


def test_images_that_differ_most_come_first_and_both_sides_are_there(written: Path, pair: list[Path]) -> None:
    gallery = content_of(written)["gallery"]
    sizes = [abs(image["difference"]) for image in gallery["images"]]
    assert sizes == sorted(sizes, reverse=True)
    assert gallery["better_first"] + gallery["better_second"] + gallery["equal"] == 12
    assert gallery["images_not_found"] == 0
    few = content_of(write_report(pair, written.parent / "few", max_images=3).page.parent)["gallery"]["images"]
    assert len(few) == 3
    if gallery["better_first"]:
        assert any(image["difference"] < 0 for image in few)


def test_training_curves_come_from_the_metrics(written: Path) -> None:
    curve = content_of(written)["training"][0]
    assert curve["runs"][0]["loss"][0] == [1.0, 2.0] and curve["runs"][0]["loss"][-1][0] == 39.0
    assert curve["loss"][-1][0] == 39.0
    assert curve["AP"] == [[20.0, 10.0], [39.0, 19.5]]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    write_all(tmp_path, {"run": 1}, "# old", "<p>old")

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_all(tmp_path, {"run": 2}, "# new", "<p>new")
    assert json.loads((tmp_path / "report.json").read_text()) == {"run": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def moved_truth() -> dict[str, Any]:
    truth = make_truth()
    truth["annotations"][0]["bbox"][0] += 1
    return truth


REFUSED = [  # the second run's provenance, truth or protocol; files written over; what the message says
    ({"protocol": {**PROTOCOL, "solver.lr": 0.01, "norms": "trained"}}, {},
     r"differ in norms: None against 'trained'; solver\.lr: 0\.02 against 0\.01; train both under one protocol"),
    ({"finished": False}, {}, "the run is not finished; run its command again with --resume"),
    ({"truth": moved_truth()}, {}, "truth.json differ, so they were scored on different annotations"),
    ({"sample_hash": "0ld"}, {}, r"different generators \(5eed against 0ld\); make the sample set anew"),
    ({"protocol_hash": "beef"}, {}, "protocol hashes differ .* equal; train both with one version of the code"),
    ({}, {"metrics.jsonl": '{"iteration": 1, "loss": 2}\n{"iteration": null, "loss": 2}\n'},
     r"metrics\.jsonl, line 2: iteration None is not a whole number; remove it"),
    ({}, {"predictions.json": '[{"image_id"'},
     r"predictions\.json: it is not valid JSON.*; score the run with: "),
    ({}, {"predictions.json": "{}"}, r"predictions\.json: it is not a list of COCO results; score the run"),
    ({}, {"predictions.json": "[]"}, r"evaluation\.json: it has AP .* scores 0\.00.*; score the run again"),
    ({}, {"predictions.json": None}, r"predictions\.json: it is missing; score the run"),
    ({}, {"config.yaml": "a: ["}, r"config\.yaml: it is not valid YAML .*restore it or run again"),
    ({}, {"config.yaml": "label_smoothing: 0.1"}, r"it is a run of train_backbone\.py; a report compares detectors"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "files", "problem"), REFUSED)
def test_a_run_that_cannot_be_compared_is_refused(
    pair: list[Path], tmp_path: Path, facts: dict[str, Any], files: dict[str, str | None], problem: str
) -> None:
    run = make_run(tmp_path / "c", "r50", make_predictions(make_truth(), share=0.9, seed=3), **facts)
    for name, text in files.items():
        (run / name).unlink() if text is None else (run / name).write_text(text)
    with pytest.raises(UserError, match=problem):
        write_report([pair[0], run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_directories_without_a_run_are_refused_with_those_that_have_one(pair: list[Path], tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / "runs" / f"run{number}").mkdir(parents=True)
        (tmp_path / "runs" / f"run{number}" / "config.yaml").write_text("")
    (tmp_path / "data" / "train").mkdir(parents=True)
    problems = {
        "runs": "runs: it holds no run (no config.yaml); name the runs in it: run0, run1, run2, run3, run4, run5, "
        "run6, run7 and 2 more",
        "data": "data: it holds no run (no config.yaml); name a training's output directory",
        "runs/run0": "provenance.json: it is missing; the run has not finished",
        "nowhere": "nowhere: it is not a directory",
    }
    for path, problem in problems.items():
        with pytest.raises(UserError, match=re.escape(problem)):
            write_report([tmp_path / path], tmp_path / "out")
    with pytest.raises(UserError, match="given twice"):
        write_report([pair[0], pair[0]], tmp_path / "out")
    with pytest.raises(UserError, match="nothing to report on"):
        write_report([], tmp_path / "out")


def test_a_run_that_found_nothing_scores_zero(pair: list[Path], tmp_path: Path) -> None:
    (content,) = write_report([make_run(tmp_path / "c", "r50", []), pair[1]], tmp_path / "out").contents
    assert content.sides[0].figures["AP"].mean == 0
    assert content.headline.startswith("r18 beats r50 by ")


def test_one_run_alone_is_told_without_a_comparison(pair: list[Path], tmp_path: Path) -> None:
    (content,) = write_report(pair[:1], tmp_path / "out").contents
    figure = formats.ap(content.sides[0].figures["AP"].mean)
    assert content.headline == f"plain18 reaches {figure}\u00a0AP" and content.caveat == ""
    assert content.lead is None and content.differences_to_baseline == [] and content.fronts == {}


def test_equal_detectors_cannot_be_told_apart(tmp_path: Path) -> None:
    predictions = make_predictions(make_truth(), share=0.8, seed=5)
    runs = [make_run(tmp_path / name, name, predictions) for name in ("r18", "r34")]
    (content,) = write_report(runs, tmp_path / "out").contents
    assert "cannot be told apart: 0.0" in content.headline and content.caveat
    assert content.gallery and content.gallery.equal == 12 and content.gallery.images_not_found == 12
    assert "not distinguishable" in rows_of((tmp_path / "out" / "report.md").read_text())["AP"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No image differs between r18 and r34" in page
    assert "could not be read" in page


def test_a_small_difference_within_its_interval_is_not_called_better(tmp_path: Path) -> None:
    truth = make_truth()
    runs = [
        make_run(tmp_path / name, name, make_predictions(truth, share=0.7, seed=seed))
        for name, seed in (("r18", 11), ("r34", 12))
    ]
    (content,) = write_report(runs, tmp_path / "out").contents
    difference = content.lead and content.lead.differences["AP"]
    assert difference and difference.low < 0 < difference.high
    assert "cannot be told apart" in content.headline


def test_three_sides_are_ranked_against_the_best_and_the_baseline(pair: list[Path], tmp_path: Path) -> None:
    third = make_run(
        tmp_path / "c", "vgg16", make_predictions(make_truth(), share=0.6, seed=4), weights={"source": "none"}
    )
    report = write_report([*pair, third], tmp_path / "out", title="Three")
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
    assert "<title>Three</title>" in report.page.read_text()
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "## Each side against plain18, the baseline" in markdown
    assert "## r18, the best, against each other side" in markdown
    text = change(content.best_against_others[1].differences["AP50"])
    assert any(line.startswith("| plain18 |") and text in line for line in markdown.splitlines())


def test_one_backbone_twice_is_told_apart_by_what_differs(tmp_path: Path) -> None:
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


def assert_alike(old: Any, new: Any, where: str = "report") -> None:
    """Every key and figure of `old` is in `new`; words may differ, and keys and notes may be added."""
    if isinstance(old, dict):
        assert not old.keys() - new.keys(), where
        for key in old.keys() - WORDS:
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
    assert_alike(json.loads((OLD / "report.json").read_text()), content_of(tmp_path))
