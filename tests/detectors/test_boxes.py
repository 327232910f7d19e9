"""Boxes against torchvision's functions on the same input."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou as torchvision_iou
from torchvision.ops import clip_boxes_to_image

from detectors.boxes import box_area, box_iou, clip, decode, encode, of_class, take, usable

PAPER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(*shape: int, seed: int = 0, canvas: float = 200.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * canvas
    side = torch.rand(*shape, 2, generator=generator) * canvas / 2 + 1
    return torch.cat([corner, corner + side], dim=-1)


@st.composite
def boxes(draw: st.DrawFn) -> torch.Tensor:
    """Up to 6 boxes with sides from a hundredth of a pixel to thousands."""
    count = draw(st.integers(1, 6))
    corner = st.floats(-100, 2000, width=32)
    side = st.floats(0.0625, 2000, width=32)
    rows = [[draw(corner), draw(corner), draw(side), draw(side)] for _ in range(count)]
    x0, y0, w, h = torch.tensor(rows).unbind(1)
    return torch.stack([x0, y0, x0 + w, y0 + h], dim=1)


def test_iou_equals_torchvisions_for_every_image() -> None:
    first, second = random_boxes(2, 5, seed=1), random_boxes(2, 40, seed=2)
    expected = torch.stack([torchvision_iou(a, b) for a, b in zip(first, second)])
    torch.testing.assert_close(box_iou(first, second), expected)


def test_iou_of_one_set_of_boxes_serves_all_images() -> None:
    truths, anchors = random_boxes(3, 4, seed=1), random_boxes(30, seed=2)
    torch.testing.assert_close(box_iou(truths, anchors), box_iou(truths, anchors.expand(3, -1, -1)))


def test_iou_of_a_quarter_overlap_is_a_seventh() -> None:
    iou = box_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]))
    torch.testing.assert_close(iou, torch.tensor([[1 / 7]]))


def test_empty_boxes_overlap_nothing_not_even_themselves() -> None:
    empty = torch.tensor([[3.0, 3, 3, 3], [5.0, 5, 4, 4]])
    assert box_iou(empty, torch.tensor([[3.0, 3, 3, 3], [0.0, 0, 9, 9]])).eq(0).all()
    assert box_area(empty).eq(0).all()


def test_encode_and_decode_equal_torchvisions() -> None:
    truth, reference = random_boxes(50, seed=3), random_boxes(50, seed=4)
    coder = BoxCoder(PAPER_WEIGHTS)
    deltas = encode(truth, reference, PAPER_WEIGHTS)
    torch.testing.assert_close(deltas, coder.encode_single(truth, reference), rtol=1e-4, atol=1e-4)
    wild = torch.randn(50, 4, generator=torch.Generator().manual_seed(5)) * 10
    expected = coder.decode_single(wild, reference)
    torch.testing.assert_close(decode(wild, reference, PAPER_WEIGHTS), expected, rtol=1e-4, atol=1e-2)


def test_each_delta_has_its_own_weight() -> None:
    truth, reference = random_boxes(9, seed=3), random_boxes(9, seed=4)
    plain = encode(truth, reference, (1.0, 1.0, 1.0, 1.0))
    weights = (1.0, 2.0, 3.0, 4.0)
    torch.testing.assert_close(encode(truth, reference, weights), plain * torch.tensor(weights))
    torch.testing.assert_close(decode(plain * torch.tensor(weights), reference, weights), truth)


@settings(max_examples=100)
@given(boxes(), st.integers(0, 1000))
def test_decode_inverts_encode(truth: torch.Tensor, seed: int) -> None:
    # References of at least a 60th of the truth: one step of regression reaches no further.
    factor = torch.rand(len(truth), 2, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.1
    side = (truth[:, 2:] - truth[:, :2]) * factor
    reference = torch.cat([truth[:, :2] + 1, truth[:, :2] + 1 + side], dim=1)
    decoded = decode(encode(truth, reference, PAPER_WEIGHTS), reference, PAPER_WEIGHTS)
    torch.testing.assert_close(decoded, truth, rtol=1e-4, atol=2e-2)


def test_padding_and_endless_deltas_stay_finite() -> None:
    padding = torch.zeros(3, 4)
    assert encode(padding, random_boxes(3), PAPER_WEIGHTS).isfinite().all()
    assert encode(random_boxes(3), padding, PAPER_WEIGHTS).isfinite().all()
    assert decode(torch.full((3, 4), 1e4), random_boxes(3), PAPER_WEIGHTS).isfinite().all()


def test_clip_equals_torchvisions_with_a_size_for_each_image() -> None:
    wide = random_boxes(2, 30, seed=6) - 40
    sizes = torch.tensor([[100, 150], [60, 90]])
    expected = torch.stack([clip_boxes_to_image(b, tuple(s.tolist())) for b, s in zip(wide, sizes)])
    torch.testing.assert_close(clip(wide, sizes), expected)


def test_take_follows_the_index_in_every_image() -> None:
    values = torch.arange(24.0).view(2, 3, 4)
    index = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(take(values, index), torch.stack([values[0, [2, 0]], values[1, [1, 1]]]))
    assert torch.equal(take(values[..., 0], index), take(values, index)[..., 0])


def test_every_region_gets_the_values_of_its_class() -> None:
    values = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    classes = torch.tensor([[2, 0, 3], [1, -1, 2]])
    expected = [[values[n, r, max(int(classes[n, r]), 0)].tolist() for r in range(3)] for n in range(2)]
    assert of_class(values, classes).tolist() == expected
    assert torch.equal(of_class(values[:, :, :1], classes), values[:, :, 0])
    assert torch.equal(of_class(values[0], classes[0]), torch.tensor(expected[0]))


def test_a_usable_box_is_finite_and_large_enough() -> None:
    nan, inf = float("nan"), float("inf")
    candidates = torch.tensor(
        [[0.0, 0, 2, 2], [0, 0, 1, 2], [3, 3, 3, 9], [5, 5, 4, 9], [nan, 0, 9, 9], [0, 0, inf, 9], [-inf, 0, inf, 9]]
    )
    assert usable(candidates).tolist() == [True, True] + [False] * 5
    assert usable(candidates, 2.0).tolist() == [True] + [False] * 6
