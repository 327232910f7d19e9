"""The report on runs of train_seg.py: the figures that they recorded, intervals from resampled images, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.report_cases import make_truth, rows_of, trained_run
from tests.evaluation.segmenter_runs import CLASSES, PROTOCOL, draw_maps, segmenter_run
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.evaluation.report.content import Content
from vertebra.evaluation.report.expect import read_expectations
from vertebra.evaluation.report.render import Written, write_report
from vertebra.evaluation.report.scores import RESAMPLES
from vertebra.evaluation.statistics.comparison import compare_sides, holm
from vertebra.evaluation.statistics.resampling import draw_counts, resample_pixels
from vertebra.ground.errors import UserError
from vertebra.ground.formats import MINUS
from vertebra.ground.labels import IGNORED
from vertebra.recipes.installed import INSTALLED


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of each of three backbones, the baseline the worst."""
    root = tmp_path_factory.mktemp("runs")
    return [
        segmenter_run(root, name, skill, seed)
        for name, skill in (("r18", 0.5), ("resnet50", 0.8), ("vgg16", 0.62))
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_report(runs, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def content(written: Written) -> Content:
    return written.contents[0]


def recorded(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_figures_are_means_of_what_the_runs_recorded_and_stand_in_every_file(
    content: Content, runs: list[Path], written: Written
) -> None:
    folder = written.page.parent
    rows = rows_of((folder / "report.md").read_text())
    page, tex = ((folder / f"report.{kind}").read_text() for kind in ("html", "tex"))
    for place, side in enumerate(content.sides):
        evaluations = [recorded(run) for run in runs[2 * place : 2 * place + 2]]
        for name in ("mIoU", "pixel accuracy", "mean accuracy", "fwIoU"):
            values = [one["segmentation"][name.replace(" ", "_")] for one in evaluations]
            assert side.figures[name].mean == pytest.approx(np.mean(values))
            assert side.figures[name].std == pytest.approx(np.std(values, ddof=1))
            assert all(str(side.figures[name]) in text for text in (rows[name], page)) and name in tex
        for row in content.per_class:
            iou = [one["classes"][row.name] for one in evaluations]
            assert row.figures["IoU"][place].mean == pytest.approx(np.mean(iou))
    report = json.loads((folder / "report.json").read_text())
    assert report["task"] == "segmentation" and report["data"]["pixels"] > 0 and len(report["data"]["classes"]) == 4
    assert [row["IoU"][0]["mean"] for row in report["per_class"]]
    assert report["training"][0]["mIoU"] == [[15.0, 7.5], [29.0, 14.5]]
    assert report["fronts"]["flops"]["points"][0]["mIoU"] == content.sides[0].figures["mIoU"].mean
    assert content.headline.startswith("resnet50 beats the runner-up, vgg16, by") and "mIoU" in content.headline


def test_nothing_of_detectors_is_in_it(written: Written) -> None:
    for kind in ("html", "md"):
        text = (written.page.parent / f"report.{kind}").read_text()
        assert not [word for word in ("detector", "AP ", "AP50", "Recall", "recall", "object", "None") if word in text]


def naive_iou(maps: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Each class's IoU over all pixels of the images, in one loop over classes; NaN for one that has no true pixel."""
    true, given = (np.concatenate([one[side].ravel() for one in maps]) for side in (0, 1))
    true, given = true[true != IGNORED], given[true != IGNORED]
    return [
        100 * ((true == c) & (given == c)).sum() / ((true == c) | (given == c)).sum() if (true == c).any() else np.nan
        for c in range(len(CLASSES))
    ]


def test_a_resample_scores_the_images_repeated_as_often_as_they_were_drawn() -> None:
    maps = draw_maps(0.6, seed=4)
    counts = PixelCounts.of([counts_3C(confusion(*one, len(CLASSES))) for one in maps])
    counts_SI = draw_counts(len(maps), 60, seed=1)
    figures = resample_pixels(counts, CLASSES, counts_SI)
    lost = 0
    for place, times in enumerate(counts_SI.astype(int), 1):
        drawn = [maps[i] for i in np.repeat(np.arange(len(maps)), times)]
        iou_C = naive_iou(drawn)
        lost += int(np.isnan(iou_C[3]))
        assert figures["mIoU"].per_class_SC[place] == pytest.approx(iou_C, nan_ok=True)
        assert figures["mIoU"].mean_S[place] == pytest.approx(np.nanmean(iou_C))
        true, given = (np.concatenate([one[side].ravel() for one in drawn]) for side in (0, 1))
        right = (true == given)[true != IGNORED]
        assert figures["pixel accuracy"].mean_S[place] == pytest.approx(100 * right.mean())
        shares = np.bincount(true[true != IGNORED], minlength=4) / len(right)
        assert figures["fwIoU"].mean_S[place] == pytest.approx(np.nansum(shares * iou_C))
        recall = [(given == c)[true == c].mean() for c in range(4) if (true == c).any()]
        assert figures["mean accuracy"].mean_S[place] == pytest.approx(100 * np.mean(recall))
    assert lost, "no resample lost the rare class: this tests too little"
    assert figures["mIoU"].images_of("rare") == 2 and figures["pixel accuracy"].images == len(maps)


def test_differences_are_those_of_sides_on_the_same_resamples_and_holms(content: Content) -> None:
    seeds = {name: [draw_maps(skill, 100 * len(name) + seed) for seed in (0, 1)] for name, skill in
             (("r18", 0.5), ("resnet50", 0.8), ("vgg16", 0.62))}  # fmt: skip
    counts_SI = draw_counts(14, RESAMPLES, seed=0)
    drawn = [np.arange(14), *(np.repeat(np.arange(14), times.astype(int)) for times in counts_SI[:150])]
    found = {
        name: np.array([[np.nanmean(naive_iou([maps[i] for i in one])) for one in drawn] for maps in of_side])
        for name, of_side in seeds.items()
    }
    for pair in content.differences_to_baseline:
        naive = compare_sides(found[pair.a], found[pair.b], images=14)
        ours = pair.differences["mIoU"]
        assert naive and ours and ours.estimate == pytest.approx(naive.estimate)
        assert ours.standard_error == pytest.approx(naive.standard_error, rel=0.15)  # of 150 resamples, not of all
        of_classes = list(pair.per_class.values())
        assert [one.adjusted_p for one in of_classes] == pytest.approx(holm([one.p_value for one in of_classes]))
    p_values = [pair.differences["mIoU"].p_value for pair in content.differences_to_baseline]
    adjusted = [pair.differences["mIoU"].adjusted_p for pair in content.differences_to_baseline]
    assert adjusted == pytest.approx([min(1, 2 * p_values[0]), max(2 * p_values[0], p_values[1])])  # the first is less


def test_older_runs_have_their_cost_beside_the_figures(tmp_path: Path) -> None:
    runs = [segmenter_run(tmp_path, name, skill, old=True) for name, skill in (("r18", 0.5), ("r50", 0.8))]
    (content,) = write_report(runs, tmp_path / "out").contents
    assert [side.cost.measures["parameters"].mean for side in content.sides] == [3e6, 3e6]
    assert content.sides[0].cost.measures["time_per_image_s"].mean == pytest.approx(0.06)
    assert content.sides[0].cost.measures["flops"] is None
    assert content.caveat.startswith("This compares two trained segmenters, not their backbones: both have only one")
    page = (tmp_path / "out" / "report.html").read_text()
    assert content.gallery is None and "Images are not shown: a run has no images.json" in page


def test_images_are_those_of_each_sides_first_run(content: Content, written: Written, runs: list[Path]) -> None:
    folder = written.page.parent
    recorded_images = json.loads((folder / "report.json").read_text())["gallery"]["images"]
    assert len(recorded_images) == len(draw_maps(0.5, 0)) == len(content.gallery.images)
    images = {one.id: one for one in content.gallery.images}
    for side, run in zip(content.sides, runs[::2]):
        counts = np.load(run / "pixel_counts.npz")
        for place, image_id in enumerate(counts["image_ids"].tolist()):
            right, given, true = (counts[name][place] for name in ("right_IC", "given_IC", "true_IC"))
            iou = [100 * r / (g + t - r) for r, g, t in zip(right, given, true) if g + t > 0]
            assert images[image_id].mIoU[side.label] == pytest.approx(np.mean(iou), abs=0.0051)
    worst = content.gallery.images[0]
    assert worst.file_name in rows_of((folder / "report.md").read_text())
    assert '<section id="images">' in written.page.read_text() and 'id="browser-photos"' in written.page.read_text()


def test_each_head_is_a_comparison_of_its_own(tmp_path: Path, runs: list[Path]) -> None:
    deeplab = [
        segmenter_run(tmp_path, name, skill, protocol=PROTOCOL | {"model.head": "deeplabv3"})
        for name, skill in (("r18", 0.6), ("resnet50", 0.7))
    ]
    written = write_report([*runs[:4], *deeplab], tmp_path / "out")
    assert [one.head for one in written.contents] == ["fcn", "deeplabv3"]
    overview = (tmp_path / "out" / "report.md").read_text()
    assert "mIoU, mean ± standard deviation over seeds" in overview and "AP" not in overview


def test_torchvisions_published_figures_are_those_of_its_weights() -> None:
    models = pytest.importorskip("torchvision.models.segmentation")
    names = {"r50": "ResNet50", "r101": "ResNet101", "fcn": "FCN", "deeplabv3": "DeepLabV3"}
    expectations = read_expectations(INSTALLED / "published" / "coco_voc_seg.yaml")
    absolute = [one for one in expectations if one.side]
    for one in absolute:
        weights = getattr(models, f"{names[str(one.head)]}_{names[str(one.side)]}_Weights").COCO_WITH_VOC_LABELS_V1
        (metrics,) = weights.meta["_metrics"].values()
        assert one.value == metrics[{"mIoU": "miou", "pixel accuracy": "pixel_acc"}[one.figure]]
    assert len(absolute) == 8


EXPECTED = """
- {side: r18, figure: mIoU, value: %.2f, tolerance: 0.01, head: fcn}
- {side: r18, figure: IoU, class: ring, value: %.2f, tolerance: 0.01}
- {difference: [resnet50, r18], figure: IoU, class: ring, value: 90, tolerance: 1}
- {side: r18, figure: IoU, class: zebra, value: 90, tolerance: 1}
- {side: r18, figure: AP, value: 90, tolerance: 1}
"""


def test_published_figures_of_classes_are_met_missed_or_not_here(tmp_path: Path, runs: list[Path]) -> None:
    evaluation = recorded(runs[0])
    file = tmp_path / "expect.yaml"
    file.write_text(EXPECTED % (evaluation["segmentation"]["mIoU"], evaluation["classes"]["ring"]))
    written = write_report([runs[0], runs[2]], tmp_path / "out", expect=file)
    outcomes = written.contents[0].expectations
    assert [one.outcome for one in outcomes] == ["met", "met", "missed", "not here", "not here"]
    assert written.expectations_missed[0].startswith(f"resnet50 {MINUS} r18 (fcn): IoU, ring is +")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{side: r18, figure: IoU, value: 1, tolerance: 1}", "IoU is of one class: name it as class: NAME"),
        ("{side: r18, figure: mIoU, class: cat, value: 1, tolerance: 1}", "class: cat has no mIoU, but AP, AP50 and"),
        ("{side: r18, figure: mean acc, value: 1, tolerance: 1}", "did you mean mean accuracy?"),
        (
            "{side: r18, figure: IoU, klass: cat, value: 1, tolerance: 1}",
            "there is no field klass; did you mean class?",
        ),
    ],
)
def test_faults_of_expectations_are_said(tmp_path: Path, runs: list[Path], entry: str, sentence: str) -> None:
    (tmp_path / "expect.yaml").write_text(f"- {entry}")
    with pytest.raises(UserError, match=sentence):
        write_report(runs[:1], tmp_path / "out", expect=tmp_path / "expect.yaml")


def test_runs_that_do_not_compare_are_refused_in_a_sentence(tmp_path: Path, runs: list[Path]) -> None:
    other = segmenter_run(tmp_path / "truth", "r18", 0.5, truth_seed=9)
    slow = segmenter_run(tmp_path / "slow", "r18", 0.5, protocol=PROTOCOL | {"solver.lr": 0.1})
    apart = segmenter_run(tmp_path / "apart", "r18", 0.5, truth_seed=9, protocol=PROTOCOL | {"model.head": "pyramid"})
    broken = [shutil.copytree(runs[0], tmp_path / name) for name in ("none", "cut", "edited", "less")]
    (broken[0] / "pixel_counts.npz").unlink()
    (broken[1] / "pixel_counts.npz").write_bytes(b"PK")
    for path, part, change in (
        (broken[2], "segmentation", {"mIoU": 1.0}),
        (broken[3], "classes", {"ground": 1.0}),
    ):
        evaluation = recorded(path)
        evaluation[part] = evaluation[part] | change if part == "segmentation" else change
        (path / "evaluation.json").write_text(json.dumps(evaluation))
    boxes = trained_run(tmp_path, "r18", 0.5)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(make_truth()))
    for given, options, sentence in (
        (
            [runs[0], boxes],
            {},
            "a segmenter, whose figure is mIoU, the other a detector, whose figure is AP",
        ),
        ([boxes, runs[0]], {}, "the other a segmenter, whose figure is mIoU: these cannot be compared"),
        ([runs[0], other], {}, "true classes differ, so they were scored on different annotations.*eval_seg.py"),
        ([runs[0], slow], {}, "their protocols differ in solver.lr: 0.02 against 0.1"),
        ([runs[0], apart], {}, r"different heads \(fcn, pyramid\) and different data"),
        ([broken[0]], {}, "pixel_counts.npz.*missing.*score the run with: python tools/eval_seg.py"),
        ([broken[1]], {}, "pixel_counts.npz.*cannot be read"),
        ([broken[2]], {}, "it has mIoU 1.0, but pixel_counts.npz scores .*eval_seg.py"),
        ([broken[3]], {}, "evaluation.json is of other images or classes"),
        ([runs[0]], {"truth": truth}, "COCO's predictions and truth are of detectors, it is a segm.*with --task seg"),
    ):
        with pytest.raises(UserError, match=f"(?s){sentence}"):
            write_report(given, tmp_path / "out", **options)
