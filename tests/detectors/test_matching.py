"""The matcher against torchvision's, a naive loop, and cases worked by hand."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.ops import box_iou as torchvision_iou

from detectors.matching import Matcher, Matches
from tests.detectors.test_boxes import random_boxes
from tests.detectors.tiny import make_targets

RPN_RULE = Matcher(positive=0.7, negative=0.3, best_for_truth=True)
HEAD_RULE = Matcher(positive=0.5, negative=0.5)


def everywhere(boxes: torch.Tensor) -> torch.Tensor:
    return torch.ones(boxes.shape[:-1], dtype=torch.bool)


def match(
    rule: Matcher,
    boxes: list[list[float]],
    truths: list[list[float]],
    ignore: list[list[bool]] | None = None,
) -> Matches:
    candidates = torch.tensor([boxes])
    return rule(candidates, everywhere(candidates), make_targets([truths], [[1] * len(truths)], ignore=ignore))


def as_torchvision(matches: Matches, image: int) -> torch.Tensor:
    """-1 for negative, -2 for neither, otherwise the truth."""
    found = torch.where(matches.positive_NA[image], matches.truth_NA[image], -2)
    return torch.where(matches.negative_NA[image], -1, found)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 60), st.booleans())
def test_it_agrees_with_torchvisions_matcher(seed: int, truths: int, boxes: int, best_for_truth: bool) -> None:
    truth, box = (
        random_boxes(1, truths, seed=seed, canvas=60),
        random_boxes(1, boxes, seed=seed + 1, canvas=60),
    )
    iou = torchvision_iou(truth[0], box[0])
    # There torchvision makes every box the best one of a truth that no box touches.
    assume(not best_for_truth or bool((iou.amax(dim=1) > 0).all()))
    expected = torchvision_utils.Matcher(0.6, 0.3, allow_low_quality_matches=best_for_truth)(iou)
    rule = Matcher(positive=0.6, negative=0.3, best_for_truth=best_for_truth)
    matches = rule(box, everywhere(box), make_targets(truth.tolist(), [[1] * truths]))
    assert torch.equal(as_torchvision(matches, 0), expected)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 12))
def test_no_box_is_positive_and_negative_and_the_overlap_is_the_truths(seed: int, truths: int) -> None:
    truth, box = random_boxes(1, truths, seed=seed, canvas=60), random_boxes(1, 40, seed=seed + 1, canvas=60)
    generator = torch.Generator().manual_seed(seed)
    ignore = (torch.rand(1, truths, generator=generator) < 0.3).tolist()
    targets = make_targets(truth.tolist(), [[1] * truths], ignore=ignore)
    matches = RPN_RULE(box, everywhere(box), targets)
    assert not (matches.positive_NA & matches.negative_NA).any()
    for a in matches.positive_NA[0].nonzero().flatten().tolist():
        g = int(matches.truth_NA[0, a])
        assert targets.valid_NG[0, g] and not targets.ignore_NG[0, g]
        torch.testing.assert_close(
            matches.iou_NA[0, a], torchvision_iou(targets.boxes_NG4[0, g : g + 1], box[0, a : a + 1])[0, 0]
        )


def test_300_truths_are_matched_as_one_matrix_would() -> None:
    truth, box = random_boxes(2, 300, seed=1), random_boxes(2, 500, seed=2)
    matches = HEAD_RULE(box, everywhere(box), make_targets(truth.tolist(), [[1] * 300] * 2, places=512))
    for image in range(2):
        best, index = torchvision_iou(truth[image], box[image]).max(dim=0)
        assert torch.equal(matches.truth_NA[image], index)
        torch.testing.assert_close(matches.iou_NA[image], best)


def test_without_truths_every_box_is_negative() -> None:
    for rule in (RPN_RULE, HEAD_RULE, Matcher(positive=0.5, negative=0.5, negative_from=0.1)):
        matches = match(rule, [[0, 0, 10, 10], [0, 0, 0, 0]], [])
        assert matches.negative_NA.all() and not matches.positive_NA.any()


def test_a_truth_that_no_box_touches_makes_nothing_positive() -> None:
    matches = match(RPN_RULE, [[0, 0, 10, 10], [5, 5, 15, 15]], [[80, 80, 90, 90]])
    assert matches.negative_NA.all() and not matches.positive_NA.any()


def test_the_best_box_of_a_truth_is_positive_below_the_threshold() -> None:
    boxes, truths = [[0.0, 0, 10, 10], [0.0, 0, 10, 20]], [[0.0, 0, 10, 40]]
    assert match(RPN_RULE, boxes, truths).positive_NA.tolist() == [[False, True]]
    assert match(HEAD_RULE, boxes, truths).positive_NA.tolist() == [[False, True]]
    assert match(HEAD_RULE, boxes, [[0.0, 0, 10, 41]]).positive_NA.tolist() == [[False, False]]


def test_a_box_in_an_ignored_truth_is_neither_positive_nor_negative() -> None:
    crowd, valid = [0.0, 0, 100, 100], [150.0, 0, 170, 20]
    boxes = [
        [10.0, 10, 20, 20],  # wholly in the crowd
        [-5.0, 0, 5, 10],  # half of it
        [-6.0, 0, 4, 10],  # less
        valid,
        [0.0, 0, 100, 100],  # the crowd's own box
    ]
    for rule in (RPN_RULE, HEAD_RULE):
        matches = match(rule, boxes, [crowd, valid], ignore=[[True, False]])
        assert matches.positive_NA.tolist() == [[False, False, False, True, False]]
        assert matches.negative_NA.tolist() == [[False, False, True, False, False]]


def test_a_truth_within_a_crowd_is_still_found() -> None:
    matches = match(HEAD_RULE, [[10, 10, 20, 20]], [[0, 0, 100, 100], [10, 10, 20, 21]], ignore=[[True, False]])
    assert matches.positive_NA.tolist() == [[True]]
    assert matches.truth_NA.tolist() == [[1]]


def test_boxes_that_are_not_eligible_are_nothing_and_nobodys_best() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 20], [0.0, 0, 10, 10], [50.0, 50, 60, 60]]])
    eligible = torch.tensor([[False, True, False]])
    matches = RPN_RULE(boxes, eligible, make_targets([[[0, 0, 10, 40]]], [[1]]))
    assert matches.positive_NA.tolist() == [[False, True, False]]
    assert not matches.negative_NA.any()


def test_background_may_have_to_touch_a_truth() -> None:
    rule = Matcher(positive=0.5, negative=0.5, negative_from=0.1)
    boxes = [[0.0, 0, 10, 2], [0.0, 0, 10, 0.5], [0.0, 0, 10, 9]]
    matches = match(rule, boxes, [[0, 0, 10, 10]])
    assert matches.negative_NA.tolist() == [[True, False, False]]
    assert matches.positive_NA.tolist() == [[False, False, True]]
