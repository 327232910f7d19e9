"""Localisation's figures: against a loop and by hand; what goes into files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from vertebra.evaluation.metrics.location_results import coco_rows, ilsvrc_lines, summarise
from vertebra.evaluation.metrics.topk import wilson_interval
from vertebra.evaluation.predict.localisation import (
    Guesses,
    LocationTruth,
    errors_by_class,
    location_error,
    mean_share,
    overlaps,
    placed_boxes,
    predict_boxes,
    with_true_class,
)
from vertebra.ground.errors import UserError


def truth_of(labels: list[int], boxes: list[list[list[float]]], size_hw: tuple[int, int] = (100, 200)) -> LocationTruth:
    return LocationTruth(
        labels_I=np.array(labels),
        sizes_hw_I2=np.array([size_hw] * len(labels)),
        starts=np.cumsum([0, *map(len, boxes)]),
        boxes_K4=np.array([box for of_image in boxes for box in of_image], np.float32).reshape(-1, 4),
    )


def guesses_of(classes: list[list[int]], boxes: list[list[list[float]]]) -> Guesses:
    array = np.array(boxes, np.float32)
    return Guesses(np.array(classes), array, np.full(array.shape[:2], 0.5, np.float32))


def test_a_case_worked_by_hand() -> None:
    # image 0: the second of two truths is met exactly; 1: right class, IoU 0.5 (as good as right); 2: right class at
    # the second place, its box a third off (IoU 0.4); 3: the class is not among the guesses.
    truth = truth_of(
        [3, 1, 0, 2], [[[0, 0, 10, 10], [50, 50, 90, 90]], [[0, 0, 20, 10]], [[0, 0, 10, 10]], [[5, 5, 9, 9]]]
    )
    guesses = guesses_of(
        [[3, 0], [1, 0], [4, 0], [0, 1]],
        [
            [[50, 50, 90, 90], [0, 0, 1, 1]],
            [[0, 0, 10, 10], [0, 0, 1, 1]],
            [[0, 0, 10, 10], [0, 0, 4, 10]],
            [[5, 5, 9, 9], [5, 5, 9, 9]],
        ],
    )
    first, both = location_error(guesses, truth, 1), location_error(guesses, truth, 2)
    assert (first.error, first.class_error, first.class_wrong, first.box_wrong) == (50, 50, 2, 0)
    assert (both.error, both.class_error, both.class_wrong, both.box_wrong) == (50, 25, 1, 1)
    assert both.error_interval == wilson_interval(2, 4) and both.class_error_interval == wilson_interval(1, 4)


def test_inclusive_corners_from_one_give_the_development_kits_overlap() -> None:
    # in the kit's convention: truth 1..10 x 1..10 (100 px), guess 6..15 x 1..10: 5 x 10 px shared, 150 in all
    truth = truth_of([0], [[[0, 0, 10, 10]]])
    third = guesses_of([[0]], [[[5, 0, 15, 10]]])
    assert overlaps(third.boxes_IQ4, truth)[0, 0] == pytest.approx(50 / 150)
    assert location_error(third, truth, 1).box_wrong == 1


def naive_wrong(guesses: Guesses, truth: LocationTruth, count: int) -> tuple[int, int]:
    class_wrong = box_wrong = 0
    for i, label in enumerate(truth.labels_I):
        named = located = False
        for q in range(count):
            if guesses.classes_IQ[i, q] != label:
                continue
            named = True
            ax0, ay0, ax1, ay1 = map(float, guesses.boxes_IQ4[i, q])
            for bx0, by0, bx1, by1 in truth.boxes_K4[truth.starts[i] : truth.starts[i + 1]].tolist():
                # the kit's own way: 1-based inclusive corners, sides of max - min + 1
                width = min(ax1, bx1) - max(ax0 + 1, bx0 + 1) + 1
                height = min(ay1, by1) - max(ay0 + 1, by0 + 1) + 1
                if width > 0 and height > 0:
                    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - width * height
                    located |= width * height / union >= 0.5
        class_wrong += not named
        box_wrong += named and not located
    return class_wrong, box_wrong


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_a_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, classes = 60, 6

    def boxes(count: int) -> np.ndarray:
        low = rng.integers(0, 30, (count, 2))
        return np.concatenate([low, low + rng.integers(1, 60, (count, 2))], axis=1)

    truth = truth_of(
        rng.integers(0, classes, images).tolist(), [boxes(int(rng.integers(1, 5))).tolist() for _ in range(images)]
    )
    guesses = guesses_of(
        [rng.permutation(classes)[:5].tolist() for _ in range(images)], [boxes(5).tolist() for _ in range(images)]
    )
    for count in (1, 3, 5):
        found = location_error(guesses, truth, count)
        class_wrong, box_wrong = naive_wrong(guesses, truth, count)
        assert (found.class_wrong, found.box_wrong) == (class_wrong, box_wrong)
        assert found.error == pytest.approx(100 * (class_wrong + box_wrong) / images)
    by_class = errors_by_class(guesses, truth, [str(name) for name in range(classes)])
    first = location_error(guesses, truth, 1)
    assert sum(one["images"] for one in by_class.values()) == images
    wrong = sum(one["images"] * one["error"] / 100 for one in by_class.values())
    assert wrong == pytest.approx(first.class_wrong + first.box_wrong)


def test_trivial_boxes_are_where_they_should_be() -> None:
    truth = truth_of([0, 1], [[[0, 0, 100, 50]], [[0, 0, 200, 100], [0, 0, 20, 90]]])
    assert placed_boxes(truth, (1.0, 1.0)).tolist() == [[0, 0, 200, 100]] * 2
    height, width = mean_share(truth)
    assert height == pytest.approx((0.5 + 1 + 0.9) / 3) and width == pytest.approx((0.5 + 1 + 0.1) / 3)
    assert placed_boxes(truth, (0.5, 0.1)).tolist() == [[90, 25, 110, 75]] * 2
    whole = with_true_class(placed_boxes(truth, (1.0, 1.0)), truth)
    assert location_error(whole, truth, 1).error == 50


def test_an_image_without_a_box_is_named() -> None:
    with pytest.raises(UserError, match=r"image 1 .* has no box"):
        truth_of([0, 1], [[[0, 0, 5, 5]], []])


def test_no_images_are_an_error() -> None:
    with pytest.raises(UserError, match="no images"):
        location_error(guesses_of([], np.zeros((0, 1, 4)).tolist()), truth_of([], []), 1)


@dataclass(frozen=True)
class Batch:
    inputs: tuple
    image_ids: tuple[int, ...]

    def to(self, device) -> Batch:
        return self


class EchoLocalizer(nn.Module):
    """Answers with boxes made of the classes that it is asked for."""

    def locate(self, views, classes_NQ):
        corner = torch.stack([classes_NQ, classes_NQ, classes_NQ + 3, classes_NQ + 4], dim=-1).float()
        return corner / (0.0 if views == "broken" else 1.0), classes_NQ / 10


def test_each_image_is_asked_for_its_own_classes_in_whatever_order_it_comes() -> None:
    classes = np.array([[5, 1], [0, 2], [7, 3]])
    batches = [Batch(("views", None), (2, 0)), Batch(("views", None), (1,))]
    found = predict_boxes(EchoLocalizer(), batches, classes)
    assert found.boxes_IQ4[..., 0].tolist() == classes.tolist()
    assert np.allclose(found.scores_IQ, classes / 10)
    with pytest.raises(UserError, match="never evaluated"):
        predict_boxes(EchoLocalizer(), batches[:1], classes)
    with pytest.raises(UserError, match="image id 2 is not finite"):
        predict_boxes(EchoLocalizer(), [Batch(("broken", None), (2, 0, 1))], classes)


def test_files_hold_the_boxes_in_their_own_conventions() -> None:
    guesses = guesses_of([[1, 0], [0, 2]], [[[0, 0, 10, 20], [4, 5, 6, 8]], [[1.4, 2.6, 7, 9], [0, 0, 3, 3]]])
    rows = coco_rows(guesses, [11, 12], np.array([[0.9, 0.1], [0.7, 0.2]]))
    assert rows[1] == {"image_id": 11, "category_id": 1, "bbox": [4, 5, 2, 3], "score": 0.1, "box_score": 0.5}
    lines = ilsvrc_lines(guesses, [100, 200, 300], ["val/b.JPEG", "val/a.JPEG"])
    assert lines == "100 2 4 7 9 300 1 1 3 3\n200 1 1 10 20 100 5 6 6 8\n"


def test_the_summary_says_how_much_better_than_trivial_it_is() -> None:
    truth = truth_of([0, 1], [[[0, 0, 200, 100]], [[0, 0, 20, 10]]])
    oracle = with_true_class(truth.boxes_K4, truth)
    predicted = guesses_of([[0, 1], [0, 1]], np.repeat(truth.boxes_K4[:, None], 2, axis=1).tolist())
    summary = summarise(oracle, predicted, truth, ["ant", "bee"], usual_share_hw=(0.1, 0.1))
    assert summary["oracle"]["error"] == 0 and summary["oracle"]["mean_iou"] == 1
    assert {name: one["error"] for name, one in summary["baselines"].items()} == {"whole_image": 50, "centre_box": 100}
    assert summary["predicted"]["top-1"]["class_wrong"] == 1 and summary["predicted"]["top-2"]["error"] == 0
    assert summary["by_class"] == {"ant": {"images": 1, "error": 0}, "bee": {"images": 1, "error": 0}}
