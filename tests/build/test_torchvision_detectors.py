"""torchvision's Faster and Mask R-CNN with their weights copied: the same detections, the same losses."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn

from detectors.boxes import encode
from detectors.faster_rcnn import FasterRCNN
from detectors.structures import ImageBatch, Masks
from tests.detectors.tiny import make_images, make_targets
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state, load_file_state, make_detector
from vertebra.build.torchvision_detectors import TORCHVISION, from_torchvision, torchvision_recipe
from vertebra.data.loading.decode import decode_bytes
from vertebra.data.transforms.geometry import resize

DATA = Path(os.environ.get("VERTEBRA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "coco"
CLASSES = 6
MODELS = {"fasterrcnn_resnet50_fpn": fasterrcnn_resnet50_fpn, "maskrcnn_resnet50_fpn": maskrcnn_resnet50_fpn}
TEST = {"score": 0.3, "nms": 0.5}


def reference_of(name: str) -> Any:
    """torchvision's model with random weights under which detections differ from each other; it resizes nothing."""
    torch.manual_seed(0)
    limits = {"rpn_pre_nms_top_n_test": 300, "rpn_post_nms_top_n_test": 200}
    model = MODELS[name](
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, box_score_thresh=TEST["score"], **limits
    )
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0  # as it is for the published weights
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, *((0.1, 0.2) if name.endswith("bn3") else (0.4, 0.8)))
    heads = model.roi_heads
    for layer, std in (
        (model.rpn.head.conv[0][0], 0.03), (model.rpn.head.cls_logits, 1.0), (model.rpn.head.bbox_pred, 0.1),
        (heads.box_predictor.cls_score, 5.0), (heads.box_predictor.bbox_pred, 1.0),
    ):  # fmt: skip
        torch.nn.init.normal_(layer.weight, std=std)
    return model.eval()


def detector_of(name: str, reference: Any) -> FasterRCNN:
    recipe = torchvision_recipe(name, test=TEST)
    settings = recipe.model.model_copy(update={"proposals_before_nms": (2000, 300), "proposals": (2000, 200)})
    recipe = recipe.model_copy(update={"model": settings})
    model = make_detector(recipe, make_detector_backbone(recipe), CLASSES)
    state = from_torchvision(reference.state_dict(), range(1, CLASSES + 1))
    classifier = {name: tensor for name, tensor in file_state(model).items() if name not in state}
    assert not classifier, "every tensor comes from torchvision's"
    load_file_state(model, state, "torchvision's state dict")  # type: ignore[arg-type]
    return model.eval()


def picture(height: int, width: int, seed: int) -> Tensor:
    """Blurred noise, so that features and detections vary over the image."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.integers(0, 256, (1, 3, height // 16, width // 16)).astype(np.float32))
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0].round().to(torch.uint8)


def on_canvas(pixels: Tensor) -> ImageBatch:
    """The image as torchvision pads it: to multiples of 32."""
    height, width = pixels.shape[1:]
    padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32, dtype=torch.uint8)
    padded[0, :, :height, :width] = pixels
    return make_images(padded, ((height, width),))


def without_resizing(model: Any, *images: Tensor) -> list[dict[str, Tensor]]:
    found = []
    for pixels in images:
        height, width = pixels.shape[1:]
        model.transform.min_size, model.transform.max_size = (min(height, width),), max(height, width)
        found += model([pixels.float() / 255])
    return found


def pictures() -> list[Tensor]:
    """Of two sizes; real ones where there are any."""
    paths = sorted((DATA / "val2017").glob("*.jpg"))[:2] if DATA.is_dir() else []
    sizes = [(160, 224), (203, 131)]
    if not paths:
        return [picture(*size, seed) for seed, size in enumerate(sizes)]
    images = [resize(decode_bytes(path.read_bytes(), path), *size) for path, size in zip(paths, sizes)]
    return [torch.from_numpy(image_HW3).permute(2, 0, 1) for image_HW3 in images]


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_detections_equal_torchvisions(name: str) -> None:
    reference = reference_of(name)
    detector = detector_of(name, reference)
    for pixels in pictures():
        expected = without_resizing(reference, pixels)[0]
        found = detector.detect(on_canvas(pixels))
        count = int(found.valid_ND.sum())
        assert count == len(expected["boxes"]) > 20
        torch.testing.assert_close(found.boxes_ND4[0, :count], expected["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(found.scores_ND[0, :count], expected["scores"], rtol=0, atol=1e-4)
        assert torch.equal(found.labels_ND[0, :count], expected["labels"])
        if found.masks_NDMM is not None:
            expected_D1MM = mask_probabilities(reference, pixels, expected)
            torch.testing.assert_close(found.masks_NDMM[0, :count], expected_D1MM, rtol=0, atol=1e-4)


def mask_probabilities(reference: Any, pixels: Tensor, found: dict[str, Tensor]) -> Tensor:
    """torchvision's masks on their own grid, before they are pasted."""
    images, _ = reference.transform([pixels.float() / 255])
    features = reference.backbone(images.tensors)
    heads = reference.roi_heads
    pooled = heads.mask_roi_pool(features, [found["boxes"]], images.image_sizes)
    logits = heads.mask_predictor(heads.mask_head(pooled))
    return logits[torch.arange(len(logits)), found["labels"]].sigmoid()


def test_losses_equal_torchvisions_on_the_same_samples() -> None:
    name = "maskrcnn_resnet50_fpn"
    reference = reference_of(name)
    detector = detector_of(name, reference)
    detector.rpn.beta, detector.box_head.beta = 1 / 9, 1 / 9  # what torchvision has
    assert detector.mask_head is not None
    detector.mask_head.samples = 0  # as many as a cell has pixels
    height, width = 160, 224
    boxes = [[[10.0, 20.0, 60.0, 70.0], [100.0, 30.0, 150.0, 140.0], [30.0, 90.0, 70.0, 130.0]]]
    labels = [[1, 3, 6]]
    images, targets = on_canvas(picture(height, width, 0)), make_targets(boxes, labels)
    masks_KHW = torch.zeros(3, height, width, dtype=torch.uint8)
    for k, (x0, y0, x1, y1) in enumerate(boxes[0]):
        masks_KHW[k, int(y0) : int(y1), int(x0) : int(x1 - (x1 - x0) / 3 * k)] = 1
        masks_KHW[k, int(y0) + 5 : int(y0) + 12, int(x0) + 3 : int(x0) + 20] = 0
    flat = Masks.of(list(masks_KHW), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    targets = replace(targets, masks=flat)

    maps = detector.body(images.pixels_N3HW, images.sizes_hw_N2)
    anchors = detector.rpn(maps)
    proposals = detector.rpn.propose(anchors, images, detector.rpn.train_limits)
    regions = detector.box_head.sample(proposals, targets)
    losses = detector.rpn.losses(anchors, detector.rpn.sample(anchors, images, targets))
    output = detector.box_head(maps, regions.boxes_NR4, images.sizes_hw_N2)
    losses |= detector.box_head.losses(regions, output)
    first, pooled = detector._to_mask(maps, regions, output)
    losses |= detector.mask_head.losses(detector.mask_head(pooled), first, images, targets)

    drawn = detector.rpn.sampler(
        detector.rpn.matcher(anchors.anchors_A4, detector.rpn.eligible(anchors.anchors_A4, images), targets),
        targets.draw_seeds_N,
    )
    reference.rpn.fg_bg_sampler = lambda labels: (
        [flags(len(labels[0]), drawn.index_NS[drawn.positive_NS])],
        [flags(len(labels[0]), drawn.index_NS[drawn.valid_NS & ~drawn.positive_NS])],
    )
    features, sizes = reference.backbone(_normalised(reference, images)), [(height, width)]
    image_list = torchvision.models.detection.image_list.ImageList(_normalised(reference, images), sizes)
    truth = [{"boxes": targets.boxes_NG4[0, :3], "labels": targets.labels_NG[0, :3], "masks": masks_KHW}]
    reference.rpn.train()
    _, expected = reference.rpn(image_list, features, truth)
    expected |= _head_losses(reference, features, sizes, regions, truth)
    pairs = {
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_box_cls": "loss_classifier",
        "loss_box_reg": "loss_box_reg",
        "loss_mask": "loss_mask",
    }
    assert set(pairs) == set(losses)
    assert int(first.positive_NR.sum()) > 3
    for name, reference_name in pairs.items():
        torch.testing.assert_close(losses[name], expected[reference_name], rtol=1e-4, atol=1e-6)


def flags(count: int, chosen: Tensor) -> Tensor:
    return torch.zeros(count, dtype=torch.uint8).index_fill(0, chosen, 1)


def _normalised(reference: Any, images: ImageBatch) -> Tensor:
    height, width = images.sizes_hw[0]
    normal = reference.transform.normalize(images.pixels_N3HW[0, :, :height, :width].float() / 255)
    return reference.transform.batch_images([normal])


def _head_losses(reference: Any, features: Any, sizes: Any, regions: Any, truth: Any) -> dict[str, Tensor]:
    heads = reference.roi_heads
    valid = regions.valid_NR[0]
    boxes, labels = [regions.boxes_NR4[0][valid]], [regions.labels_NR[0][valid]]
    matched = [regions.truth_index_NR[0][valid].clamp(max=2)]
    wanted = [encode(regions.truth_NR4[0][valid], boxes[0], (10.0, 10.0, 5.0, 5.0))]
    heads.select_training_samples = lambda proposals, targets: (boxes, matched, labels, wanted)
    heads.train()
    _, losses = heads(features, boxes, sizes, truth)
    return losses


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_the_published_files_names_and_shapes_fit(name: str) -> None:
    """torchvision's 91 outputs become COCO's 80 classes; names are today's or those of the published files."""
    with torch.device("meta"):
        state = MODELS[name](weights=None, weights_backbone=None).state_dict()
        recipe = torchvision_recipe(name)
        model = make_detector(recipe, make_detector_backbone(recipe), 80)
    coco = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
    expected = {name: tensor.shape for name, tensor in file_state(model).items()}
    for rename in (lambda key: key, _published_name):
        converted = from_torchvision({rename(key): tensor for key, tensor in state.items()}, coco)
        assert {name: tensor.shape for name, tensor in converted.items()} == expected


def _published_name(name: str) -> str:
    """As in the files of 2019 and 2020."""
    for part in ("inner_blocks", "layer_blocks"):
        if part in name:
            return name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
    if name.startswith("rpn.head.conv.0.0."):
        return name.replace("conv.0.0.", "conv.")
    if name.startswith("roi_heads.mask_head."):
        number, _, kind = name.removeprefix("roi_heads.mask_head.").partition(".0.")
        return f"roi_heads.mask_head.mask_fcn{int(number) + 1}.{kind}"
    return name
