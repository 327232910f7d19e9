"""Our C4 detector against detectron2's with the same weights: the same detections, the same losses and gradients."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor

from tests.detectors import detectron2_peer as peer
from tests.detectors.tiny import make_images, make_targets
from vertebra.build.outside_detectors import from_detectron2

needs_detectron2 = pytest.mark.skipif(
    not peer.is_there(),
    reason="detectron2 cannot be imported; tests/detectors/detectron2_peer.py says how to install it",
)
SIZES_HW = [(200, 300), (300, 225), (187, 251), (128, 128)]


def real_images() -> tuple[list[Path], dict[str, Any]]:
    root = Path(os.environ.get("VERTEBRA_DATA") or Path(__file__).parents[3] / "shared" / "data") / "coco"
    if not root.is_dir():
        pytest.skip(f"no {root}; set VERTEBRA_DATA to the real data")
    annotations = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    return sorted((root / "val2017").glob("*.jpg")), annotations


def pixels_bgr(path: Path, size_hw: tuple[int, int]) -> Tensor:
    """uint8, 3HW, as detectron2 takes them."""
    image = cv2.resize(cv2.imread(str(path)), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@pytest.mark.slow
@needs_detectron2
def test_detections_equal_detectron2s_on_real_images() -> None:
    paths, _ = real_images()
    reference = peer.detectron2s(proposals=(200, 100)).eval()
    detector = peer.vertebras(reference).eval()
    for path, size_hw in zip(paths, SIZES_HW):
        bgr = pixels_bgr(path, size_hw)
        with torch.no_grad():
            expected = reference.inference([{"image": bgr}], do_postprocess=False)[0]
        found = detector.detect(make_images(bgr.flip(0).unsqueeze(0), (size_hw,)))
        valid = found.valid_ND[0]
        assert len(expected) > 20
        torch.testing.assert_close(found.scores_ND[0][valid], expected.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes_ND4[0][valid], expected.pred_boxes.tensor, rtol=0, atol=1e-3)
        assert torch.equal(found.labels_ND[0][valid], expected.pred_classes + 1)


class Recorder:
    """In the place of a sampler: keeps what it was given and what it drew."""

    def __init__(self, sampler: Callable[..., Any]) -> None:
        self.sampler = sampler

    def __call__(self, matches: Any, seeds_N: Tensor) -> Any:
        self.matches, self.samples = matches, self.sampler(matches, seeds_N)
        return self.samples


@pytest.mark.slow
@needs_detectron2
def test_losses_and_gradients_equal_detectron2s_on_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    images, truths, labels = two_images()
    reference = peer.detectron2s(proposals=(200, 100), regions=64).train()
    detector = peer.vertebras(reference).train()
    rpn = detector.rpn.sampler = Recorder(detector.rpn.sampler)
    box = detector.box_head.sampler = Recorder(detector.box_head.sampler)
    size_hw = tuple(images.shape[-2:])
    batch = make_images(images.flip(1), (size_hw,) * 2)
    losses = detector(batch, make_targets([truth.tolist() for truth in truths], [(one + 1).tolist() for one in labels]))
    torch.stack([*losses.values()]).sum().backward()
    assert rpn.samples.valid_NS.all() and box.samples.valid_NS.all()  # both divide by the full number then
    assert rpn.samples.positive_NS.any(dim=1).all() and box.samples.positive_NS.any(dim=1).all()

    # Our anchors at a cell go by ratio, then scale; detectron2's by scale, then ratio.
    scales, ratios = len(peer.SCALES), len(peer.RATIOS)
    anchors = rpn.matches.positive_NA.shape[1]
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
        class_A = torch.where(label_A == 1, classes_G[matched_A], peer.CLASSES)
        place_S = box.samples.index_NS[n]
        drawn_S = torch.where(place_S < slots, place_S, place_S - slots + proposals)
        assert torch.equal(class_A[drawn_S] < peer.CLASSES, box.samples.positive_NS[n])
        return drawn_S, class_A[drawn_S]

    monkeypatch.setattr(reference.proposal_generator, "_subsample_labels", sample_anchors)
    monkeypatch.setattr(reference.roi_heads, "_sample_proposals", sample_proposals)
    expected = reference_losses(reference, images, truths, labels)
    torch.stack([*expected.values()]).sum().backward()
    assert turn == {"rpn": 2, "box": 2}
    names = {"loss_rpn_box": "loss_rpn_loc", "loss_box_cls": "loss_cls"}
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[names.get(name, name)], rtol=1e-5, atol=1e-6)

    gradients = from_detectron2(
        {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}, scales=scales
    )
    for name, parameter in detector.named_parameters():
        file_name = name.replace("box_head.head.", "trunk.").replace("trunk.", "backbone.")
        assert (parameter.grad is None) == (file_name not in gradients)
        if parameter.grad is not None:
            # As a whole: rounding turns a ReLU here and there, and so single entries of a gradient.
            difference = (parameter.grad - gradients[file_name]).norm() / gradients[file_name].norm()
            assert difference < 1e-3, name


def two_images(size_hw: tuple[int, int] = (192, 256)) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Pixels N3HW in BGR, boxes and classes (0 .. 79) of the first two images with several large objects."""
    paths, annotations = real_images()
    place = {category: n for n, category in enumerate(sorted(one["id"] for one in annotations["categories"]))}
    pixels, boxes, classes = [], [], []
    for path in paths:
        objects = [a for a in annotations["annotations"] if a["image_id"] == int(path.stem) and not a["iscrowd"]]
        image = next(one for one in annotations["images"] if one["id"] == int(path.stem))
        x, y, w, h = torch.tensor([one["bbox"] for one in objects] or [[0.0] * 4]).unbind(1)
        scale = torch.tensor([size_hw[1] / image["width"], size_hw[0] / image["height"]] * 2)
        large = ((w * h) > 0.02 * image["width"] * image["height"]).nonzero().squeeze(1)
        if 3 <= len(large) <= 16:
            pixels.append(pixels_bgr(path, size_hw))
            boxes.append((torch.stack([x, y, x + w, y + h], dim=1) * scale)[large])
            classes.append(torch.tensor([place[objects[index]["category_id"]] for index in large]))
        if len(pixels) == 2:
            return torch.stack(pixels), boxes, classes
    raise AssertionError("the data set has no two such images")


def reference_losses(model: Any, images: Tensor, boxes: list[Tensor], classes: list[Tensor]) -> dict[str, Tensor]:
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    inputs = []
    for pixels, truth, label in zip(images, boxes, classes):
        instances = Instances(tuple(pixels.shape[-2:]), gt_boxes=Boxes(truth), gt_classes=label)
        inputs.append({"image": pixels, "instances": instances})
    with EventStorage(0):
        return model(inputs)


def test_names_that_no_c4_detector_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.fpn_lateral2\.weight"):
        from_detectron2({"backbone.fpn_lateral2.weight": torch.zeros(1)}, scales=5)


def test_names_and_orders_are_vertebras() -> None:
    # By hand: two scales a, b and three ratios, so detectron2's order is a1 a2 a3 b1 b2 b3.
    state = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "backbone.stem.conv1.weight": torch.arange(3.0).view(1, 3, 1, 1),
        "backbone.stem.conv1.norm.running_var": torch.ones(1),
        "backbone.res4.5.conv3.norm.bias": torch.ones(1),
        "roi_heads.res5.0.shortcut.weight": torch.ones(1),
        "roi_heads.res5.0.shortcut.norm.weight": torch.ones(1),
        "proposal_generator.rpn_head.objectness_logits.bias": torch.arange(6.0),
        "proposal_generator.rpn_head.anchor_deltas.bias": torch.arange(24.0),
        "roi_heads.box_predictor.cls_score.bias": torch.arange(3.0),
    }
    converted = from_detectron2(state, scales=2)
    assert [*converted] == [
        "backbone.conv1.weight",
        "backbone.bn1.running_var",
        "backbone.layer3.5.bn3.bias",
        "backbone.layer4.0.downsample.0.weight",
        "backbone.layer4.0.downsample.1.weight",
        "rpn.head.objectness.bias",
        "rpn.head.deltas.bias",
        "box_head.predictor.scores.bias",
    ]
    assert converted["backbone.conv1.weight"].flatten().tolist() == [2, 1, 0]
    assert from_detectron2(state, scales=2, bgr=False)["backbone.conv1.weight"].flatten().tolist() == [0, 1, 2]
    assert converted["rpn.head.objectness.bias"].tolist() == [0, 3, 1, 4, 2, 5]
    assert converted["rpn.head.deltas.bias"].view(6, 4)[:, 0].tolist() == [0, 12, 4, 16, 8, 20]
    assert converted["box_head.predictor.scores.bias"].tolist() == [2, 0, 1]
