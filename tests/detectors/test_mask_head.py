"""Masks of regions: targets are RoIAlign on masks, the true class alone learns, slots without object weigh nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import ops

from detectors.box_head import Regions
from detectors.mask_head import MaskHead, masks_of_regions
from detectors.structures import ImageBatch, Masks, Targets
from tests.detectors.tiny import make_images, make_targets

SIZES = ((40, 60), (64, 48))


def batch() -> tuple[ImageBatch, Targets, dict[tuple[int, int], Tensor]]:
    """Two images with three truths, their masks (HW each) by image and truth; the first image's second has none."""
    generator = torch.Generator().manual_seed(0)
    boxes = [[[5.0, 5, 50, 35], [1.0, 1, 9, 9], [20.0, 10, 30, 38]], [[4.0, 20, 40, 60]]]
    targets = make_targets(boxes, [[1, 2, 3], [2]])
    masks = {
        (n, g): (torch.rand(SIZES[n], generator=generator) > 0.4).to(torch.uint8)
        for n, g in ((0, 2), (0, 0), (1, 0))  # in any order
    }
    image, truth = (torch.tensor(part) for part in zip(*masks))
    flat = Masks.of(list(masks.values()), image, truth)
    images = make_images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), SIZES)
    return images, replace(targets, masks=flat), masks


def regions_of(boxes: Tensor, truth: list[list[int]], labels: list[list[int]]) -> Regions:
    index = torch.tensor(truth)
    return Regions(boxes, torch.tensor(labels), boxes, index, torch.ones_like(index, dtype=torch.bool))


BOXES = torch.tensor(
    [
        [[3.0, 4, 45, 36], [18.0, 8.5, 33, 39.5], [-4.0, -3, 70, 50]],
        [[0.0, 0, 48, 64], [5.5, 22, 39, 58], [7.0, 7, 8, 8]],
    ]
)
TRUTH = [[0, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 2])
def test_targets_are_roi_align_on_each_truths_mask(samples: int, aligned: bool) -> None:
    images, targets, masks = batch()
    regions = regions_of(BOXES, TRUTH, [[1, 3, 1], [2, 2, 2]])
    found = masks_of_regions(regions, images, targets, bins=6, samples=samples, aligned=aligned).view(2, 3, 6, 6)
    for n in range(2):
        for r in range(3):
            mask = masks[n, TRUTH[n][r]].float()[None, None]
            roi = torch.cat([torch.zeros(1), BOXES[n, r]])[None]
            expected = ops.roi_align(mask, roi, 6, 1.0, samples or -1, aligned)
            torch.testing.assert_close(found[n, r], expected[0, 0])


def test_only_the_true_classs_mask_of_positive_regions_learns() -> None:
    images, targets, _ = batch()
    regions = regions_of(BOXES, TRUTH, [[1, 3, 0], [2, 0, 2]])
    regions = replace(regions, valid_NR=torch.tensor([[True, True, True], [True, True, False]]))
    logits = torch.zeros(6, 3, 4, 4, requires_grad=True)
    MaskHead(8, 3).losses(logits, regions, images, targets)["loss_mask"].backward()
    assert logits.grad is not None
    learns = logits.grad.abs().sum(dim=(2, 3)) > 0
    expected = torch.zeros(6, 3, dtype=torch.bool)
    expected[0, 0] = expected[1, 2] = expected[3, 1] = True
    assert torch.equal(learns, expected)


def test_the_loss_is_the_mean_over_positive_regions_and_cells() -> None:
    images, targets, _ = batch()
    regions = regions_of(BOXES, TRUTH, [[1, 3, 0], [2, 0, 0]])
    logits = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = masks_of_regions(regions, images, targets, bins=4, samples=2)
    losses = []
    for row, label in ((0, 1), (1, 3), (3, 2)):
        p = logits[row, label - 1].sigmoid()
        losses.append(-(wanted[row] * p.log() + (1 - wanted[row]) * (1 - p).log()).mean())
    loss = MaskHead(8, 3).losses(logits, regions, images, targets)["loss_mask"]
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_a_batch_without_any_mask_gives_a_loss_of_nothing() -> None:
    images, targets, _ = batch()
    none = Masks.of([], *(torch.zeros(0, dtype=torch.int64) for _ in range(2)))
    targets = replace(targets, masks=none, valid_NG=torch.zeros_like(targets.valid_NG))
    logits = torch.zeros(6, 3, 4, 4, requires_grad=True)
    loss = MaskHead(8, 3).losses(logits, regions_of(BOXES, TRUTH, [[0] * 3] * 2), images, targets)["loss_mask"]
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_targets_without_masks_are_refused() -> None:
    images, targets, _ = batch()
    with pytest.raises(ValueError, match="learns masks, and the batch has none"):
        masks_of_regions(regions_of(BOXES, TRUTH, TRUTH), images, replace(targets, masks=None), bins=4, samples=2)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_masks_are_bits_and_give_their_pixels_back(count: int):
    mask_HW = torch.randint(0, 2, (1, count), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
    masks = Masks.of([mask_HW, 1 - mask_HW], *(torch.zeros(2, dtype=torch.int64) for _ in range(2)))
    bits_M = np.concatenate([mask_HW[0], 1 - mask_HW[0]])
    assert masks.packed_B.numpy().tobytes() == np.packbits(bits_M).tobytes(), "as a loader packs them"
    assert masks.bits(torch.arange(2 * count)).tolist() == bits_M.tolist()
    assert torch.equal(masks.whole(1, (1, count)), 1 - mask_HW)


def test_a_mask_is_nothing_beyond_its_window() -> None:
    """The targets of masks of which only a window is kept are those of the whole masks, wherever the regions lie."""
    images, targets, masks = batch()
    windows = {(0, 0): (7, 3, 31, 40), (0, 2): (60, 40, 60, 40), (1, 0): (0, 11, 48, 12)}  # one has no pixel
    whole = []
    for key, mask_HW in masks.items():
        x0, y0, x1, y1 = windows[key]
        whole.append(torch.zeros_like(mask_HW))
        whole[-1][y0:y1, x0:x1] = mask_HW[y0:y1, x0:x1]
    assert targets.masks is not None
    parts = [mask_HW[y0:y1, x0:x1] for mask_HW, (x0, y0, x1, y1) in zip(masks.values(), (windows[k] for k in masks))]
    places = targets.masks.image_index_K, targets.masks.truth_index_K
    cut = replace(Masks.of(parts, *places), windows_K4=torch.tensor([windows[key] for key in masks]))
    assert all(torch.equal(cut.whole(k, mask_HW.shape), mask_HW) for k, mask_HW in enumerate(whole))
    regions = regions_of(BOXES, TRUTH, [[1, 3, 1], [2, 2, 2]])
    found, expected = (
        masks_of_regions(regions, images, replace(targets, masks=one), bins=6, samples=0)
        for one in (cut, Masks.of(whole, *places))
    )
    assert torch.equal(found, expected) and expected.any()
