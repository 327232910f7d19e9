"""tools/compare.py --task seg on anybody's folders of maps, alone and beside runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run
from tests.data.test_semantic import write_map, write_own
from tests.evaluation.report_cases import trained_run
from tests.evaluation.segmenter_runs import CLASSES, draw_maps, segmenter_run

TRUTH = ("--truth", "{home}/truth", "--classes", "{home}/classes.txt")
COLOURS = np.array([[0, 0, 255], [9, 9, 9], [255, 0, 0], [0, 200, 0]], np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth in colours, pictures, and maps of three others, indexed, grey and in colours; of `poor` some pixels have
    no class."""
    home = tmp_path_factory.mktemp("maps")
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in zip(CLASSES, COLOURS.tolist())]
    (home / "classes.txt").write_text("\n".join([*lines, "ignored 255 255 255"]))
    table_V3 = np.concatenate([COLOURS, np.full((252, 3), 255, np.uint8)])
    (home / "pictures").mkdir()
    for name, skill, seed in (("good", 0.8, 1), ("poor", 0.5, 2), ("other", 0.6, 3)):
        for place, (labels_HW, found_HW) in enumerate(draw_maps(skill, seed)):
            if name == "poor":
                found_HW[0, :3] = 255
            as_colours = name == "good"
            write_map(home / name / "deep" / f"{place}.png", table_V3[found_HW] if as_colours else found_HW)
            write_map(home / "truth" / f"{place}.png", table_V3[labels_HW])
            Image.fromarray(table_V3[labels_HW] // 2).save(home / "pictures" / f"{place}.jpg")
    return home


def sides_of(home: Path, *names: str) -> list[str]:
    return [f"{name.rstrip('_')}={home / name}" for name in names]


def report_of(out: Path, *flags: object) -> dict:
    run("compare", *flags, "--report", out)
    return json.loads((out / "report.json").read_text())


def test_folders_are_compared_as_score_compares_them(home: Path, tmp_path: Path) -> None:
    truth = ("--truth", home / "truth", "--classes", home / "classes.txt")
    flags = ("--task", "seg", "--predictions", *sides_of(home, "poor", "good", "other"), *truth)
    report = report_of(tmp_path / "out", *flags, "--images", home / "pictures")
    scored = ("--metric", "miou", *truth, "--predictions", home / "good", "--against", home / "poor")
    run("score", *scored, "--resamples", 1000, "--json", tmp_path / "score.json")
    wanted = json.loads((tmp_path / "score.json").read_text())
    sides = {side["label"]: side for side in report["sides"]}
    assert [*sides] == ["poor", "good", "other"] and report["data"]["classes"] == [*CLASSES]
    assert sides["good"]["figures"]["mIoU"]["mean"] == pytest.approx(wanted["figures"]["mIoU"])
    gain = report["differences_to_baseline"][0]["differences"]["mIoU"]
    assert [gain[name] for name in ("estimate", "low", "high")] == pytest.approx(
        [wanted["against"][name] for name in ("estimate", "low", "high")]
    )
    ious = [row["IoU"][1]["mean"] for row in report["per_class"]]
    assert ious == pytest.approx([wanted["per_class"][name]["IoU"] for name in CLASSES])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "are folders of predictions only: how the segmenter was trained is not known" in page
    gallery = report["gallery"]
    assert gallery["images_not_found"] == 0 and {one["file_name"] for one in gallery["images"]} == {
        f"{n}.jpg" for n in range(14)
    }
    assert not re.search(r"\b(detectors?|boxes|AP|object)\b", (tmp_path / "out" / "report.md").read_text())


def test_folders_beside_a_run_are_scored_on_its_truth(home: Path, tmp_path: Path) -> None:
    runs = [segmenter_run(tmp_path, name, skill, seed=0) for name, skill in (("r18", 0.5), ("resnet50", 0.8))]
    seeds = [f"theirs={folder}" for folder in (home / "poor", home / "other")]
    flags = ("--task", "seg", "--predictions", *seeds, f"twin={runs[1] / 'maps'}")
    report = report_of(tmp_path / "out", *runs, *flags)
    sides = {side["label"]: side for side in report["sides"]}
    assert [*sides] == ["r18", "resnet50", "theirs", "twin"] and len(sides["theirs"]["seeds"]) == 2
    assert sides["twin"]["figures"] == sides["resnet50"]["figures"]
    by_pair = {(one["a"], one["b"]): one["differences"]["mIoU"] for one in report["differences_to_baseline"]}
    assert by_pair["r18", "twin"] == by_pair["r18", "resnet50"]
    shown = report["gallery"]["images"][0]
    assert shown["file_name"].endswith(".jpg") and shown["mIoU"]["twin"] == shown["mIoU"]["resnet50"]
    assert "The images show one run of each side: r18 seed 0, resnet50 seed 0, theirs folder 1 and" in (
        tmp_path / "out" / "report.md"
    ).read_text().replace("\n", " ")


def test_the_truth_may_be_a_data_set_whose_pictures_are_shown(tmp_path: Path) -> None:
    write_own(tmp_path / "own")
    shutil.copytree(tmp_path / "own" / "masks" / "train", tmp_path / "maps")
    truth = ("--truth", "maps:own/train", "--data", tmp_path, "--predictions", f"theirs={tmp_path / 'maps'}")
    report = report_of(tmp_path / "out", "--task", "seg", *truth)
    assert report["sides"][0]["figures"]["mIoU"]["mean"] == 100
    assert report["gallery"]["images_not_found"] == 0


@pytest.mark.parametrize(
    ("flags", "sentence", "code"),
    [
        (("{good}",), "--truth is missing: the folder of maps, or with --data the source", 2),
        (("{good}", "--data", "{home}"), "--data is where the source lies that --truth names", 2),
        (("{good}", "--truth", "{home}/truth", "--classes", "x", "--data", "."), "other truths have their classes", 2),
        (("{good}", "--truth", "{home}/truth"), "are colours, not indices of classes", 1),
        (("{good}", "--truth", "{home}/nowhere"), "nowhere: is no folder of maps", 1),
        (("good", "--truth", "{home}/truth"), "--predictions good: write NAME=FOLDER", 2),
        (("a={home}/nowhere", *TRUTH), "nowhere: is no folder of maps", 1),
        (("a={home}/good", "a={home}/good", *TRUTH), "good: it is given twice as a", 1),
        (("a={home}/good", "a={home}/copy", *TRUTH), "both have the same content as a; give one for each seed", 1),
        (("a={home}/few", *TRUTH), "few: has no map of 13 of 14 images", 1),
        (("{good}", "--seeds", "3", *TRUTH), "--seeds is for the --backbones of a matrix", 2),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_a_sentence(home: Path, tmp_path: Path, flags, sentence: str, code: int) -> None:
    if not (home / "few").exists():
        shutil.copytree(home / "good", home / "copy")
        (home / "few").mkdir()
        shutil.copy(home / "good" / "deep" / "0.png", home / "few")
    given = [flag.format(home=home, good=f"good={home / 'good'}") for flag in flags]
    done = run("compare", "--task", "seg", "--predictions", *given, "--report", tmp_path / "out", expect=code)
    assert sentence in done.err


def test_maps_are_not_of_detectors_nor_of_other_classes(home: Path, tmp_path: Path) -> None:
    boxes, run_dir = trained_run(tmp_path, "r18", 0.5), segmenter_run(tmp_path, "r50", 0.5)
    for flags, sentence, code in (
        ((boxes,), "it is a detector's run, and folders of maps are segmenters'", 1),
        ((run_dir, "--truth", home / "truth"), "--truth: folders of maps beside runs are scored on the truth", 2),
        ((segmenter_run(tmp_path, "old", 0.5, old=True),), "it has no images.json, maps/ and truth/", 1),
    ):
        done = run("compare", *flags, "--task", "seg", "--predictions", f"a={home / 'good'}", expect=code)
        assert sentence in done.err
    write_map(tmp_path / "bad" / "0.png", np.full((24, 35), 9, np.uint8))
    for place in range(1, 14):
        shutil.copy(home / "poor" / "deep" / f"{place}.png", tmp_path / "bad")
    wrong = run("compare", run_dir, "--task", "seg", "--predictions", f"a={tmp_path / 'bad'}", expect=1)
    assert "0.png: has index 9, in 840 of its pixels, which is none of the set's classes" in wrong.err


def test_maps_beside_a_matrix_are_read_before_anything_is_trained(home: Path, sample: Path, tmp_path: Path) -> None:
    cells = ("--backbones", "plain18", "r18", "--weights", "plain18=none", "r18=none", "--device", "cpu")
    flags = (*cells, "--data", sample, "--output", tmp_path / "runs", "--predictions", f"a={home / 'good'}")
    assert "good: has no map of" in run("compare", "--task", "seg", *flags, expect=1).err
    assert not (tmp_path / "runs" / "consoles").exists()
