"""The report on finished runs: same figures in its three files, nothing from outside, and sentences for bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from evaluation.report import ReportError, formats, write_report
from evaluation.report.collect import read_runs
from evaluation.report.origins import label_runs
from evaluation.report.render import write_all
from evaluation.summary import summarise

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
def written(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = write_report(pair, tmp_path_factory.mktemp("report") / "out")
    assert page.name == "report.html"
    return page.parent


def content_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_the_three_files_show_the_same_figures(written: Path, pair: list[Path]) -> None:
    content = content_of(written)
    page, markdown = ((written / name).read_text() for name in ("report.html", "report.md"))
    for run, directory in zip(content["runs"], pair):
        evaluation = json.loads((directory / "evaluation.json").read_text())
        for name in ("AP", "AP50", "AP75", "APs"):
            assert run["figures"][name] == evaluation["coco"][name]
        assert run["figures"]["VOC mAP"] == evaluation["voc"]["mAP"]
    rows = {row.split("|")[1].strip().split(" (")[0]: row for row in markdown.splitlines() if row.startswith("| ")}
    for name in ("AP", "AP50", "AP75", "APs", "AR100", "VOC mAP"):
        cells = re.search(rf'<th scope="row">{name}<.*?</tr>', page, re.S)
        assert cells
        for run in content["runs"]:
            shown = formats.ap(run["figures"][name])
            assert f">{shown}</td>" in cells[0]
            assert shown in rows[name]
        assert formats.signed(content["lead"]["differences"][name]["value"]) in rows[name]
    for row in content["per_class"]:
        if row["truths"]:
            assert formats.signed(row["difference"]) in rows[row["name"]]


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
    told = content_of(tmp_path / "out")["runs"]
    row = next(line for line in (tmp_path / "out" / "report.md").read_text().splitlines() if "| mask AP" in line)
    for run, directory in zip(told, runs):
        figure = json.loads((directory / "evaluation.json").read_text())["coco_segm"]["AP"]
        assert run["figures"]["mask AP"] == figure and formats.ap(figure) in row
    assert formats.signed(told[1]["figures"]["mask AP"] - told[0]["figures"]["mask AP"]) in row


def test_mask_ap_is_not_shown_of_boxes(written: Path) -> None:
    assert "mask AP" not in (written / "report.md").read_text()
    assert all(run["figures"]["mask AP"] is None for run in content_of(written)["runs"])


def test_the_first_sentence_names_the_better_backbone_the_gap_and_what_the_interval_covers(written: Path) -> None:
    content = content_of(written)
    difference = content["lead"]["differences"]["AP"]
    assert difference["low"] < difference["value"] < difference["high"]
    assert difference["low"] > 0 and difference["distinguishable"]
    assert content["headline"] == (
        f"r18 is the better of two detectors: {difference['value']:.1f}\u00a0AP above plain18; "
        "one seed gives no verdict on the backbones"
    )
    assert "One seed each (seed 0): the interval covers image sampling only" in content["notes"][0]
    assert any("generator 5eed" in note for note in content["notes"])
    page = (written / "report.html").read_text()
    assert all(text in page for text in (content["headline"], content["notes"][0]))
    assert "1.00\u00a0\u00d7 the FLOPs (1.82\u00a0G against 1.82\u00a0G)" in content["cost_sentence"]


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
        cells = {line.count("|") for line in lines[place - 1 : place + 2]}
        assert len(cells) == 1 and cells != {0}, lines[place - 1 : place + 2]


def test_names_from_the_data_are_escaped(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert "never &lt;b&gt;seen" in page and "<b>seen" not in page
    assert r"never \<b\>seen\</b\> \| here" in (written / "report.md").read_text()


def test_a_class_without_objects_is_shown_without_a_figure(written: Path) -> None:
    content = content_of(written)
    empty = content["per_class"][-1]
    assert empty == {
        "name": EMPTY_CLASS, "truths": 0, "AP": [None, None], "AP50": [None, None], "difference": None
    }  # fmt: skip
    assert EMPTY_CLASS not in content["precision_recall"]["per_class"]


def test_images_that_differ_most_come_first_and_both_sides_are_there(written: Path, pair: list[Path]) -> None:
    gallery = content_of(written)["gallery"]
    sizes = [abs(image["difference"]) for image in gallery["images"]]
    assert sizes == sorted(sizes, reverse=True)
    assert gallery["better_first"] + gallery["better_second"] + gallery["equal"] == 12
    assert gallery["images_not_found"] == 0
    few = content_of(write_report(pair, written.parent / "few", max_images=3).parent)["gallery"]["images"]
    assert len(few) == 3
    if gallery["better_first"]:
        assert any(image["difference"] < 0 for image in few)


def test_training_curves_come_from_the_metrics(written: Path) -> None:
    curve = content_of(written)["training"][0]
    assert curve["loss"][0] == [1.0, 2.0] and curve["loss"][-1][0] == 39.0
    assert curve["AP"] == [[20.0, 10.0], [39.0, 19.5]]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    write_all(tmp_path, {"run": 1}, "# old", "<p>old")

    def full(self: Path, text: str, **_: Any) -> None:
        self.write_bytes(text.encode()[:2])
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="full"):
        write_all(tmp_path, {"run": 2}, "# new", "<p>new")
    assert json.loads((tmp_path / "report.json").read_text()) == {"run": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_protocols_that_differ_are_refused_by_field(pair: list[Path], tmp_path: Path) -> None:
    other = {**PROTOCOL, "solver.lr": 0.01, "norms": "trained"}
    run = make_run(tmp_path / "c", "r50", [], protocol=other)
    with pytest.raises(ReportError, match=r"differ in norms: None against 'trained'; solver\.lr: 0\.02 against 0\.01"):
        write_report([pair[0], run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(pair: list[Path], tmp_path: Path) -> None:
    truth = make_truth()
    truth["annotations"][0]["bbox"][0] += 1
    runs = {
        "is not finished": make_run(tmp_path / "unfinished", "r18", [], finished=False),
        "truth.json differ": make_run(tmp_path / "elsewhere", "r18", [], truth=truth),
        "different generators": make_run(tmp_path / "generator", "r18", [], sample_hash="0ld"),
        "protocol hashes differ": make_run(tmp_path / "hash", "r18", [], protocol_hash="beef"),
        "is not a directory": tmp_path / "nowhere",
        "given twice": pair[0],
    }
    for sentence, run in runs.items():
        with pytest.raises(ReportError, match=sentence):
            write_report([pair[0], run], tmp_path / "out")
    with pytest.raises(ReportError, match="at least two"):
        write_report(pair[:1], tmp_path / "out")


def test_broken_or_stale_files_are_named_with_the_mend(pair: list[Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "c", "r18", make_predictions(make_truth(), share=0.9, seed=3))
    kept = (run / "predictions.json").read_text()
    (run / "predictions.json").write_text(kept[:40])
    with pytest.raises(ReportError, match=r"predictions\.json is not valid JSON.*eval_det\.py"):
        write_report([pair[0], run], tmp_path / "out")
    (run / "predictions.json").write_text("[]")
    with pytest.raises(ReportError, match=r"evaluation\.json says AP .* scores 0\.00"):
        write_report([pair[0], run], tmp_path / "out")
    (run / "predictions.json").unlink()
    with pytest.raises(ReportError, match=r"predictions\.json is missing: score the run"):
        write_report([pair[0], run], tmp_path / "out")


def test_a_run_that_found_nothing_scores_zero(pair: list[Path], tmp_path: Path) -> None:
    content = content_of(write_report([make_run(tmp_path / "c", "r50", []), pair[1]], tmp_path / "out").parent)
    assert content["runs"][0]["figures"]["AP"] == 0
    assert content["headline"].startswith("r18 is the better of two detectors")


def test_equal_detectors_are_called_not_distinguishable(tmp_path: Path) -> None:
    predictions = make_predictions(make_truth(), share=0.8, seed=5)
    runs = [make_run(tmp_path / name, name, predictions) for name in ("r18", "r34")]
    content = content_of(write_report(runs, tmp_path / "out").parent)
    assert content["headline"] == "r18 and r34 are not distinguishable as detectors"
    assert "which includes 0" in content["accuracy_sentence"]
    assert content["gallery"]["equal"] == 12
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No image differs between r18 and r34" in page
    assert content["gallery"]["images_not_found"] == 12 and "could not be read" in page


def test_a_small_difference_within_its_interval_is_not_called_better(tmp_path: Path) -> None:
    truth = make_truth()
    runs = [
        make_run(tmp_path / name, name, make_predictions(truth, share=0.7, seed=seed))
        for name, seed in (("r18", 11), ("r34", 12))
    ]
    content = content_of(write_report(runs, tmp_path / "out").parent)
    difference = content["lead"]["differences"]["AP"]
    assert difference["low"] < 0 < difference["high"]
    assert "not distinguishable" in content["headline"]


def test_three_runs_are_ranked_against_the_best_and_the_baseline(pair: list[Path], tmp_path: Path) -> None:
    third = make_run(
        tmp_path / "c", "vgg16", make_predictions(make_truth(), share=0.6, seed=4), weights={"source": "none"}
    )
    page = write_report([*pair, third], tmp_path / "out", title="Three")
    content = content_of(page.parent)
    assert content["best"] == "r18" and content["baseline"] == "plain18"
    assert [entry["b"] for entry in content["differences_to_baseline"]] == ["r18", "vgg16"]
    assert {entry["a"] for entry in content["best_against_others"]} == {"plain18", "vgg16"}
    assert all(entry["b"] == "r18" for entry in content["best_against_others"])
    assert content["headline"].startswith("r18 leads 3 detectors")
    assert any("Pre-training is not equal" in note and "vgg16: random" in note for note in content["notes"])
    assert "<title>Three</title>" in page.read_text()
    assert "Each against plain18" in (tmp_path / "out" / "report.md").read_text()


def test_one_backbone_twice_is_told_apart_by_what_differs(tmp_path: Path) -> None:
    def labels(*provenances: dict[str, Any]) -> list[str]:
        where = tmp_path / str(len(list(tmp_path.iterdir())))
        runs, _ = read_runs([make_run(where / str(i), "r18", [], **one) for i, one in enumerate(provenances)])
        return label_runs(runs)

    assert labels({}, {"weights": {"source": "none"}}) == ["r18, pre-trained", "r18, no pre-training"]
    assert labels({"seed": 0}, {"seed": 1}) == ["r18, seed 0", "r18, seed 1"]
    assert labels({"backbone": {"name": "r18", "width": 0.5}}, {}) == ["r18, \u00d70.5 width", "r18"]
    assert labels({}, {}) == ["r18, 0", "r18, 1"]


def test_equal_pre_training_on_two_backbones_is_not_called_unequal(written: Path) -> None:
    content = content_of(written)
    assert not any("Pre-training" in note for note in content["notes"])
    assert [run["pretraining_top1"] for run in content["runs"]] == [81.25, 81.25]
    assert [run["weights"] for run in content["runs"]] == ["pre-trained on objects"] * 2
