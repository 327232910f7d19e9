"""Costs, the Pareto line and its chart, LaTeX, and the overview of several heads."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.report_cases import PROTOCOL, make_run, make_truth, trained_run
from vertebra.evaluation.plots.rows import Interval, group_chart, interval_chart
from vertebra.evaluation.report import latex
from vertebra.evaluation.report.charts import front_chart
from vertebra.evaluation.report.content import Front, FrontPoint, SideCost, SideFacts
from vertebra.evaluation.report.costs import COSTS, fronts, pareto
from vertebra.evaluation.report.origins import Pretraining
from vertebra.evaluation.report.page import text_of
from vertebra.evaluation.report.render import Written, write_report
from vertebra.evaluation.report.spread import Spread, with_unit
from vertebra.evaluation.report.task import DETECTION
from vertebra.ground import formats
from vertebra.ground.errors import UserError
from vertebra.ground.table import Cell, Row, Table

COST = {
    "parameters": 60_000_000,
    "flops": 3e11,
    "time_per_image_s": 0.2,
    "latency_s": 0.31,
    "images_per_s": 4.2,
    "peak_memory_mb": 2300.0,
    "peak_memory_of": "process",
    "device": "cpu",
    "threads": 2,
    "precision": "bf16",
    "proposals": 300,
    "input_hw": [600, 800],
    "classifier": {"parameters": 44_549_160, "flops": 7.6e9, "input_hw": [224, 224]},
}
SHARES = {"vgg16": 0.4, "r101": 0.9}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_pareto_line_is_what_nothing_dominates(points):
    def dominated(point):
        return any(o[0] <= point[0] and o[1] >= point[1] and o != point for o in points)

    naive = sorted(place for place, point in enumerate(points) if not dominated(point))
    found = pareto([(float(cost), float(gain)) for cost, gain in points])
    assert sorted(found) == naive
    assert [points[place][0] for place in found] == sorted(points[place][0] for place in found)


def with_cost(run: Path, cost: dict[str, Any]) -> Path:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cost": cost}))
    return run


def runs_of(root: Path, *heads: str, seeds: int = 2) -> list[Path]:
    """vgg16 at half the cost and r101, under each head."""
    return [
        with_cost(
            trained_run(
                root / head / str(seed),
                name,
                share,
                10 * place + seed,
                seed=seed,
                protocol={**PROTOCOL, "model.body": head},
            ),
            {**COST, "flops": COST["flops"] * (place + 1) / 2, "latency_s": 0.1 * (place + 1) + 0.01 * seed},
        )
        for head in heads
        for place, (name, share) in enumerate(SHARES.items())
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("costs")
    return write_report(runs_of(root, "c4"), root / "out")


@pytest.fixture(scope="module")
def written(report: Written) -> Path:
    return report.page.parent


def test_costs_are_means_over_the_seeds_in_every_file(report, written):
    (content,) = report.contents
    vgg, r101 = (side.cost for side in content.sides)
    latencies = [0.2, 0.21]
    mean, std = statistics.fmean(latencies), statistics.stdev(latencies)
    assert r101.measures["latency_s"] == Spread(pytest.approx(mean), pytest.approx(std), 2)
    assert r101.measures["classifier.parameters"].mean == 44_549_160 and r101.device == "cpu"
    assert content.differences_to_baseline[0].ratios["flops"] == pytest.approx(2)
    assert "r101 needs 2.0 times the FLOPs" in content.sentences[1]
    assert json.loads((written / "report.json").read_text())["sides"][1]["cost"]["classifier.parameters"]["n"] == 2
    page, markdown = ((written / f"report.{kind}").read_text() for kind in ("html", "md"))
    for text in ("205\u00a0ms", "44.5\u00a0M", "2.30\u00a0GB", "300\u00a0G"):
        assert text.split("\u00a0")[0] in page and text.split("\u00a0")[0] in markdown
    measured = "600 \u00d7 800 px, 300 proposals; times were measured on the CPU (2 threads, bf16)"
    assert f"{measured}; memory is that of the process" in page
    assert with_unit(vgg.measures["latency_s"], formats.seconds) == "105 ± 7\u00a0ms"


def points_of(ap: float, step: float, *costs: float, spread: float | None = None, name: str = "") -> list[FrontPoint]:
    return [FrontPoint(f"{name}{n}", n, cost, ap + step * n, spread, style=n) for n, cost in enumerate(costs)]


def drawn_front(points: list[FrontPoint], *pareto: int) -> str:
    return str(front_chart(Front("flops", "FLOPs", points, pareto, "AP")))


def test_the_front_names_every_point_and_its_line(report):
    (content,) = report.contents
    assert set(content.fronts) == {"flops", "latency_s", "parameters"}
    front = content.fronts["flops"]
    assert front.pareto == [0, 1]
    assert content.fronts["parameters"].pareto == [1]  # as many, and less AP
    drawn = str(front_chart(front))
    assert 'class="label">vgg16</text>' in drawn and 'class="label">r101</text>' in drawn
    assert 'aria-label="AP against FLOPs.' in drawn and "On the Pareto line: vgg16 and r101." in drawn
    assert drawn.count('class="whisker"') == 2 and 'class="pareto"' in drawn


def test_names_in_the_front_cover_no_other_name():
    costs = [1e9 * (1 + 0.01 * n) for n in range(6)]
    drawn = drawn_front(points_of(40, 0.05, *costs, spread=0.5, name="a backbone "), 5)
    spots = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label"', drawn)]
    assert len(spots) == 6
    for place, (x, y) in enumerate(spots):
        for other_x, other_y in spots[:place]:
            assert abs(y - other_y) >= 14 or abs(x - other_x) >= 80


def test_costs_far_apart_have_a_logarithmic_axis():
    drawn = drawn_front(points_of(10, 10, 10.0, 100.0, 1000.0), 0, 1, 2)
    line = re.search(r'd="M([\d.]+) [\d.]+L([\d.]+) [\d.]+L([\d.]+) [\d.]+" class="pareto"', drawn)
    assert line
    a, b, c = map(float, line.groups())
    assert b - a == pytest.approx(c - b, abs=0.05)


def test_older_runs_without_latency_are_drawn_by_their_time(tmp_path):
    runs = [trained_run(tmp_path, name, share) for name, share in SHARES.items()]
    (content,) = write_report(runs, tmp_path / "out").contents
    assert content.fronts["latency_s"].measure == "time_per_image_s"
    assert content.sides[0].cost.measures["latency_s"] is None


def test_a_front_has_one_measure_for_all_its_points():
    def side(label: str, ap: float, latency_s: float | None, time_s: float) -> SideFacts:
        cost = dict.fromkeys(COSTS) | {"time_per_image_s": Spread(time_s, None, 1)}
        cost["latency_s"] = None if latency_s is None else Spread(latency_s, None, 1)
        return SideFacts(label, False, {}, [0], {"AP": Spread(ap, None, 1)}, SideCost(cost), "", Pretraining())

    # Half of `new` is measured more slowly, one image at a time: beside `old`'s time in batches it would look worse.
    front = fronts(DETECTION, [side("old", 30, None, 0.10), side("new", 31, 0.25, 0.08)])["latency_s"]
    assert front.measure == "time_per_image_s" and front.what == "time per image"
    assert [point.cost for point in front.points] == [0.10, 0.08] and front.pareto == [1]
    both = fronts(DETECTION, [side("old", 30, 0.2, 0.10), side("new", 31, 0.25, 0.08)])["latency_s"]
    assert both.measure == "latency_s" and both.pareto == [0, 1]


def test_more_sides_than_styles_begin_again_in_chart_and_legend_alike():
    points = points_of(20, 1, *(1e9 * (1 + n) for n in range(8)))
    front = drawn_front(points, 0)
    sizes = str(group_chart([("small", list(range(10, 18)))], [p.label for p in points], empty="", label=""))
    styled = set(re.findall(r"\.dot\.(s\d)", str(text_of("style.css"))))
    for drawn in (front, sizes):
        used = re.findall(r'class="dot (s\d)"', drawn)
        assert len(used) == 8 and set(used) <= styled and used[6:] == used[:2]
    marks = re.findall(r"<(circle|path)[^>]*class=\"dot s0\"", front)
    assert marks == ["circle", "circle"]


LONG = "timm:convnext_tiny.in12k_ft_in1k, pre-trained"


def test_long_names_leave_room_for_the_intervals():
    rows = [Interval(LONG, 3.0, 2.0, 4.0, "+3.0"), Interval("x", -3.0, -4.0, -2.0, "-3.0")]
    drawn = str(interval_chart(rows, worse="r18 better", better="better than r18", label=""))
    whiskers = re.findall(r'd="M([\d.]+) [\d.]+V[\d.]+M[\d.]+ [\d.]+H([\d.]+)', drawn)
    (better_low, better_high), (worse_low, worse_high) = [tuple(map(float, edges)) for edges in whiskers]
    assert worse_low < worse_high < better_low < better_high
    assert f"<title>{LONG}: +3.0</title>" in drawn and ">timm:conv…re-trained<" in drawn
    names = re.findall(
        r'<text x="([\d.]+)" y="[\d.]+" class="label"><title>([^<]*)</title>([^<]*)<',
        drawn_front(points_of(20, 4, *(1e9 * (5 + n) for n in range(4)), name=f"{LONG} "), 0),
    )
    assert [title for _, title, _ in names] == [f"{LONG} {n}" for n in (3, 2, 1, 0)]
    assert all(0 <= float(x) <= 430 - 7.8 * len(name) for x, _, name in names)


def test_a_row_of_latex_is_no_option_of_the_row_before():
    table = Table("", ["b"], [Row("[0.5] r18", ["1"]), Row("*", ["2"]), Row("r[1]", ["3"])], "[a")
    tex = latex.tabular(table, [])
    assert all(line in tex for line in ("\n{}[a & b", "\n{}[0.5] r18 & 1", "\n{}* & 2", "\nr[1] & 3"))


def test_latex_is_a_whole_tabular_with_escaped_names(written):
    tex = (written / "report.tex").read_text()
    rows = [line for line in tex.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", tex)
    assert columns and {line.count("&") + 1 for line in rows} == {len(columns[1])}
    assert [tex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")] == [1, 3, 1, 1]
    code = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#_^~]|[±\u00d7\u2212\u2013]", code.replace("~", "")) and code.count(
        "{"
    ) == code.count("}")
    assert code.count("$") % 2 == 0 and r"$\pm$" in code
    table = Table("", ["50 % & more"], [Row("x{y}\\z", [Cell("< 1 ± 2", best=True)])], "a_b")
    assert latex.tabular(table, ["one\ntwo"]).splitlines()[0] == "% one two"
    assert r"a\_b & 50 \% \& more \\" in latex.tabular(table, [])
    assert r"x\{y\}\textbackslash{}z & \textbf{\textless{} 1 $\pm$ 2} \\" in latex.tabular(table, [])


def test_each_head_is_a_comparison_of_its_own_under_an_overview(tmp_path):
    runs = runs_of(tmp_path, "c4", "fpn")
    written = write_report(runs, tmp_path / "out", failed=["r101, fpn, seed 2: the job ended with 1"])
    assert written.page == tmp_path / "out" / "report.html" and written.expectations_missed == ()
    overview = json.loads((tmp_path / "out" / "report.json").read_text())
    page, markdown, tex = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md", "tex"))
    assert "Without a result: r101, fpn, seed 2: the job ended with 1." in page
    for place, head in enumerate(("c4", "fpn")):
        own = json.loads((tmp_path / "out" / head / "report.json").read_text())
        assert own["head"] == head and {run["directory"] for run in own["runs"]} == {
            str(run) for run in runs if run.parents[1].name == head
        }
        assert overview["heads"][place]["headline"] == own["headline"] and own["headline"] in page
        assert f'href="{head}/report.html"' in page and (tmp_path / "out" / head / "report.html").is_file()
        assert f"[{head}]({head}/report.md)" in markdown
        for side in written.contents[place].sides:
            figure = str(side.figures["AP"])
            assert f">{figure}</td>" in page and figure in markdown and latex.escape(figure) in tex
    assert "AP against FLOPs: no cheaper detector beats" in markdown and "AP against latency: no cheaper" in markdown
    points = overview["fronts"]["flops"]["points"]
    assert [point["label"] for point in points] == ["vgg16, c4", "r101, c4", "vgg16, fpn", "r101, fpn"]
    assert [point["style"] for point in points] == [0, 0, 1, 1]
    assert "default-src 'none'" in page and not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize("other", [{"truth": make_truth(images=3)}, {"train_fingerprint": "others"}])
def test_heads_on_different_data_are_refused(other, tmp_path):
    truth, more = other.get("truth"), {name: value for name, value in other.items() if name != "truth"}
    first = make_run(tmp_path / "first", "r18", [], protocol={**PROTOCOL, "model.body": "c4"})
    second = make_run(tmp_path / "second", "r18", [], truth=truth, protocol={**PROTOCOL, "model.body": "fpn", **more})
    with pytest.raises(UserError, match="different heads \\(c4, fpn\\) and different data"):
        write_report([first, second], tmp_path / "out")


def test_protocols_of_one_head_still_have_to_be_equal(tmp_path):
    runs = runs_of(tmp_path, "c4", "fpn", seeds=1)
    other = make_run(tmp_path / "other", "r50", [], protocol={**PROTOCOL, "model.body": "fpn", "solver.lr": 1.0})
    with pytest.raises(UserError, match=r"differ in solver\.lr: 0\.02 against 1\.0"):
        write_report([*runs, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
