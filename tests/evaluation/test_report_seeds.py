"""Several seeds of a backbone in the report: grouped, with mean and spread, and a verdict only where both have some."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report_cases import EMPTY_CLASS, WEIGHTS, make_truth, rows_of, trained_run
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.report.content import Comparison, Content, SideCost, SideFacts
from vertebra.evaluation.report.curves import mean_curve
from vertebra.evaluation.report.origins import Pretraining
from vertebra.evaluation.report.reasons import mean_of
from vertebra.evaluation.report.render import write_report
from vertebra.evaluation.report.runs import read_run
from vertebra.evaluation.report.sentences import caveat, details, headline
from vertebra.evaluation.report.sides import group_runs
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.report.task import DETECTION
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.explain import explain, judge
from vertebra.ground import formats


def runs_of(root: Path, backbone: str, share: float, seeds: int, first: int = 1, **facts: Any) -> list[Path]:
    return [
        trained_run(root / f"{backbone}_{seed}", backbone, share, first + seed, seed=seed, **facts)
        for seed in range(seeds)
    ]


def report_on(runs: list[Path], out: Path, **asked: Any) -> tuple[Content, str]:
    (content,) = write_report(runs, out, **asked).contents
    return content, (out / "report.md").read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Content, str, Path]:
    root = tmp_path_factory.mktemp("seeds")
    runs = [*runs_of(root, "plain18", 0.35, 3), *runs_of(root, "r18", 0.95, 3, first=10)]
    return runs, *report_on(runs, root / "out"), root / "out"


def test_runs_that_differ_by_the_seed_alone_are_one_side(several):
    runs, content, markdown, _ = several
    first, second = content.sides
    assert (first.label, first.seeds) == ("plain18", [0, 1, 2]) and second.label == "r18"
    for side, directories in ((first, runs[:3]), (second, runs[3:])):
        for name in ("AP", "AP50", "APs", "AR100"):
            values = [
                coco_figures(make_truth(), json.loads((one / "predictions.json").read_text()))[name]
                for one in directories
            ]
            if values[0] == values[0]:
                mean, std = statistics.fmean(values), statistics.stdev(values)
                assert side.figures[name] == Spread(pytest.approx(mean), pytest.approx(std), 3)
                text = f"{formats.ap(statistics.fmean(values))} ± {formats.ap(statistics.stdev(values))}"
                assert text in rows_of(markdown)[name]


def test_with_seeds_on_both_sides_there_is_a_verdict(several):
    _, content, _, _ = several
    (one,) = content.differences_to_baseline
    difference = one.differences["AP"]
    assert difference and difference.seeds == (3, 3) and difference.covers == one.covers == "seeds and images"
    assert difference.low > 0 and difference.p_value < 0.05
    half = difference.high - difference.estimate
    assert content.headline.replace("\u00a0", " ") == (
        f"r18 beats plain18 by {difference.estimate:.1f} ± {half:.1f} AP (3 seeds each)"
    )
    assert content.title == "plain18 against r18" and content.first == [] and content.caveat == ""
    assert difference.text()[:-1] in content.sentences[0]
    assert content.sentences[0].endswith("they cover other training seeds and other test images.")
    assert content.notes[0] == "Figures are means over seeds, ± their standard deviation."
    assert set(one.differences) == set(content.figures)


def test_a_note_says_which_seeds_share_their_pretraining(several, tmp_path):
    _, content, markdown, _ = several
    sentence = "All seeds of a backbone start from the same pre-trained weights"
    assert any(note.startswith(sentence) for note in content.notes) and sentence in markdown
    runs = runs_of(tmp_path, "plain18", 0.35, 2)
    for seed in range(2):  # one recipe, another pre-training for each seed
        weights = {**WEIGHTS, "source": f"backbone_{seed}/model.safetensors", "seed": seed}
        runs.append(trained_run(tmp_path / str(seed), "r18", 0.9, seed + 10, seed=seed, weights=weights))
    content, markdown = report_on(runs, tmp_path / "some")
    assert [len(side.seeds) for side in content.sides] == [2, 2]
    assert any(note.startswith("All seeds of plain18 start from the same ") for note in content.notes)
    content, _ = report_on(runs_of(tmp_path / "none", "r18", 0.9, 2, weights={"source": "none"}), tmp_path / "alone")
    assert not any("pre-trained" in note for note in content.notes)


def test_a_note_says_that_the_images_are_of_one_run_each(several, tmp_path):
    _, content, markdown, out = several
    sentence = "The images show one run of each side: plain18 seed 0 and r18 seed 0."
    assert content.gallery and content.gallery.note == sentence
    assert sentence in markdown and sentence in (out / "report.html").read_text()
    single = [*runs_of(tmp_path, "plain18", 0.35, 1), *runs_of(tmp_path, "r18", 0.9, 1)]
    content, markdown = report_on(single, tmp_path / "out")
    assert content.gallery and content.gallery.note == "" and "The images show" not in markdown


def side(label: str, seeds: int = 3, *, file: bool = False, ap: float = 40.0, **costs: float) -> SideFacts:
    measures = dict.fromkeys(("flops", "latency_s", "time_per_image_s", "parameters"))
    measures |= {name: Spread(value, 0.0, seeds) for name, value in costs.items()}
    figures = {name: Spread(ap, 0.5, seeds) for name in ("AP", "AP50")}
    return SideFacts(label, file, {}, list(range(seeds)), figures, SideCost(measures), "unknown", Pretraining())


def lead_of(
    sides: list[SideFacts], low: float = 5.0, high: float = 7.0, *, p_value: float = 0.01, **ratios: float
) -> Comparison:
    """The second side against the first, which is next to it."""
    a, b = sides[:2]
    seeds = (len(a.seeds), len(b.seeds))
    adjusted = p_value if len(sides) > 2 else None
    one = Difference((low + high) / 2, low, high, 0.95, p_value, 0.5, 9.0, seeds, adjusted)
    return Comparison(a.label, b.label, one.covers, {"AP": one, "AP50": one}, {}, ratios)


R18, R50, R34 = side("r18"), side("r50"), side("r34")
ONE, FILE = "their backbones: both have only one seed.", "their training protocols are not known to be equal."
HEADLINES = [  # sides, the lead's interval and p, headline, the caveat's end
    ([R18, R50], (1.4, 3.2, 0.01), "r50 beats r18 by 2.3 ± 0.9 AP (3 seeds each)", ""),
    ([R18, R50], (-0.5, 1.3, 0.4), "r50 and r18 cannot be told apart: 0.4 ± 0.9 AP (3 seeds each)", ""),
    ([R18, R50, R34], (8.5, 9.9, 0.01), "r50 beats the runner-up, r18, by 9.2 ± 0.7 AP (3 seeds each)", ""),
    (
        [R18, R50, R34],
        (-0.4, 3.6, 0.2),
        "r50 comes first, but cannot be told apart from the runner-up, r18: 1.6 ± 2.0 AP (3 seeds each)",
        "",
    ),
    (
        [R18, R50, R34],
        (0.4, 3.6, 0.06),
        "r50 comes first, but cannot be told apart from the runner-up, r18: 2.0 ± 1.6 AP, p = 0.060 after correction "
        "for 3 comparisons (3 seeds each)",
        "",
    ),
    ([side("r18", 1), side("r50", 1)], (1.4, 3.2, 0.01), "r50 beats r18 by 2.3 ± 0.9 AP (1 seed each)", ONE),
    (
        [side("r18", 1), R50],
        (1.4, 3.2, 0.01),
        "r50 beats r18 by 2.3 ± 0.9 AP (3 seeds against 1)",
        "r18 has only one seed.",
    ),
    ([side("yolo", file=True), R50], (1.4, 3.2, 0.01), "r50 beats yolo by 2.3 ± 0.9 AP (3 seeds each)", FILE),
]


@pytest.mark.parametrize(("sides", "interval", "sentence", "ends"), HEADLINES)
def test_the_headline_is_a_plain_sentence_with_its_caveat(sides, interval, sentence, ends):
    lead = lead_of(sides, *interval[:2], p_value=interval[2])
    assert headline(DETECTION, sides, lead).replace("\u00a0", " ") == sentence
    assert caveat(DETECTION, sides, lead).endswith(ends) and bool(caveat(DETECTION, sides, lead)) == bool(ends)


def test_one_side_alone_has_a_headline_and_no_details():
    assert headline(DETECTION, [R18], None) == "r18 reaches 40.0 ± 0.5\u00a0AP over 3 seeds"
    assert headline(DETECTION, [side("r18", 1)], None).endswith("AP")
    assert caveat(DETECTION, [R18], None) == "" and details(DETECTION, [R18], None) == []


def test_details_say_what_the_better_side_costs():
    sides = [
        side("r18", flops=2e9, latency_s=0.1, parameters=1e7),
        side("r50", flops=4e9, latency_s=0.15, parameters=1e7),
    ]
    accuracy, cost = details(DETECTION, sides, lead_of(sides, flops=2.0, latency_s=1.5, parameters=1.0))
    assert cost.replace("\u00a0", " ") == (
        "Compared with r18, r50 needs 2.0 times the FLOPs (4.00 G against 2.00 G), 1.5 times the latency (150 ms "
        "against 100 ms) and the same parameters (10.0 M)."
    )
    assert "a difference of +6.0 (+5.0 to +7.0, p = 0.010)" in accuracy


def test_one_image_with_objects_gives_no_difference(tmp_path):
    truth = make_truth()
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] == 5]
    runs = [trained_run(tmp_path, name, share, truth=truth) for name, share in (("r18", 0.0), ("r50", 1.0))]
    content, markdown = report_on(runs, tmp_path / "out")
    assert content.headline == "r50 and r18 cannot be compared: only one test image has objects"
    assert content.lead and all(one is None for one in content.lead.differences.values())
    assert all(row.difference is None for row in content.per_class) and content.headline in markdown


def test_classes_have_corrected_p_values(several):
    _, content, markdown, _ = several
    rows = {row.name: row.difference for row in content.per_class}
    assert rows.pop(EMPTY_CLASS) is None
    p_values = [one.p_value for one in rows.values()]
    assert min(one.adjusted_p for one in rows.values()) == pytest.approx(min(1, 2 * min(p_values)))
    assert formats.p_value(rows["ring"].adjusted_p) in rows_of(markdown)["ring"]


def test_errors_and_curves_of_a_side_are_means_over_its_seeds(several):
    runs, content, _, _ = several
    explained = [explain(judge(run / "truth.json", run / "predictions.json"))["errors"] for run in runs[:3]]
    for kind in content.reasons.to_dict()["errors"]["kinds"]:
        if not kind["special"]:
            assert kind["lost"][0] == pytest.approx(statistics.fmean(one["lost"][kind["kind"]] for one in explained))
            assert kind["counts"][0] == pytest.approx(
                statistics.fmean(one["counts"][kind["kind"]] for one in explained)
            )
    curves = [coco_figures(run / "truth.json", run / "predictions.json").curves["ring"] for run in runs[:3]]
    expected = [statistics.fmean(values) for values in zip(*curves)]
    assert content.precision_recall.per_class["ring"][0] == pytest.approx(expected, abs=1e-4)
    assert content.training[0].figures["AP"] == [(20.0, 10.0), (39.0, 19.5)] and len(content.training[0].runs) == 3


def test_means_of_trees_and_curves():
    first, second = ({"a": 1, "b": [1.0, {"c": None}], "d": "x"}, {"a": 4, "b": [2.0, {"c": 3}], "d": "x"})
    assert mean_of([first, second]) == {"a": 2.5, "b": [1.5, {"c": None}], "d": "x"}
    assert mean_of([first]) == first
    assert mean_curve([[(1, 2.0), (2, 4.0), (3, 0.0)], [(1, 4.0), (3, 1.0)]]) == [(1, 3.0), (3, 0.5)]
    assert mean_curve([]) == []


def test_every_run_is_listed_once(several):
    runs, content, markdown, out = several
    assert [(run.side, run.seed) for run in content.runs] == [
        (name, seed) for name in ("plain18", "r18") for seed in range(3)
    ]
    page = (out / "report.html").read_text()
    for run, facts in zip(runs, content.runs):
        figure = json.loads((run / "evaluation.json").read_text())["coco"]["AP"]
        assert facts.figures["AP"] == pytest.approx(figure)
        assert page.count(f">{run}</td>") == 1
        assert sum(formats.markdown(str(run)) in line for line in markdown.splitlines()) == 1


def test_equal_backbones_are_not_distinguishable_over_seeds(tmp_path):
    runs = [*runs_of(tmp_path, "r34", 0.7, 2, first=30), *runs_of(tmp_path, "r18", 0.7, 2, first=40)]
    content, markdown = report_on(runs, tmp_path / "out")
    assert "cannot be told apart: " in content.headline and content.headline.endswith("AP (2 seeds each)")
    assert "not distinguishable" in rows_of(markdown)["AP"]


def test_with_one_seed_on_a_side_there_is_no_verdict(tmp_path):
    runs = [*runs_of(tmp_path, "plain18", 0.35, 1), *runs_of(tmp_path, "r18", 0.95, 2, first=10)]
    content, markdown = report_on(runs, tmp_path / "out")
    (one,) = content.differences_to_baseline
    difference = one.differences["AP"]
    assert one.covers == "images" and difference and difference.freedom == 10  # of 11 images with objects
    assert content.sides[0].figures["AP"].std is None
    assert content.headline.startswith("r18 beats plain18 by ") and "2 seeds against 1" in content.headline
    assert content.caveat.endswith("plain18 has only one seed.")
    assert "not another training seed" in content.sentences[0] and "Where a side has one seed" in markdown


def test_the_same_seed_again_is_no_second_draw(tmp_path):
    twice = [runs_of(tmp_path / name, "r18", 0.9, 2) for name in "ab"]
    sides = group_runs([read_run(run) for run in (*twice[0], *twice[1])])
    assert [side.places for side in sides] == [[0, 1], [2, 3]] and len({side.label for side in sides}) == 2


def test_one_backbone_on_weights_of_two_recipes_is_two_sides(tmp_path):
    other = runs_of(tmp_path / "b", "r18", 0.9, 2, weights={**WEIGHTS, "protocol_hash": "bb", "epochs": 90.0})
    runs = [*runs_of(tmp_path / "a", "r18", 0.9, 1), *other[1:]]
    assert len(group_runs([read_run(run) for run in runs])) == 2
