"""The report on depth: claims with their intervals, columns of one protocol, three files with the same figures."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from tests.evaluation.study_runs import make_run, make_study
from vertebra.evaluation.plots.lines import spread_labels
from vertebra.evaluation.study.averages import mean_curve
from vertebra.evaluation.study.findings import change
from vertebra.evaluation.study.nets import describe_net
from vertebra.evaluation.study.render import write_study
from vertebra.evaluation.study.runs import count_parameters, error_curve, last_error, read_study_run
from vertebra.ground import formats
from vertebra.ground.errors import UserError

DEGRADED = {
    "cifar_plain20": [14.0, 14.4, 14.2],
    "cifar_plain56": [20.1, 19.5, 20.7],
    "cifar_r20": [13.0, 13.3, 12.7],
    "cifar_r56": [9.0, 9.4, 9.2],
}


def report_on(runs: list[Path], out: Path) -> dict[str, Any]:
    page = write_study(runs, out)
    assert page == out / "report.html"
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def degraded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("degraded")
    return report_on(make_study(root, DEGRADED), root / "report"), root / "report"


# Statistics


def test_difference_of_two_groups_is_welchs():
    first, second = [27.5, 21.0, 19.0, 23.6, 17.0], [27.1, 22.0, 20.8, 23.4]
    found = change([first], [second])
    parts = [statistics.variance(group) / len(group) for group in (first, second)]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(statistics.fmean(first) - statistics.fmean(second))
    assert found.se == pytest.approx(math.sqrt(sum(parts)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_single_run_has_no_interval():
    found = change([[3.0], [1.0, 2.0]], [[1.0], [1.0]])
    assert (found.value, found.se, found.low, found.sign) == (2.5, None, None, 0)
    assert str(found) == "+2.50"


def test_an_interval_of_four_groups_has_satterthwaites_degrees_of_freedom():
    groups = [[27.5, 21.0, 19.0], [27.1, 22.0], [20.8, 23.4, 24.0, 25.0], [11.0, 12.5]]
    found = change(groups[:2], groups[2:])
    parts = [statistics.variance(group) / len(group) for group in groups]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups))
    assert 3 < freedom < 4
    quantiles = {3: 3.182, 4: 2.776}  # of printed tables
    assert quantiles[4] * found.se < found.high - found.value == pytest.approx(found.value - found.low)
    assert found.high - found.value < quantiles[3] * found.se


def test_training_error_is_the_mean_over_the_last_tenth_by_steps():
    curve = [(80.0, 50.0), (95.0, 30.0), (100.0, 20.0)]
    # From 90 on: five steps of the line at 95, five of the line at 100.
    assert last_error(curve, 100) == pytest.approx((5 * 30 + 5 * 20) / 10)
    assert last_error([], 100) is None


def test_curves_are_averaged_at_the_first_ones_points():
    points, spans = mean_curve([[(0.0, 1.0), (10.0, 3.0)], [(0.0, 3.0), (20.0, 7.0)]])
    assert points == [(0.0, 2.0), (10.0, 4.0)]
    assert spans[0] == pytest.approx((0.0, 2 - math.sqrt(2), 2 + math.sqrt(2)))
    assert mean_curve([[(50.0, 1.0)], [(0.0, 3.0), (20.0, 7.0)]])[0] == [(50.0, 4.0)]  # beyond its end at its end


def test_names_at_the_lines_ends_do_not_touch():
    places = spread_labels([100.0, 98.0, 99.0, 10.0], 15.0, 100.0)
    assert sorted(places) == [10.0, 70.0, 85.0, 100.0]
    assert places[1] < places[2] < places[0]


# Findings


def test_degradation_is_shown_where_plain_nets_alone_get_worse(degraded):
    report, _ = degraded
    assert report["headline"].startswith(
        "Degradation is shown: plain-56\u2019s training error is 5.90\u00a0points above"
    )
    assert "ResNet-56\u2019s is 3.80\u00a0points below ResNet-20\u2019s" in report["headline"]
    training, test = report["findings"]
    assert (training["verdict"], test["verdict"]) == ("shown", "shown")
    assert training["contrast"]["value"] == pytest.approx(5.9 + 3.8)
    spread = math.sqrt(sum(statistics.variance(values) / 3 for values in DEGRADED.values()))
    assert training["contrast"]["se"] == pytest.approx(spread)


def test_degradation_is_not_shown_where_both_kinds_get_worse_alike(tmp_path):
    alike = {**DEGRADED, "cifar_r56": [18.6, 19.4, 19.0]}
    report = report_on(make_study(tmp_path, alike), tmp_path / "report")
    assert report["headline"].startswith("Degradation is not shown: ")
    assert report["findings"][0]["plain"]["low"] > 0


def test_of_single_runs_nothing_is_claimed(tmp_path):
    single = {net: values[:1] for net, values in DEGRADED.items()}
    report = report_on(make_study(tmp_path, single), tmp_path / "report")
    assert report["headline"].startswith("plain-56\u2019s training error is 6.10\u00a0points above plain-20\u2019s")
    assert "no statement on spread" in report["sentences"][0]
    assert report["findings"][0]["verdict"] == "single"
    assert "±" not in (tmp_path / "report" / "report.md").read_text()


def test_depths_that_only_one_kind_has_are_not_compared(tmp_path):
    errors = {"cifar_plain20": [14.0, 14.1], "cifar_r20": [13.0, 13.2], "cifar_r110": [8.0, 8.1]}
    report = report_on(make_study(tmp_path, errors), tmp_path / "report")
    assert report["findings"] == []
    assert any("No claim on depth" in note for note in report["notes"])


def test_mixed_images_have_no_training_error(tmp_path):
    run = read_study_run(make_run(tmp_path, "r18", train_error=9, test_error=9, shortcut="B", mixup=0.2))
    assert run.train_error is None and run.train_curve == []


# Tables


def table(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in report["tables"] if found["title"].startswith(name))


def test_only_the_table_with_runs_is_shown_and_stands_beside_the_papers(degraded):
    (found,) = degraded[0]["tables"]
    rows = dict(found["rows"])
    assert found["title"].startswith("Table 6: ")
    assert rows["ResNet-56"] == ["432", "9.20 ± 0.20", "14.20 ± 0.20", "6.97"]
    assert rows["plain-56"][-1] == formats.NONE


def test_a_shortened_schedule_is_marked_and_a_whole_one_is_not(degraded, tmp_path):
    short, _ = degraded
    whole = make_run(tmp_path, "cifar_r20", train_error=1, test_error=9, shortcut="A", iterations=64_000)
    notes = [column["notes"] for column in table(short, "Table 6")["columns"] if column["name"] == "Test error"]
    assert any("1,600 steps of 128: shortened, 1/40" in note for note in notes[0])
    assert "shortened" not in json.dumps(report_on([whole], tmp_path / "report")["tables"])


def test_two_protocols_never_share_a_column(tmp_path):
    runs = [
        make_run(tmp_path, "plain34", train_error=20, test_error=28, data="imagenet"),
        make_run(tmp_path, "r34", train_error=20, test_error=25, shortcut="A", data="imagenet"),
        make_run(tmp_path, "vgg16", train_error=20, test_error=29, data="imagenet", **{"solver.weight_decay": 5e-4}),
    ]
    report = report_on(runs, tmp_path / "report")
    found = table(report, "Table 3")
    own = [place for place, column in enumerate(found["columns"]) if column["notes"][0] == "Ours"]
    rows = dict(found["rows"])
    for place in own:
        assert formats.NONE in (rows["plain-34"][place], rows["VGG-16"][place])
    assert rows["VGG-16"][-2:] == ["28.07", "9.33"]
    assert any("VGG-16 (solver.weight_decay 0.0005)" in note for note in report["notes"])


def test_each_view_has_its_own_column_beside_the_papers_of_that_view(tmp_path):
    views = {"10crop": 24.0, "multiscale": 21.0}
    runs = [
        make_run(tmp_path, "plain18", train_error=20, test_error=30, data="imagenet"),
        make_run(tmp_path, "plain34", train_error=20, test_error=31, data="imagenet"),
        make_run(tmp_path, "r18", train_error=20, test_error=29, shortcut="B", data="imagenet"),
        make_run(tmp_path, "r34", train_error=20, test_error=26, shortcut="B", data="imagenet", views=views),
    ]
    report = report_on(runs, tmp_path / "report")
    third, fourth = table(report, "Table 3"), table(report, "Table 4")
    row = dict(third["rows"])["ResNet-34 B"]
    by_view = {(c["name"], c["notes"][2]): cell for c, cell in zip(third["columns"], row)}
    assert by_view["Top-1 error", "1 centre crop"] == "26.00"
    assert by_view["Top-1 error", "10 crops"] == "24.52"  # the paper's is the last of that name
    assert "24.00" in dict(third["rows"])["ResNet-34 B"]
    assert dict(fourth["rows"])["ResNet-34 B"][::2] == ["21.00", "21.84"]
    second = table(report, "Table 2")
    assert [c["name"] for c in second["columns"]] == ["plain", "ResNet B", "ResNet B", "plain", "ResNet A"]
    assert dict(second["rows"])["34 layers"] == ["31.00", "26.00", "24.00", "28.54", "25.03"]


def test_only_the_papers_views_of_the_last_weights_fill_a_column(tmp_path):
    run = make_run(tmp_path, "r18", train_error=20, test_error=29, shortcut="B")
    entry = {"weights": "run/model.safetensors", "view": "10crop", "flip": True, "top1": 73.0, "top5": 90.0}
    others = [
        {**entry, "view": "1crop", "flip": True},
        {**entry, "view": "dense", "flip": False},
        {**entry, "weights": "run/model_best.safetensors", "view": "multiscale"},
        {**entry, "weights": ["a", "b"], "view": "multiscale"},
    ]
    (run / "evaluation_views.json").write_text(json.dumps([entry, *others]))
    assert report_on([run], tmp_path / "report")["runs"][0]["errors"] == {
        "1crop": {"error1": 29.0, "error5": 1.0},
        "10crop": {"error1": 27.0, "error5": 10.0},
    }


def test_bottlenecks_that_stride_elsewhere_are_another_net_than_the_papers():
    identity = {"name": "r50", "width": 1.0, "shortcut": "B"}
    paper, late = (describe_net({**identity, "stride_in": place}) for place in ("1x1", "3x3"))
    assert (paper.label, paper.as_published) == ("ResNet-50 B", True)
    assert (late.label, late.as_published) == ("ResNet-50 B (stride in 3x3)", False)
    assert describe_net({**identity, "name": "r34", "stride_in": "3x3"}).as_published  # has no bottlenecks


def test_the_curve_of_an_average_is_the_averages_to_its_end():
    lines = [{"iteration": 5, "top1": 60.0, "ema_top1": 70.0}, {"iteration": 9, "top1": 75.0}, {"iteration": 9}]
    assert error_curve(lines) == [(5.0, 30.0), (9.0, 25.0)]


def test_the_warm_start_of_110_layers_is_part_of_the_protocol(tmp_path):
    warm = {"solver.warmup_until_error": 80.0, "solver.warmup_factor": 0.1}
    runs = [
        make_run(tmp_path, "cifar_r56", train_error=9, test_error=14, shortcut="A"),
        make_run(tmp_path, "cifar_r110", train_error=8, test_error=13, shortcut="A", **warm),
    ]
    report = report_on(runs, tmp_path / "report")
    assert [net["label"] for net in report["nets"]] == ["ResNet-56", "ResNet-110"]
    assert any(note.startswith("ResNet-110 began at a lower rate") for note in report["notes"])


def test_parameters_are_counted_without_running_figures(tmp_path):
    run = make_run(tmp_path, "cifar_r20", train_error=9, test_error=9)
    assert count_parameters(run / "model.safetensors") == 16 * 3 * 3 * 3
    assert count_parameters(tmp_path / "none.safetensors") is None


# Files


def test_the_page_asks_for_nothing_from_outside_and_escapes_what_it_is_told(tmp_path):
    runs = make_study(tmp_path, DEGRADED)
    layers = [{"layer": f"l{i}", "deviation": 0.5 + i / 100} for i in range(19)]
    (runs[0] / "responses.json").write_text(json.dumps({"images": 7, "layers": layers}))
    report = report_on(runs, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*(?!["'](#|data:))\S""", page)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert "a &lt;fast&gt; one" in page or "a \\u003cfast\\u003e one" in page
    assert "<fast>" not in page
    assert report["responses"][0]["deviations"][:2] == [0.5, 0.51]


def test_the_three_files_say_the_same(degraded):
    report, out = degraded
    page, text = ((out / name).read_text() for name in ("report.html", "report.md"))
    for found in [report["findings_table"], *report["tables"]]:
        for _, cells in found["rows"]:
            for cell in cells:
                assert cell in text
                assert all(part in page for part in cell.removesuffix(")").split(" ("))
    for sentence in report["sentences"]:
        assert sentence in page


BROKEN = [  # a file of the run, its text, and what the message says
    ("responses.json", "[]", "it has no responses of layers; remove it"),
    ("evaluation.json", '{"coco": {}}', "it is no run of a classifier; name runs of"),
    ("provenance.json", "{}", "not finished"),
    ("model.safetensors", "short", "cannot be read as safetensors .*; restore it or run again"),
    ("evaluation_10crop.json", "{", "not valid JSON .*evaluate the weights again, or remove it"),
]


@pytest.mark.parametrize(("name", "text", "problem"), BROKEN)
def test_a_broken_run_is_refused_with_a_way_out(tmp_path, name, text, problem):
    run = make_run(tmp_path, "cifar_r20", train_error=9, test_error=9)
    (run / name).write_text(text)
    with pytest.raises(UserError, match=problem):
        write_study([run], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_runs_that_do_not_go_together_are_refused(tmp_path):
    good, again = (make_run(tmp_path / name, "cifar_r20", train_error=9, test_error=9) for name in "ab")
    for runs, problem in (
        ([], "no finished run"),
        ([good, good], "given twice; name each once"),
        ([tmp_path / "absent"], "is not a directory"),
        ([good, again], "both are ResNet-20 with seed 0, .*; leave one of them out"),
    ):
        with pytest.raises(UserError, match=problem):
            write_study(runs, tmp_path / "report")
