"""Suppression to a fixed number against torchvision's functions."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torchvision import ops

import detectors.nms
from detectors.nms import nms, nms_batch, nms_by_class
from tests.detectors.nms_cases import STYLES, assert_kept_is_expected, candidates
from tests.detectors.test_boxes import random_boxes

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def scores_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 10, 60, 1000])
def test_it_keeps_what_torchvision_keeps_first(count: int) -> None:
    boxes, scores = random_boxes(400, canvas=100), scores_of(400)
    expected = ops.nms(boxes, scores, 0.5)
    index, valid = nms(boxes, scores, 0.5, count)
    assert index.shape == valid.shape == (count,)
    assert torch.equal(index[valid], expected[:count])
    assert valid.sum() == min(count, len(expected))


@given(
    style=st.sampled_from(STYLES),
    images=st.integers(1, 3),
    count=st.integers(0, 40),
    places=st.integers(0, 50),
    iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    grouped=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150)
def test_of_any_candidates_every_image_keeps_what_torchvision_keeps(
    style: str, images: int, count: int, places: int, iou: float, grouped: bool, seed: int
) -> None:
    boxes, scores, groups = candidates(style, images, count, seed)
    used = groups if grouped else None
    assert_kept_is_expected(nms_batch(boxes, scores, iou, places, used), boxes, scores, used, iou)


def test_candidates_at_minus_infinity_neither_count_nor_suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3 + [[20.0, 20, 30, 30]])
    scores = torch.tensor([float("-inf"), 1.0, float("nan"), 0.5])
    index, valid = nms(boxes, scores, 0.5, 3)
    assert index[valid].tolist() == [1, 3]
    many = random_boxes(50, canvas=1000)
    index, valid = nms(many, torch.where(torch.arange(50) < 45, float("-inf"), 1.0), 0.5, 5)
    assert index[valid].tolist() == [45, 46, 47, 48, 49]


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_by_class_it_keeps_what_torchvisions_batched_version_keeps(classes: int) -> None:
    boxes, scores = random_boxes(2, 300, canvas=60).clamp(max=60), torch.stack([scores_of(300), scores_of(300, 1)])
    labels = torch.randint(0, classes, (2, 300), generator=torch.Generator().manual_seed(1))
    options = {"iou": 0.4, "count": 300, "classes": classes, "extent_px": 60}
    together = nms_by_class(boxes, scores, labels, **options)
    exact = nms_batch(boxes, scores, 0.4, 300, labels)
    for n in range(2):
        expected = ops.boxes._batched_nms_vanilla(boxes[n], scores[n], labels[n], 0.4)
        for index, valid in (
            nms_by_class(boxes[n], scores[n], labels[n], **options),
            (together[0][n], together[1][n]),
            (exact[0][n], exact[1][n]),
        ):
            assert torch.equal(index[valid], expected)


def test_its_shapes_are_known_without_data() -> None:
    with FakeTensorMode():
        for grouped in (None, torch.zeros(2, 30, dtype=torch.int64)):
            index, valid = nms_batch(torch.zeros(2, 30, 4), torch.zeros(2, 30), 0.5, 7, grouped)
            assert index.shape == valid.shape == (2, 7)
            assert (index.dtype, valid.dtype) == (torch.int64, torch.bool)


def test_without_triton_a_gpu_uses_torchvisions_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "detectors.nms_kernel", raising=False)
    monkeypatch.delattr(detectors, "nms_kernel", raising=False)
    assert detectors.nms._kernel.__wrapped__() is None
    assert "triton" in caplog.text and "host waits" in caplog.text


def test_it_is_a_well_formed_operation_of_torch() -> None:
    boxes, scores, groups = candidates("spread", 2, 20, seed=0)
    torch.library.opcheck(torch.ops.vertebra.nms.default, (boxes, scores, groups, 0.5, 5))
    torch.library.opcheck(torch.ops.vertebra.nms.default, (boxes, scores, None, 0.5, 5))
    index, _ = nms_batch(boxes.requires_grad_(), scores, 0.5, 5)  # outside of no_grad too
    assert not index.requires_grad


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("grouped", [False, True])
def test_on_a_gpu_it_keeps_the_same_without_waiting(style: str, grouped: bool) -> None:
    boxes, scores, groups = candidates(style, 3, 3000, seed=0)
    used = groups if grouped else None
    on_device = [None if part is None else part.cuda() for part in (boxes, scores, used)]
    nms_batch(*on_device[:2], 0.5, 1000, on_device[2])  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = nms_batch(*on_device[:2], 0.5, 1000, on_device[2])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_kept_is_expected(found, boxes, scores, used, 0.5)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_it_keeps_the_same_of_12000_candidates_and_this_is_how_long_it_takes() -> None:
    boxes, scores = random_boxes(2, 12_000, canvas=1000), torch.stack([scores_of(12_000), scores_of(12_000, 1)])
    boxes_gpu, scores_gpu = boxes.cuda(), scores.cuda()

    def milliseconds(call) -> float:
        call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / 20 * 1e3

    own_ms = milliseconds(lambda: nms_batch(boxes_gpu, scores_gpu, 0.7, 2000))
    torchvision_ms = milliseconds(lambda: [ops.nms(b, s, 0.7)[:2000] for b, s in zip(boxes_gpu, scores_gpu)])
    print(f"2 images of 12,000 for 2,000 places: Vertebra {own_ms:.2f} ms, torchvision's {torchvision_ms:.2f} ms")
    assert_kept_is_expected(nms_batch(boxes_gpu, scores_gpu, 0.7, 2000), boxes, scores, None, 0.7)
