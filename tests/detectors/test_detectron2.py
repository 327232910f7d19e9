"""Our detectors against detectron2's with the same weights: the same detections, losses and gradients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.structures import ImageBatch, Masks
from tests.detectors import detectron2_peer as peer
from tests.detectors.tiny import make_images, make_targets
from vertebra.build.detector import _file_names
from vertebra.build.detectron2_config import detectron2_recipe
from vertebra.build.detectron2_weights import from_detectron2

pytestmark = peer.needed
# What the boxes are of does not matter to a network with random weights.
SIZE_HW = (192, 256)
BOXES = (
    torch.tensor([[10.5, 20.0, 90.0, 120.0], [60.0, 30.0, 250.0, 190.0], [120.0, 100.0, 180.0, 150.0]]),
    torch.tensor([[0.0, 0.0, 128.0, 96.0], [100.0, 60.0, 220.0, 180.0]]),
)
SIZES_HW = [(200, 300), (300, 225), (187, 251), (128, 128)]
DETECTORS = [
    "COCO-Detection/faster_rcnn_R_50_FPN_1x",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x",
    pytest.param("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", marks=pytest.mark.slow),
    pytest.param("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x", marks=pytest.mark.slow),
]


def pictures(sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Images as detectron2 takes them, uint8 BGR 3HW: real ones where there are any, or else blurred noise."""
    root = Path(os.environ.get("VERTEBRA_DATA") or Path(__file__).parents[3] / "shared" / "data") / "coco" / "val2017"
    paths, rng = sorted(root.glob("*.jpg")), np.random.default_rng(0)
    images = [cv2.imread(str(path)) for path in paths[: len(sizes_hw)]]
    images = images or [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in sizes_hw]
    resized = [
        cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR) for image, size_hw in zip(images, sizes_hw)
    ]
    return [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in resized]


def on_canvas(bgr_3HW: Tensor, reference: Any) -> ImageBatch:
    """The image as detectron2 pads it."""
    height, width = bgr_3HW.shape[1:]
    unit = max(reference.backbone.size_divisibility, 1)
    padded = torch.zeros(1, 3, -(-height // unit) * unit, -(-width // unit) * unit, dtype=torch.uint8)
    padded[0, :, :height, :width] = bgr_3HW.flip(0)
    return make_images(padded, ((height, width),))


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_detections_equal_detectron2s(name: str, tmp_path: Path) -> None:
    reference = peer.detectron2s(peer.config_of(name)).eval()
    detector = peer.vertebras(reference, tmp_path).eval()
    for bgr in pictures(SIZES_HW[:2] if "C4" in name or "DC5" in name else SIZES_HW):
        expected = reference.inference([{"image": bgr}], do_postprocess=False)[0]
        found = detector.detect(on_canvas(bgr, reference))
        valid = found.valid_ND[0]
        assert len(expected) > 20
        torch.testing.assert_close(found.scores_ND[0][valid], expected.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes_ND4[0][valid], expected.pred_boxes.tensor, rtol=0, atol=1e-3)
        assert torch.equal(found.labels_ND[0][valid], expected.pred_classes + 1)
        assert (found.masks_NDMM is None) == (not expected.has("pred_masks")) == ("mask" not in name)
        if found.masks_NDMM is not None:
            torch.testing.assert_close(found.masks_NDMM[0][valid], expected.pred_masks[:, 0], rtol=0, atol=1e-4)


class Recorder:
    """In the place of a sampler: keeps what it was given and what it drew."""

    def __init__(self, sampler: Callable[..., Any]) -> None:
        self.sampler = sampler

    def __call__(self, matches: Any, seeds_N: Tensor) -> Any:
        self.matches, self.samples = matches, self.sampler(matches, seeds_N)
        return self.samples

    @property
    def count(self) -> int:
        return self.sampler.count  # type: ignore[attr-defined, no-any-return]

    @property
    def positive_fraction(self) -> float:
        return self.sampler.positive_fraction  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("name", [DETECTORS[1], *DETECTORS[3:]])
def test_losses_and_gradients_equal_detectron2s_on_the_same_samples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, truths, labels = (
        torch.stack(pictures([SIZE_HW] * 2)),
        [*BOXES],
        [torch.tensor([3, 3, 17]), torch.tensor([79, 0])],
    )
    masks = [ellipses(truth, SIZE_HW) for truth in truths]
    reference = peer.detectron2s(peer.config_of(name)).train()
    detector = peer.vertebras(reference, tmp_path).train()
    rpn = detector.rpn.sampler = Recorder(detector.rpn.sampler)
    box = detector.box_head.sampler = Recorder(detector.box_head.sampler)
    batch = make_images(images.flip(1), (SIZE_HW,) * 2)
    targets = make_targets([truth.tolist() for truth in truths], [(one + 1).tolist() for one in labels])
    numbers = [(n, g) for n, of_image in enumerate(masks) for g in range(len(of_image))]
    flat = Masks.of([mask for of_image in masks for mask in of_image], *torch.tensor(numbers).unbind(1))
    losses = detector(batch, replace(targets, masks=flat))
    torch.stack([*losses.values()]).sum().backward()
    assert rpn.samples.valid_NS.all() and box.samples.valid_NS.all()  # both divide by the full number then
    assert rpn.samples.positive_NS.any(dim=1).all() and box.samples.positive_NS.any(dim=1).all()

    # Our anchors at a cell go by ratio, then scale; detectron2's by scale, then ratio.
    anchors = rpn.matches.positive_NA.shape[1]
    scales, ratios = reference.proposal_generator.anchor_generator.num_anchors[0] // 3, 3
    our_place_A = torch.arange(anchors).view(-1, scales, ratios).mT.reshape(-1)  # [Vertebra] = detectron2
    turn = {"rpn": 0, "box": 0}

    def sample_anchors(label_A: Tensor) -> Tensor:
        n, turn["rpn"] = turn["rpn"], turn["rpn"] + 1
        our_label_A = torch.where(rpn.matches.positive_NA[n], 1, torch.where(rpn.matches.negative_NA[n], 0, -1))
        assert torch.equal(label_A[our_place_A].long(), our_label_A)
        drawn_S, positive_S = our_place_A[rpn.samples.index_NS[n]], rpn.samples.positive_NS[n]
        return label_A.fill_(-1).scatter_(0, drawn_S, positive_S.to(label_A.dtype))

    def sample_proposals(matched_A: Tensor, label_A: Tensor, classes_G: Tensor) -> tuple[Tensor, Tensor]:
        n, turn["box"] = turn["box"], turn["box"] + 1
        proposals, slots = len(matched_A) - len(classes_G), detector.rpn.train_limits.after_nms
        class_A = torch.where(label_A == 1, classes_G[matched_A], reference.roi_heads.num_classes)
        place_S = box.samples.index_NS[n]
        drawn_S = torch.where(place_S < slots, place_S, place_S - slots + proposals)
        assert torch.equal(class_A[drawn_S] < reference.roi_heads.num_classes, box.samples.positive_NS[n])
        return drawn_S, class_A[drawn_S]

    monkeypatch.setattr(reference.proposal_generator, "_subsample_labels", sample_anchors)
    monkeypatch.setattr(reference.roi_heads, "_sample_proposals", sample_proposals)
    expected = reference_losses(reference, images, truths, labels, masks)
    torch.stack([*expected.values()]).sum().backward()
    assert turn == {"rpn": 2, "box": 2} and len(losses) == len(expected) == 4 + ("mask" in name)
    names = {"loss_rpn_box": "loss_rpn_loc", "loss_box_cls": "loss_cls"}
    for loss_name, loss in losses.items():
        torch.testing.assert_close(loss, expected[names.get(loss_name, loss_name)], rtol=1e-4, atol=1e-6)

    recipe = detectron2_recipe(reference.state_dict())
    gradients = from_detectron2({n: p.grad for n, p in reference.named_parameters() if p.grad is not None}, recipe)
    file_names = _file_names(detector)
    for own, parameter in detector.named_parameters():
        file_name = file_names[own]
        assert (parameter.grad is None) == (file_name not in gradients), own
        if parameter.grad is not None:
            # As a whole: rounding turns a ReLU here and there, and so single entries of a gradient.
            difference = (parameter.grad - gradients[file_name]).norm() / gradients[file_name].norm()
            assert difference < 2e-3, own


def ellipses(boxes_G4: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """A mask in each box, its ellipse."""
    y_H, x_W = torch.arange(size_hw[0]).view(-1, 1) + 0.5, torch.arange(size_hw[1]) + 0.5
    inside = [
        ((x_W - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y_H - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25
        for x0, y0, x1, y1 in boxes_G4.tolist()
    ]
    return torch.stack(inside).to(torch.uint8)


def reference_losses(
    model: Any, images: Tensor, boxes: list[Tensor], classes: list[Tensor], masks: list[Tensor]
) -> dict[str, Tensor]:
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    inputs = []
    for pixels, truth, label, mask in zip(images, boxes, classes, masks):
        instances = Instances(
            tuple(pixels.shape[-2:]), gt_boxes=Boxes(truth), gt_classes=label, gt_masks=BitMasks(mask)
        )
        inputs.append({"image": pixels, "instances": instances})
    with EventStorage(0):
        return model(inputs)
