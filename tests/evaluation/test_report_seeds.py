"""Several seeds of a backbone in the report: grouped, with mean and spread, and a verdict only where both have some."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_report import EMPTY_CLASS, WEIGHTS, make_predictions, make_run, make_truth, rows_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.report import formats, write_report
from vertebra.evaluation.report.curves import mean_curve
from vertebra.evaluation.report.reasons import mean_of
from vertebra.evaluation.report.runs import read_run
from vertebra.evaluation.report.sentences import headline
from vertebra.evaluation.report.sides import group_runs
from vertebra.evaluation.why.explain import explain


def runs_of(root: Path, backbone: str, share: float, seeds: int, first: int = 1, **facts: Any) -> list[Path]:
    truth = make_truth()
    return [
        make_run(
            root / f"{backbone}_{seed}",
            backbone,
            make_predictions(truth, share=share, seed=first + seed),
            seed=seed,
            **facts,
        )
        for seed in range(seeds)
    ]


def report_on(runs: list[Path], out: Path, **asked: Any) -> tuple[dict[str, Any], str]:
    write_report(runs, out, **asked)
    return json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, Any], str, Path]:
    root = tmp_path_factory.mktemp("seeds")
    runs = [*runs_of(root, "plain18", 0.35, 3), *runs_of(root, "r18", 0.95, 3, first=10)]
    return runs, *report_on(runs, root / "out"), root / "out"


def test_runs_that_differ_by_the_seed_alone_are_one_side(several):
    runs, content, markdown, _ = several
    first, second = content["sides"]
    assert (first["label"], first["seeds"]) == ("plain18", [0, 1, 2]) and second["label"] == "r18"
    for side, directories in ((first, runs[:3]), (second, runs[3:])):
        for name in ("AP", "AP50", "APs", "AR100"):
            values = [
                coco_figures(make_truth(), json.loads((one / "predictions.json").read_text()))[name]
                for one in directories
            ]
            told = side["figures"][name]
            if values[0] == values[0]:
                assert told["mean"] == pytest.approx(statistics.fmean(values))
                assert told["std"] == pytest.approx(statistics.stdev(values)) and told["n"] == 3
                text = f"{formats.ap(statistics.fmean(values))} ± {formats.ap(statistics.stdev(values))}"
                assert text in rows_of(markdown)[name]


def test_with_seeds_on_both_sides_there_is_a_verdict(several):
    _, content, markdown, _ = several
    (one,) = content["differences_to_baseline"]
    difference = one["differences"]["AP"]
    assert difference["seeds"] == [3, 3] and difference["covers"] == one["covers"] == "seeds and images"
    assert difference["low"] > 0 and difference["p_value"] < 0.05
    half = formats.ap(difference["high"] - difference["estimate"])
    assert content["headline"].replace("\u00a0", " ") == (
        f"r18 beats plain18 by {formats.ap(difference['estimate'])} ± {half} AP (95 %), 3 seeds, "
        "at equal FLOPs of the detector"
    )
    assert content["title"] == "plain18 against r18" and content["first"] == []
    assert formats.change(difference) in content["sentences"][0]
    assert content["sentences"][0].endswith("what other seeds and other images would change.")
    assert "no verdict" not in markdown and content["notes"][0] == "Figures are mean ± standard deviation over seeds."
    assert set(one["differences"]) == set(content["figures"])


def test_the_seeds_that_share_their_pretraining_are_said_to(several, tmp_path):
    _, content, markdown, _ = several
    sentence = "All seeds of a backbone start from one pre-training: what another pre-training would change"
    assert any(note.startswith(sentence) for note in content["notes"]) and sentence in markdown
    truth = make_truth()
    runs = runs_of(tmp_path, "plain18", 0.35, 2)
    for seed in range(2):  # one recipe, another pre-training for each seed
        weights = {**WEIGHTS, "source": f"backbone_{seed}/model.safetensors", "seed": seed}
        found = make_predictions(truth, share=0.9, seed=seed + 10)
        runs.append(make_run(tmp_path / f"r18_{seed}", "r18", found, seed=seed, weights=weights))
    content, markdown = report_on(runs, tmp_path / "some")
    assert [len(side["seeds"]) for side in content["sides"]] == [2, 2]
    assert any(note.startswith("All seeds of plain18 start from one pre-training:") for note in content["notes"])
    content, _ = report_on(runs_of(tmp_path / "none", "r18", 0.9, 2, weights={"source": "none"}), tmp_path / "alone")
    assert not any("pre-training" in note for note in content["notes"])


def test_the_images_are_said_to_be_of_one_run_each(several, tmp_path):
    _, content, markdown, out = several
    sentence = (
        "Images and their counts are of one run of each: plain18 seed 0 and r18 seed 0; the others are not shown."
    )
    assert content["gallery"]["note"] == sentence
    assert sentence in markdown and sentence in (out / "report.html").read_text()
    single = [*runs_of(tmp_path, "plain18", 0.35, 1), *runs_of(tmp_path, "r18", 0.9, 1)]
    content, markdown = report_on(single, tmp_path / "out")
    assert content["gallery"]["note"] == "" and "Images and their counts" not in markdown


def told_side(label: str, seeds: int = 3, *, file: bool = False) -> dict[str, Any]:
    return {"label": label, "backbone": {} if file else {"name": label}, "file": file, "seeds": list(range(seeds))}


def told_lead(*sides: dict[str, Any], low: float = 5.0, high: float = 7.0, found: bool = True) -> dict[str, Any]:
    """What the headline is made of: the second side leads."""
    difference = {"estimate": (low + high) / 2, "low": low, "high": high, "distinguishable": found, "adjusted_p": 0.06}
    lead = {
        "a": sides[0]["label"], "b": sides[1]["label"], "covers": "seeds and images", "ratios": {},
        "differences": {"AP": difference},
    }  # fmt: skip
    return {"sides": list(sides), "lead": lead, "pairs_of_sides": len(sides) * (len(sides) - 1) // 2}


def test_sides_that_are_no_backbones_over_seeds_are_counted_as_detectors():
    r18, r50 = told_side("r18"), told_side("r50")
    assert headline(told_lead(r18, r50, told_side("r34"))).startswith("r50 leads 3 backbones and beats r18, the next")
    for other in (
        told_side("yolo", 1, file=True),
        told_side("r34", 1),
        {**told_side("x"), "backbone": r18["backbone"]},
    ):
        assert headline(told_lead(r18, r50, other)).startswith("r50 leads 3 detectors and beats r18, the next")


def test_an_interval_without_0_that_is_no_finding_is_explained():
    sides = [told_side(name) for name in ("r18", "r50", "r34")]
    said = headline(told_lead(*sides, low=0.4, high=3.6, found=False)).replace("\u00a0", " ")
    assert said == (
        "r50 leads 3 backbones, but is not distinguishable from r18: 2.0 ± 1.6 AP apart (95 %, but p = 0.060 corrected "
        "over 3 comparisons), 3 seeds"
    )
    assert "corrected" not in headline(told_lead(*sides, low=-0.4, high=3.6, found=False))


def test_one_image_with_objects_gives_no_difference(tmp_path):
    truth = make_truth()
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] == 5]
    runs = [
        make_run(tmp_path / name, name, make_predictions(truth, share=share, seed=1), truth=truth)
        for name, share in (("r18", 0.0), ("r50", 1.0))
    ]
    content, markdown = report_on(runs, tmp_path / "out")
    assert content["headline"] == ("r18 and r50 were tested on one image with objects, which tells nothing of others")
    assert all(one is None for one in content["lead"]["differences"].values())
    assert all(row["difference"] is None for row in content["per_class"]) and content["headline"] in markdown


def test_classes_have_corrected_p_values(several):
    _, content, markdown, _ = several
    rows = {row["name"]: row["difference"] for row in content["per_class"]}
    assert rows[EMPTY_CLASS] is None
    p_values = [rows[name]["p_value"] for name in ("ring", "star")]
    assert min(rows[name]["adjusted_p"] for name in ("ring", "star")) == pytest.approx(min(1, 2 * min(p_values)))
    assert formats.p_value(rows["ring"]["adjusted_p"]) in rows_of(markdown)["ring"]


def test_errors_and_curves_of_a_side_are_means_over_its_seeds(several):
    runs, content, _, _ = several
    told = [explain(run / "truth.json", run / "predictions.json") for run in runs[:3]]
    for kind in content["reasons"]["errors"]["kinds"]:
        if not kind["special"]:
            lost = [one["errors"]["lost"][kind["kind"]] for one in told]
            counts = [one["errors"]["counts"][kind["kind"]] for one in told]
            assert kind["lost"][0] == pytest.approx(statistics.fmean(lost))
            assert kind["counts"][0] == pytest.approx(statistics.fmean(counts))
    curves = [coco_figures(run / "truth.json", run / "predictions.json").curves["ring"] for run in runs[:3]]
    expected = [statistics.fmean(values) for values in zip(*curves)]
    assert content["precision_recall"]["per_class"]["ring"][0] == pytest.approx(expected, abs=1e-4)
    assert content["training"][0]["AP"] == [[20.0, 10.0], [39.0, 19.5]] and len(content["training"][0]["runs"]) == 3


def test_means_of_trees_and_curves():
    first, second = ({"a": 1, "b": [1.0, {"c": None}], "d": "x"}, {"a": 4, "b": [2.0, {"c": 3}], "d": "x"})
    assert mean_of([first, second]) == {"a": 2.5, "b": [1.5, {"c": None}], "d": "x"}
    assert mean_of([first]) == first
    assert mean_curve([[(1, 2.0), (2, 4.0), (3, 0.0)], [(1, 4.0), (3, 1.0)]]) == [(1, 3.0), (3, 0.5)]
    assert mean_curve([]) == []


def test_every_run_is_listed_once(several):
    runs, content, markdown, out = several
    assert [(run["side"], run["seed"]) for run in content["runs"]] == [
        (name, seed) for name in ("plain18", "r18") for seed in range(3)
    ]
    page = (out / "report.html").read_text()
    for run, told in zip(runs, content["runs"]):
        figure = json.loads((run / "evaluation.json").read_text())["coco"]["AP"]
        assert told["figures"]["AP"] == pytest.approx(figure)
        assert page.count(f">{run}</td>") == 1
        assert sum(formats.markdown(str(run)) in line for line in markdown.splitlines()) == 1


def test_equal_backbones_are_not_distinguishable_over_seeds(tmp_path):
    runs = [*runs_of(tmp_path, "r34", 0.7, 2, first=30), *runs_of(tmp_path, "r18", 0.7, 2, first=40)]
    content, markdown = report_on(runs, tmp_path / "out")
    assert "are not distinguishable: " in content["headline"] and content["headline"].endswith(
        "AP apart (95 %), 2 seeds"
    )
    assert "not distinguishable" in rows_of(markdown)["AP"]


def test_with_one_seed_on_a_side_there_is_no_verdict(tmp_path):
    runs = [*runs_of(tmp_path, "plain18", 0.35, 1), *runs_of(tmp_path, "r18", 0.95, 2, first=10)]
    content, markdown = report_on(runs, tmp_path / "out")
    (one,) = content["differences_to_baseline"]
    assert one["covers"] == "images" and one["differences"]["AP"]["freedom"] == 10  # of 11 images with objects
    assert content["sides"][0]["figures"]["AP"]["std"] is None
    assert (
        content["headline"].startswith("The detector r18 scores above plain18")
        and "2 seeds against 1" in content["headline"]
    )
    assert content["headline"].endswith("; one seed on a side gives no verdict on the backbones")
    assert "image sampling only" in content["sentences"][0] and "Where a side has one seed" in markdown


def test_seeds_of_one_backbone_are_one_side_without_a_comparison(tmp_path):
    content, _ = report_on(runs_of(tmp_path, "r18", 0.9, 3), tmp_path / "out")
    (side,) = content["sides"]
    told = formats.mean_and_spread(side["figures"]["AP"])
    assert content["headline"] == f"r18 reaches {told}\u00a0AP over 3 seeds; nothing to compare it with"


def test_the_same_seed_again_is_no_second_draw(tmp_path):
    twice = [runs_of(tmp_path / name, "r18", 0.9, 2) for name in "ab"]
    sides = group_runs([read_run(run) for run in (*twice[0], *twice[1])])
    assert [side.places for side in sides] == [[0, 1], [2, 3]] and len({side.label for side in sides}) == 2


def test_one_backbone_on_weights_of_two_recipes_is_two_sides(tmp_path):
    other = runs_of(tmp_path / "b", "r18", 0.9, 2, weights={**WEIGHTS, "protocol_hash": "bb", "epochs": 90.0})
    runs = [*runs_of(tmp_path / "a", "r18", 0.9, 1), *other[1:]]
    assert len(group_runs([read_run(run) for run in runs])) == 2
