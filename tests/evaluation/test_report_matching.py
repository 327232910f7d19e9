"""The gallery's matches, thresholds and order, on cases worked by hand; and its pictures, as small as they must be."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.report import gallery
from evaluation.report.curves import smoothed, thinned, total_loss
from evaluation.report.matching import best_threshold, match_image, match_images
from evaluation.report.svg import nice_ticks


def truth(x: float, category: int = 1, **flags: int) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": [x, 0, 10, 10], **flags}


def found(x: float, score: float, category: int = 1) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}


def test_a_second_detection_of_one_object_is_a_false_positive() -> None:
    match = match_image([truth(0)], [found(1, 0.6), found(0, 0.5)])
    assert match.counts(0.0) == (1, 1, 0)
    assert match.taken_D.tolist() == [0, -1]


def test_the_wrong_class_is_a_false_positive_and_a_miss() -> None:
    assert match_image([truth(0)], [found(0, 0.9, category=2)]).counts(0.0) == (0, 1, 1)


def test_difficult_and_crowd_objects_count_neither_as_found_nor_as_missed() -> None:
    match = match_image([truth(0, difficult=1), truth(50, iscrowd=1)], [found(0, 0.9), found(50, 0.8), found(50, 0.7)])
    assert match.counts(0.0) == (0, 0, 0)
    assert match.f1(0.0) == 100


def test_an_object_that_counts_is_preferred_to_a_difficult_one() -> None:
    assert match_image([truth(0, difficult=1), truth(2)], [found(1, 0.9)]).counts(0.0) == (1, 0, 0)


def test_f1_is_that_of_found_false_and_missed() -> None:
    match = match_image([truth(0), truth(30), truth(60)], [found(0, 0.9), found(31, 0.4), found(90, 0.8)])
    assert match.counts(0.5) == (1, 1, 2)
    assert match.f1(0.5) == pytest.approx(100 * 2 / 5)
    assert match.counts(0.0) == (2, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), max_size=12), st.lists(st.integers(0, 8), max_size=5))
def test_the_best_threshold_beats_every_other_one(boxes: list[tuple[int, int]], truths: list[int]) -> None:
    match = match_image([truth(7.0 * x) for x in truths], [found(7.0 * x + 1, score / 10) for x, score in boxes])
    chosen = match.f1(best_threshold([match]))
    if match.counts(0.0)[0]:
        assert chosen >= max(match.f1(score / 10) for score in range(1, 10)) - 1e-9


def make_cases(differences: list[float]) -> list[gallery.Case]:
    image = {"width": 10, "height": 10}
    cases = [gallery.Case({**image, "id": i}, [match_image([], [])] * 2, [0, d], d) for i, d in enumerate(differences)]
    return sorted(cases, key=gallery._by_difference)


def test_the_side_that_wins_seldom_is_shown_as_well() -> None:
    chosen = gallery.choose(make_cases([90.0] * 20 + [-5.0, -4.0]), 6)
    assert [case.difference for case in chosen] == [90.0, 90.0, 90.0, 90.0, -5.0, -4.0]
    assert len(gallery.choose(make_cases([1.0, 0.0]), 6)) == 2


def test_every_image_is_matched_also_those_without_boxes() -> None:
    both = {"images": [{"id": 1}, {"id": 2}], "annotations": [truth(0)], "categories": []}
    assert {image: match.counts(0) for image, match in match_images(both, []).items()} == {1: (0, 0, 1), 2: (0, 0, 0)}


def test_thumbnails_shrink_until_the_page_holds_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (500, 700, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.jpg"), noise)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    monkeypatch.setattr(gallery, "THUMBNAIL_BYTES", 150_000)
    paths = [tmp_path / "noise.jpg"] * 6 + [tmp_path / "broken.jpg", None]
    uris = gallery.thumbnails(paths, [(700, 500)] * 8)
    assert uris[6:] == [None, None]
    data = [base64.b64decode(uri.split(",")[1]) for uri in uris[:6] if uri]
    assert sum(map(len, data)) <= 150_000
    height, width = cv2.imdecode(np.frombuffer(data[0], np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert width / height == pytest.approx(1.4, abs=0.02)


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
