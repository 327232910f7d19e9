"""What the browser of images knows of a detection, which images it chooses, and its photos; curves and ticks."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.cases import guess, random_case, thing, truth_of
from tests.evaluation.naive_matching import best_threshold, match_images
from vertebra.evaluation.plots.axes import nice_ticks
from vertebra.evaluation.report.browser import photos
from vertebra.evaluation.report.browser.images import KINDS, Detections, choose, gather, mark_detections, size_of
from vertebra.evaluation.report.curves import smoothed, thinned, total_loss

OBJECT, FAR = [0, 0, 10, 10], [70, 70, 10, 10]


def marked(objects: list[dict[str, Any]], guesses: list[dict[str, Any]]) -> Detections:
    return mark_detections("a", truth_of(objects, images=2, classes=("cat", "dog")), guesses)


def kinds_of(side: Detections) -> list[str]:
    return [KINDS[kind] for kind in side.kind_D]


def counts(side: Detections, threshold: float) -> tuple[int, ...]:
    return tuple(side.counts_3I(threshold)[:, 0].tolist())


def test_each_kind_of_detection_is_called_by_its_name() -> None:
    objects = [thing(OBJECT), thing(FAR, category=2), thing([30, 30, 10, 10], iscrowd=1)]
    guesses = [
        guess(OBJECT, 0.9),
        guess([0, 1, 10, 10], 0.8),  # the cat again
        guess([0, 4, 10, 10], 0.7),  # IoU 60 / 140 with the cat
        guess(FAR, 0.6),  # a dog called a cat
        guess([70, 74, 10, 10], 0.5),  # IoU 60 / 140 with a dog, called a cat
        guess([50, 0, 10, 10], 0.4),  # nothing there
        guess([31, 31, 5, 5], 0.3),  # within the crowd
    ]
    side = marked(objects, guesses)
    assert kinds_of(side) == ["right", "duplicate", "localisation", "classification", "both", "background", "excused"]
    assert side.truth_D.tolist() == [0, 0, 0, 1, -1, -1, -1]
    assert counts(side, 0.0) == (1, 5, 1)
    assert counts(side, 0.75) == (1, 1, 1)
    assert side.f1_I(0.0).tolist() == [pytest.approx(100 * 2 / 8), 100.0]  # the second image has nothing to find


def test_difficult_and_crowd_objects_count_neither_as_found_nor_as_missed() -> None:
    side = marked(
        [thing(OBJECT, difficult=1), thing(FAR, iscrowd=1)], [guess(OBJECT, 0.9), guess(FAR, 0.8), guess(FAR, 0.7)]
    )
    assert kinds_of(side) == ["excused"] * 3
    assert counts(side, 0.0) == (0, 0, 0) and side.f1_I(0.0)[0] == 100


def test_an_object_that_counts_is_preferred_to_a_difficult_one() -> None:
    assert counts(marked([thing(OBJECT, difficult=1), thing([2, 0, 10, 10])], [guess([1, 0, 10, 10], 0.9)]), 0.0) == (
        1,
        0,
        0,
    )


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(6))
def test_counts_and_threshold_are_those_of_a_loop(seed: int, levels: int | None) -> None:
    truth, predictions = random_case(seed, levels=levels)
    for entry in truth["annotations"]:
        entry["difficult"] = 0  # the loop excuses any number of detections on one
    for entry in predictions:
        entry["score"] = round(entry["score"], 4)
    side, loop = mark_detections("a", truth, predictions), match_images(truth, predictions)
    assert side.threshold == best_threshold(list(loop.values()))
    for threshold in (0.0, 0.4, side.threshold):
        expected = [loop[image["id"]].counts(threshold) for image in truth["images"]]
        assert side.counts_3I(threshold).T.tolist() == [list(row) for row in expected]
        assert side.f1_I(threshold) == pytest.approx([loop[image["id"]].f1(threshold) for image in truth["images"]])


def test_the_side_that_wins_seldom_is_shown_as_well() -> None:
    differences = np.array([90.0] * 20 + [-5.0, -4.0])
    chosen = choose(differences, np.ones(22, dtype=int), 6)
    assert differences[chosen].tolist() == [90.0, 90.0, 90.0, 90.0, -5.0, -4.0]
    assert choose(np.array([1.0, 0.0]), np.ones(2, dtype=int), 6).tolist() == [0, 1]
    assert choose(np.zeros(3), np.array([1, 5, 2]), 2).tolist() == [1, 2]  # of equals those with more objects
    assert len(choose(differences, np.ones(22, dtype=int), 0)) == 0


def test_what_is_gathered_of_an_image_is_its_own() -> None:
    truth, predictions = random_case(3)
    side = mark_detections("a", truth, predictions)
    places = np.array([7, 2, 5])
    shown = gather(truth, [side], places, [0.3], [])
    for image, place in zip(shown, places):
        id_ = truth["images"][place]["id"]
        assert image.id == id_
        assert image.truths == [entry for entry in truth["annotations"] if entry["image_id"] == id_]
        mine = [entry for entry in predictions if entry["image_id"] == id_ and round(entry["score"], 4) >= 0.3]
        mine.sort(key=lambda entry: -entry["score"])
        assert [one.bbox for one in image.found[0]] == [entry["bbox"] for entry in mine]
        for one in image.found[0]:
            if KINDS[one.kind] == "right":
                assert image.truths[one.truth]["category_id"] == one.category_id


def test_the_size_of_an_image_is_the_truths_or_the_files_or_that_of_its_boxes(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no image")
    assert size_of({"width": 7, "height": 5}, tmp_path / "a.png", []) == (7, 5)
    assert size_of({}, tmp_path / "a.png", []) == (40, 30)
    assert size_of({}, tmp_path / "b.png", [[10, 10, 5, 8], [0, 0, 3, 3]]) == (15, 18)


def decoded(uri: str) -> np.ndarray:
    import cv2

    data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def test_thumbnails_shrink_until_the_page_holds_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (500, 700, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.jpg"), noise)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    monkeypatch.setattr(photos, "THUMBNAIL_BYTES", 1_000_000)
    paths = [tmp_path / "noise.jpg"] * 40 + [tmp_path / "broken.jpg", None]
    uris = photos.thumbnails(paths, [(700, 500)] * 42)
    assert uris[40:] == [None, None]
    assert sum(len(base64.b64decode(uri.split(",")[1])) for uri in uris[:40] if uri) <= 1_000_000
    height, width = decoded(str(uris[0])).shape[:2]
    assert width / height == pytest.approx(1.4, abs=0.02)


def test_large_photos_are_read_small_and_turned_as_the_truth_has_them(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (2600, 1300), (200, 30, 30))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=turned)
    assert photos.load(tmp_path / "a.jpg", (1300, 2600), 640).shape == (650, 325, 3)
    assert photos.load(tmp_path / "a.jpg", (2600, 1300), 640).shape == (325, 650, 3)
    assert photos.load(tmp_path / "a.jpg", None, 640).shape == (2600, 1300, 3)


def test_the_total_loss_is_the_logged_one_or_the_sum_of_its_parts() -> None:
    assert total_loss({"loss": 2.0, "loss_cls": 1.5}) == 2.0
    assert total_loss({"loss_cls": 1.5, "loss_box": 0.25, "lr": 0.1}) == 1.75
    assert total_loss({"loss": None}) is None
    assert total_loss({"loss": float("nan")}) is None


def test_smoothing_keeps_a_constant_and_thinning_keeps_the_end() -> None:
    flat = [(float(i), 3.0) for i in range(1000)]
    assert smoothed(flat) == flat
    thin = thinned(flat)
    assert len(thin) <= 242 and thin[0] == flat[0] and thin[-1] == flat[-1]


@given(st.floats(-100, 100), st.floats(0.01, 1000))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
