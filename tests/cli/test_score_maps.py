"""tools/score.py --metric miou as a user types it: anybody's maps against the truth, by a loop and by scikit-learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run
from tests.data.test_semantic import write_map, write_own
from vertebra.evaluation.metrics.boundaries import boundary_f1
from vertebra.evaluation.statistics.comparison import compare_sides, figure_interval
from vertebra.evaluation.statistics.resampling import draw_counts

NAMES = ("sky", "road", "car", "tree")
COLOURS = np.array([[0, 0, 255], [9, 9, 9], [255, 0, 0], [0, 200, 0]], np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Truth and maps of six images, grey and indexed, of several sizes, and maps of no image."""
    rng = np.random.default_rng(0)
    for number in range(6):
        truth_HW = rng.integers(0, 4, (rng.integers(5, 20), 17)).astype(np.uint8)
        found_HW = np.where(rng.random(truth_HW.shape) < 0.6, truth_HW, rng.integers(0, 4, truth_HW.shape))
        truth_HW[rng.random(truth_HW.shape) < 0.2] = 255
        write_map(tmp_path / "truth" / f"{number}.png", truth_HW, "LP"[number % 2])
        write_map(tmp_path / "maps" / "inner" / f"{number}.png", found_HW.astype(np.uint8), "PL"[number % 2])
    write_map(tmp_path / "maps" / "other.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "coloured.txt").write_text(
        "\n".join(f"{name} {r} {g} {b}" for name, (r, g, b) in zip(NAMES, COLOURS.tolist()))
    )
    return tmp_path


def score(home: Path, *flags: object, expect: int = 0) -> str:
    both = ("--truth", home / "truth", "--predictions", home / "maps", "--metric", "miou")
    done = run("score", *both, *flags, expect=expect)
    return done.out if expect == 0 else done.err


def pixels_of_images(home: Path, folder: str) -> list[list[tuple[int, int]]]:
    """(true class, class that was given) of each image's labelled pixels, read as any tool reads such PNGs."""
    found = []
    for number in range(6):
        paths = (home / "truth" / f"{number}.png", home / folder / "inner" / f"{number}.png")
        pairs = zip(*(np.asarray(Image.open(path)).ravel().tolist() for path in paths))
        found.append([(true, given) for true, given in pairs if true != 255])
    return found


def pixels(home: Path) -> list[tuple[int, int]]:
    return [pair for pairs in pixels_of_images(home, "maps") for pair in pairs]


def test_figures_are_those_of_a_loop_and_of_scikit_learn(folders: Path) -> None:
    printed = score(folders, "--classes", folders / "classes.txt", "--per-class", "--json", folders / "out.json")
    written = json.loads((folders / "out.json").read_text())
    found = pixels(folders)
    matrix = np.zeros((4, 4), int)
    for true, given in found:
        matrix[true, given] += 1
    assert written["confusion"] == matrix.tolist() and written["images"] == 6
    ious = [100 * matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in range(4)]
    assert [written["per_class"][name]["IoU"] for name in NAMES] == pytest.approx(ious)
    assert written["figures"]["mIoU"] == pytest.approx(np.mean(ious))
    assert f"mIoU            {np.mean(ious):.2f}" in printed and "6 images, 4 classes" in printed
    sklearn = pytest.importorskip("sklearn.metrics")
    true, given = zip(*found)
    assert (sklearn.confusion_matrix(true, given) == matrix).all()
    assert written["figures"]["mIoU"] == pytest.approx(100 * sklearn.jaccard_score(true, given, average="macro"))
    assert written["figures"]["mean_accuracy"] == pytest.approx(100 * sklearn.balanced_accuracy_score(true, given))


def naive_mious(found: list[list[tuple[int, int]]], times_SI: np.ndarray) -> np.ndarray:
    """Mean IoU of the images as they are, and of each resample: each class over the pixels of the images drawn."""
    mious = []
    for times_I in [np.ones(len(found), int), *times_SI.astype(int)]:
        true, given = np.concatenate([np.array(pairs) for pairs in np.repeat(np.array(found, object), times_I)]).T
        classes = np.unique(true)
        mious.append(
            np.mean([((true == c) & (given == c)).sum() / ((true == c) | (given == c)).sum() for c in classes])
        )
    return 100 * np.array(mious)


def test_intervals_are_those_of_resampled_images_and_of_two_folders_on_the_same(folders: Path) -> None:
    shutil.copytree(folders / "maps", folders / "other")
    mine, rng = pixels_of_images(folders, "maps"), np.random.default_rng(1)
    for path in (folders / "other" / "inner").iterdir():
        found_HW = np.asarray(Image.open(path)).copy()
        found_HW[rng.random(found_HW.shape) < 0.5] = 3
        write_map(path, found_HW)
    flags = ("--resamples", 40, "--against", folders / "other", "--json", folders / "out.json")
    printed = score(folders, *flags)
    written = json.loads((folders / "out.json").read_text())
    counts_SI = draw_counts(6, 40, seed=0)
    mious = naive_mious(mine, counts_SI)
    others = naive_mious(pixels_of_images(folders, "other"), counts_SI)
    interval, gain = figure_interval(mious, images=6), compare_sides(others[None], mious[None], images=6)
    assert gain is not None and gain.estimate > 5
    assert [written["interval"][name] for name in ("low", "high")] == pytest.approx([interval.low, interval.high])
    names = ("estimate", "low", "high", "p_value")
    assert [written["against"][name] for name in names] == pytest.approx([getattr(gain, name) for name in names])
    assert (
        f"95 % interval of mIoU over 40 resamples of the images: {interval.low:.2f} to {interval.high:.2f}" in printed
    )
    assert f"mIoU less that of {folders / 'other'}: {gain.estimate:+.2f}, 95 % interval over 40" in printed
    same = score(folders, "--resamples", 40, "--against", folders / "maps")
    assert "+0.00, 95 % interval over 40 resamples of the images: +0.00 to +0.00" in same and "not dist" in same
    (folders / "other" / "inner" / "4.png").unlink()
    assert "has no map of 1 of 6 images, such as 4.png" in score(folders, *flags, expect=1)


def test_boundaries_are_scored_where_that_is_asked_for(folders: Path) -> None:
    score(folders, "--boundaries", "--json", folders / "out.json")
    maps = [(folders / "truth" / f"{n}.png", folders / "maps" / "inner" / f"{n}.png") for n in range(6)]
    wanted = np.mean([boundary_f1(*(np.asarray(Image.open(path)) for path in pair)) for pair in maps])
    assert json.loads((folders / "out.json").read_text())["figures"]["boundary_F1"] == pytest.approx(wanted)
    assert "boundary_F1" not in score(folders)


def test_without_a_list_the_classes_are_those_that_the_truth_has(folders: Path) -> None:
    score(folders, "--json", folders / "a.json")
    score(folders, "--classes", folders / "classes.txt", "--json", folders / "b.json")
    one, other = (json.loads((folders / name).read_text()) for name in ("a.json", "b.json"))
    assert one["figures"] == other["figures"] and list(one["per_class"]) == ["0", "1", "2", "3"]


def test_colours_are_read_by_the_list_of_classes(folders: Path) -> None:
    score(folders, "--json", folders / "a.json")
    for number in range(6):
        path = folders / "maps" / "inner" / f"{number}.png"
        write_map(path, COLOURS[np.asarray(Image.open(path))])
    score(folders, "--classes", folders / "coloured.txt", "--json", folders / "b.json")
    one, other = (json.loads((folders / name).read_text()) for name in ("a.json", "b.json"))
    assert one["confusion"] == other["confusion"]


def test_a_pixel_without_an_answer_is_wrong(folders: Path) -> None:
    for number in range(6):
        path = folders / "maps" / "inner" / f"{number}.png"
        shutil.copy(folders / "truth" / f"{number}.png", path)
    assert "mIoU            100.00" in score(folders)
    size = {number: len(pixels(folders)) for number in (0,)}[0]
    first = np.asarray(Image.open(folders / "truth" / "0.png"))
    write_map(folders / "maps" / "inner" / "0.png", np.full(first.shape, 255, np.uint8))
    lost = int((first != 255).sum())
    printed = score(folders, "--json", folders / "out.json")
    assert f"Note: {lost} labelled pixels are 255 in the maps, no class: counted as wrong" in printed
    written = json.loads((folders / "out.json").read_text())
    assert written["figures"]["pixel_accuracy"] == pytest.approx(100 * (size - lost) / size)
    assert written["unanswered"] == lost


def test_the_truth_may_be_a_data_set(tmp_path: Path) -> None:
    write_own(tmp_path / "own")
    shutil.copytree(tmp_path / "own" / "masks" / "train", tmp_path / "maps")
    flags = ("--truth", "maps:own/train", "--data", tmp_path, "--predictions", tmp_path / "maps", "--metric", "miou")
    assert "mIoU            100.00" in run("score", *flags).out
    (tmp_path / "leftImg8bit" / "test").mkdir(parents=True)
    write_map(tmp_path / "leftImg8bit" / "test" / "a_leftImg8bit.png", np.zeros((2, 2, 3), np.uint8))
    untold = ("--truth", "cityscapes/test", *flags[2:])
    assert "cityscapes/test: its maps are not here, so nothing can be scored" in run("score", *untold, expect=1).err


@pytest.mark.parametrize(
    ("break_", "sentence"),
    [
        (lambda home: (home / "maps/inner/3.png").unlink(), "has no map of 1 of 6 images, such as 3.png"),
        (lambda home: write_map(home / "maps/3.png", np.zeros((2, 2), np.uint8)), "3.png: has the name of"),
        (
            lambda home: write_map(home / "maps/inner/3.png", np.zeros((2, 9), np.uint8)),
            "is 9 x 2 pixels, its truth",
        ),
        (lambda home: write_map(home / "truth/3.png", np.zeros((2, 9, 3), np.uint8)), "are colours, not indices"),
        (lambda home: (home / "truth/3.png").write_bytes(b"no PNG"), "3.png: is not a PNG"),
        (lambda home: shutil.rmtree(home / "truth"), "truth: is no folder of maps"),
        (lambda home: [path.unlink() for path in (home / "truth").iterdir()], "truth: has no PNG in it"),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(folders: Path, break_, sentence: str) -> None:
    break_(folders)
    assert sentence in score(folders, expect=1)


def test_an_index_that_is_no_class_is_named(folders: Path) -> None:
    path = folders / "maps" / "inner" / "2.png"
    found_HW = np.asarray(Image.open(path)).copy()
    found_HW[0, 0] = 4
    write_map(path, found_HW)
    assert "2.png: has index 4, in 1 of its pixels, which is none of the set's classes" in score(folders, expect=1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--drop-invalid", "--difficult", "count"), "--difficult, --drop-invalid: not for miou"),
        (("--against", "other"), "--against needs --resamples"),
        (("--classes", "a", "b"), "--classes: miou takes one file"),
        (("--classes", "a", "--data", "."), "--classes and --data: the data set has its classes"),
        (("--metric", "coco", "--data", "."), "--data is for miou, not for coco"),
        (("--metric", "voc07", "--boundaries"), "--boundaries is for miou, not for voc07"),
    ],
)
def test_a_wrong_command_line_ends_in_exit_2(folders: Path, flags, sentence: str) -> None:
    assert sentence in score(folders, *flags, expect=2)


def test_all_pixels_ignored_have_no_figure(folders: Path) -> None:
    for path in (folders / "truth").iterdir():
        write_map(path, np.full((5, 5), 255, np.uint8))
        write_map(folders / "maps" / "inner" / path.name, np.zeros((5, 5), np.uint8))
    printed = score(folders, "--json", folders / "out.json")
    assert "mIoU                -" in printed
    assert json.loads((folders / "out.json").read_text())["figures"]["mIoU"] is None
    none = score(folders, "--resamples", 9, "--against", folders / "maps")
    assert "no interval of mIoU: it takes two images with a labelled pixel" in none and f"{folders / 'maps'}: -" in none
