"""What is drawn of a detection image, and what is left of its truths: against torchvision and naive loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from vertebra.data.transforms.canvases import resized
from vertebra.data.transforms.detection_views import (
    IOUS,
    DetectionAugmentation,
    ViewDraw,
    boxes_of_masks,
    cut_truths,
    iou_crop,
    jittered,
    range_crop,
)
from vertebra.data.transforms.geometry import Box
from vertebra.ground.rle import Patch

BOXES = np.array([[30, 40, 120, 200], [200, 100, 380, 280], [10, 10, 40, 40]], np.float32)
sizes = st.tuples(st.integers(2, 500), st.integers(2, 500))


def iou(box: tuple[float, ...], part: Box) -> float:
    """Of a box and a part, by hand."""
    width = min(box[2], part.left + part.width) - max(box[0], part.left)
    height = min(box[3], part.top + part.height) - max(box[1], part.top)
    shared = max(0, width) * max(0, height)
    return shared / ((box[2] - box[0]) * (box[3] - box[1]) + part.width * part.height - shared)


class ScriptedOverlap:
    """A generator that draws this least IoU, the last one (the whole image) after `times` of them."""

    def __init__(self, place: int, seed: int, times: int = 3) -> None:
        self.rng, self.place, self.times = np.random.default_rng(seed), place, times
        self.uniform, self.random = self.rng.uniform, self.rng.random

    def integers(self, stop: int) -> int:
        self.times -= 1
        return self.place if self.times >= 0 else stop - 1


@settings(max_examples=60)
@given(size=sizes, place=st.integers(0, len(IOUS) - 1), seed=st.integers(0, 2**30), least=st.floats(0.1, 1))
def test_an_iou_crop_shows_an_object_as_it_was_asked_to(size, place: int, seed: int, least: float):
    height, width = size
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1) * (width, height)
    boxes_G4 = corners.reshape(4, 4).astype(np.float32)
    part = iou_crop(size, boxes_G4, least, ScriptedOverlap(place, seed))  # type: ignore[arg-type]
    assert part.top >= 0 and part.left >= 0 and part.top + part.height <= height and part.left + part.width <= width
    if part == Box(0, 0, height, width):
        return
    assert part.height > least * height - 1 and part.width > least * width - 1
    assert 0.5 <= part.width / part.height <= 2
    overlaps = [
        iou(box, part)
        for box in boxes_G4.tolist()
        if part.left < (box[0] + box[2]) / 2 < part.left + part.width
        and part.top < (box[1] + box[3]) / 2 < part.top + part.height
    ]
    assert overlaps and max(overlaps) >= IOUS[place] - 1e-6


def test_iou_crops_are_as_large_as_long_and_where_torchvisions_are():
    rng = np.random.default_rng(0)
    parts = [iou_crop((300, 400), BOXES, 0.3, rng) for _ in range(3000)]
    own = [(b.height * b.width / 120_000, np.log(b.width / b.height), b.top / 300, b.left / 400) for b in parts]
    torch.manual_seed(0)
    truth = tv_tensors.BoundingBoxes(torch.from_numpy(BOXES), format="XYXY", canvas_size=(300, 400))
    blank, expected = tv_tensors.Image(torch.zeros(3, 300, 400, dtype=torch.uint8)), []
    for _ in range(300):
        p = v2.RandomIoUCrop().make_params([blank, truth]) or {"height": 300, "width": 400, "top": 0, "left": 0}
        area, ratio = p["height"] * p["width"] / 120_000, np.log(p["width"] / p["height"])
        expected.append((area, ratio, p["top"] / 300, p["left"] / 400))
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(np.quantile(own, level, 0), np.quantile(expected, level, 0), atol=0.06)
    assert np.mean(np.array(own)[:, 0] == 1) == pytest.approx(np.mean(np.array(expected)[:, 0] == 1), abs=0.05)


def test_an_image_without_objects_is_seen_whole():
    empty = np.zeros((0, 4), np.float32)
    assert all(iou_crop((30, 40), empty, 0.3, np.random.default_rng(s)) == Box(0, 0, 30, 40) for s in range(20))


def test_a_range_crop_has_sides_of_its_range_and_reaches_every_corner():
    rng = np.random.default_rng(0)
    parts = [range_crop((200, 100), 0.4, rng) for _ in range(2000)]
    shares = np.array([(p.height / 200, p.width / 100) for p in parts])
    assert shares.min() >= 0.395 and shares.max() <= 1 and abs(shares.mean() - 0.7) < 0.02
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.1
    left, right = (np.array([p.left for p in parts]), np.array([100 - p.left - p.width for p in parts]))
    top, bottom = (np.array([p.top for p in parts]), np.array([200 - p.top - p.height for p in parts]))
    assert min(left.min(), right.min(), top.min(), bottom.min()) == 0
    assert abs(left.mean() - right.mean()) < 2 and abs(top.mean() - bottom.mean()) < 4
    assert range_crop((1, 1), 0.01, rng) == Box(0, 0, 1, 1)


@settings(max_examples=80)
@given(
    size=sizes,
    canvas=st.tuples(st.integers(16, 400), st.integers(16, 400)),
    factor=st.floats(0.1, 4),
    seed=st.integers(0, 99),
)
def test_jitter_keeps_the_scale_and_cuts_only_what_the_canvas_does_not_hold(size, canvas, factor: float, seed: int):
    base = resized(size, 200, 300, canvas)
    part, new = jittered(Box(0, 0, *size), base, canvas, factor, np.random.default_rng(seed))
    for first, seen, got, whole, side, room in zip(
        (part.top, part.left), (part.height, part.width), new, size, base, canvas
    ):
        scale = side * factor / whole
        assert first >= 0 and first + seen <= whole and 1 <= got <= room
        assert seen == whole or seen == pytest.approx(room / scale, abs=0.5) or seen == 1
        assert seen < whole or whole * scale <= room + 0.5 * scale + 1
        assert abs(got - seen * scale) <= 0.5 + 1e-6 or got in (1, room)


@pytest.mark.parametrize(
    ("factor", "seen", "size"),
    [(0.1, (480, 640), (77, 102)), (1.0, (480, 640), (768, 1024)), (2.0, (320, 320), (1024, 1024))],
)
def test_large_scale_jitter_of_a_photograph_by_hand(factor: float, seen, size):
    """Ghiasi et al.: 480 x 640 in a square of 1024 is 768 x 1024 at factor 1; at 2 its 2048 pixels are cut to 1024."""
    canvas = (1024, 1024)
    base = resized((480, 640), 1024, 1024, canvas)
    part, new = jittered(Box(0, 0, 480, 640), base, canvas, factor, np.random.default_rng(0))
    assert (part.height, part.width) == seen and new == size


def test_jitter_draws_all_of_its_range_evenly():
    draw = ViewDraw((100,), 100, 0.0, DetectionAugmentation(jitter=(0.1, 2.0)))
    rng = np.random.default_rng(0)
    views = [draw((100, 100), (100, 100), np.zeros((0, 4), np.float32), rng) for _ in range(2000)]
    factors = np.array([view.size_hw[0] / view.part.height for view in views])
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(factors, level) == pytest.approx(0.1 + 1.9 * level, abs=0.08)


def test_any_side_of_the_range_is_drawn_and_otherwise_one_of_the_list():
    empty, rng = np.zeros((0, 4), np.float32), np.random.default_rng(0)
    for any_side, expected in ((False, {40, 44}), (True, {40, 41, 42, 43, 44})):
        draw = ViewDraw((44, 40), 999, 0.5, DetectionAugmentation(any_side=any_side))
        assert {draw((50, 50), (64, 64), empty, rng).size_hw[0] for _ in range(200)} == expected


def test_without_augmentation_the_draws_are_what_they_have_always_been():
    """Shorter side, then mirroring, and nothing more."""
    for seed in range(20):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        view = ViewDraw((48, 56, 64), 96, 0.5, DetectionAugmentation())((60, 80), (64, 96), BOXES, rng)
        side, flip = (48, 56, 64)[int(same.integers(3))], bool(same.random() < 0.5)
        assert (view.part, view.flip) == (Box(0, 0, 60, 80), flip)
        assert view.size_hw == resized((60, 80), side, 96, (64, 96)) and rng.random() == same.random()


def test_crops_happen_as_often_as_asked():
    draw = ViewDraw((60,), 80, 0.0, DetectionAugmentation(crop="range", crop_min=0.3, crop_chance=0.25))
    rng = np.random.default_rng(0)
    whole = np.mean([draw((60, 80), (64, 96), BOXES, rng).part == Box(0, 0, 60, 80) for _ in range(2000)])
    assert 0.72 < whole < 0.78


@settings(max_examples=80)
@given(seed=st.integers(0, 2**30), size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_cut_truths_are_those_of_a_naive_loop(seed: int, size):
    rng = np.random.default_rng(seed)
    part = Box(*rng.integers(0, 60, 2).tolist(), *rng.integers(1, 60, 2).tolist())
    low_G2 = rng.integers(0, 100, (12, 2)) + rng.choice([0, 0.5], (12, 2))
    boxes_G4 = np.concatenate([low_G2, low_G2 + rng.integers(1, 60, (12, 2))], 1).astype(np.float32)
    by_centre_G = rng.random(12) < 0.5
    clipped_G4, stays_G, cut_G = cut_truths(boxes_G4, part, size, by_centre_G)
    for g, (x0, y0, x1, y1) in enumerate(boxes_G4.tolist()):
        right, bottom = part.left + part.width, part.top + part.height
        inside = [min(max(x, part.left), right) - part.left for x in (x0, x1)]
        inside += [min(max(y, part.top), bottom) - part.top for y in (y0, y1)]
        assert clipped_G4[g].tolist() == [inside[0], inside[2], inside[1], inside[3]]
        cut = x0 < part.left or y0 < part.top or x1 > right or y1 > bottom
        centred = part.left < (x0 + x1) / 2 < right and part.top < (y0 + y1) / 2 < bottom
        wide = (inside[1] - inside[0]) * size[1] / part.width >= 1
        high = (inside[3] - inside[2]) * size[0] / part.height >= 1
        assert cut_G[g] == cut
        assert stays_G[g] == (not cut or (centred if by_centre_G[g] else wide and high))


@given(seed=st.integers(0, 2**30), count=st.integers(0, 5), size=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_boxes_of_masks_just_hold_them(seed: int, count: int, size):
    masks_GHW = (np.random.default_rng(seed).random((count, *size)) < 0.1).astype(np.uint8)
    boxes_G4 = boxes_of_masks([Patch(0, 0, mask_HW) for mask_HW in masks_GHW])
    assert np.array_equal(
        boxes_of_masks([Patch(3, 5, mask_HW) for mask_HW in masks_GHW if mask_HW.any()]),
        boxes_G4[masks_GHW.any(axis=(1, 2))] + [5, 3, 5, 3],
    )
    assert boxes_G4.shape == (count, 4) and boxes_G4.dtype == np.float32
    for mask_HW, box in zip(masks_GHW, boxes_G4.tolist()):
        points = [(x, y) for y in range(size[0]) for x in range(size[1]) if mask_HW[y, x]]
        if points:
            xs, ys = zip(*points)
            assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        else:
            assert box[2] <= box[0] and box[3] <= box[1]
