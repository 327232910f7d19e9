"""Several sizes, mirrored images, ensembles, context and masks, each against its definition carried out region by
region; and all of them together."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision

from detectors.postprocess import PostProcess, RegionScores
from detectors.structures import ImageBatch
from detectors.testtime import DetectorView, ImprovedDetector, MeanView, MirroredView, MultiScaleView, mirror_images
from tests.detectors.opinionated import CLASSES, SIZES_HW, answer, moved, opinionated, pictures, softmax
from tests.detectors.tiny import STRIDE, make_images, squares

POST = PostProcess(score_threshold=0.2, nms_iou=0.5, detections=20)


def at_scales(images: ImageBatch, factors: tuple[float, ...]) -> ImageBatch:
    """The images and, beside them, the same at other sizes."""
    others = []
    for factor in factors:
        sizes_hw = tuple((round(h * factor), round(w * factor)) for h, w in images.sizes_hw)
        side = -(-max(max(size) for size in sizes_hw) // 32) * 32
        pixels = torch.zeros(len(images), 3, side, side, dtype=torch.uint8)
        for n, ((h, w), (rows, columns)) in enumerate(zip(images.sizes_hw, sizes_hw)):
            image = images.pixels_N3HW[n : n + 1, :, :h, :w].float()
            resized = F.interpolate(image, (rows, columns), mode="bilinear", antialias=True)
            pixels[n, :, :rows, :columns] = resized[0].round().to(torch.uint8)
        others.append(make_images(pixels, sizes_hw))
    return replace(images, other_scales=tuple(others))


def test_without_improvements_it_is_the_detector_itself() -> None:
    detector, images = opinionated(), pictures()
    detector.box_head.postprocess = POST
    expected, found = detector.detect(images), ImprovedDetector([detector], POST).detect(images)
    assert expected.valid_ND.any() and torch.equal(expected.labels_ND, found.labels_ND)
    torch.testing.assert_close(found.boxes_ND4, expected.boxes_ND4)
    torch.testing.assert_close(found.scores_ND, expected.scores_ND)


def test_each_region_is_read_at_the_two_sizes_around_its_ideal_one() -> None:
    detector, region_px = opinionated(), 40.0
    images = at_scales(pictures(), (2.0, 0.5, 1.5))
    view = MultiScaleView(detector, images, region_px)
    proposals = view.propose()
    assert torch.equal(proposals.boxes_NP4, DetectorView(detector, images).propose().boxes_NP4)
    whole = torch.tensor([[[0.0, 0, w, h]] for h, w in SIZES_HW])
    small = torch.tensor([[[10.0, 12, 16, 17]], [[40.0, 30, 49, 39]]])
    boxes = torch.cat([proposals.boxes_NP4, whole, small], dim=1)
    scores = view.score(boxes)
    used = set()
    scales = [images.other_scales[1], images, images.other_scales[2], images.other_scales[0]]  # by size
    for n, (height, width) in enumerate(SIZES_HW):
        for p, box in enumerate(boxes[n].tolist()):
            at_scale = []
            for scale in scales:
                fx, fy = scale.sizes_hw[n][1] / width, scale.sizes_hw[n][0] / height
                at_scale.append([box[0] * fx, box[1] * fy, box[2] * fx, box[3] * fy])
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in at_scale]
            if areas[-1] <= region_px**2:
                pair = (2, 3)
            elif areas[0] > region_px**2:
                pair = (0, 1)
            else:
                pair = next((i, i + 1) for i in range(3) if areas[i] <= region_px**2 < areas[i + 1])
            used.add(pair)
            pooled = []
            for place in pair:
                scale = scales[place]
                (features,) = detector.body(scale.pixels_N3HW[n : n + 1], scale.sizes_hw_N2[n : n + 1])
                region = [torch.tensor([at_scale[place]])]
                pooled.append(torchvision.ops.roi_align(features, region, 7, 1 / STRIDE, aligned=True))
            head = detector.box_head.head
            logits, deltas = detector.box_head.predictor(head.vectors(head.maps(torch.maximum(*pooled))))
            assert scores.probabilities_NPK[n, p].tolist() == pytest.approx(softmax(logits[0]), abs=1e-4)
            expected = [moved(box, delta, (height, width)) for delta in deltas[0].tolist()]
            torch.testing.assert_close(scores.boxes_NPQ4[n, p], torch.tensor(expected), rtol=1e-3, atol=1e-2)
    assert used == {(0, 1), (1, 2), (2, 3)}


def test_many_regions_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = at_scales(pictures(), (0.5,))
    view = MultiScaleView(opinionated(context=True), images, 40.0)
    boxes = view.propose().boxes_NP4
    whole = view.score(boxes)
    monkeypatch.setattr("detectors.testtime.REGIONS_AT_A_TIME", 7)
    parts = view.score(boxes)
    torch.testing.assert_close(parts.probabilities_NPK, whole.probabilities_NPK, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.boxes_NPQ4, whole.boxes_NPQ4, rtol=1e-4, atol=1e-3)


def test_several_sizes_need_several_images() -> None:
    with pytest.raises(ValueError, match="two sizes or more"):
        MultiScaleView(opinionated(), pictures())


def test_mirroring_turns_each_image_where_it_lies() -> None:
    images = at_scales(pictures(), (0.5,))
    mirrored = mirror_images(images)
    for before, after in zip((images, *images.other_scales), (mirrored, *mirrored.other_scales)):
        for n, (height, width) in enumerate(before.sizes_hw):
            one, other = before.pixels_N3HW[n], after.pixels_N3HW[n]
            assert torch.equal(other[:, :height, :width], one[:, :height, :width].flip(2))
            assert torch.equal(other[:, :, width:], one[:, :, width:])


def test_a_mirrored_view_answers_in_the_images_own_pixels() -> None:
    detector, images = opinionated(masks=True), pictures()
    mirrored = mirror_images(images)
    view, there = MirroredView(DetectorView(detector, mirrored), images.sizes_hw_N2), DetectorView(detector, mirrored)
    proposals = view.propose()
    scores = view.score(proposals.boxes_NP4)
    for n, (_, width) in enumerate(images.sizes_hw):

        def back(boxes: torch.Tensor, width: int = width) -> torch.Tensor:
            return torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], dim=-1)

        torch.testing.assert_close(proposals.boxes_NP4[n], back(there.propose().boxes_NP4[n]))
        expected = there.score(back(proposals.boxes_NP4[n])[None].expand(2, -1, -1))
        torch.testing.assert_close(scores.probabilities_NPK[n], expected.probabilities_NPK[n], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(scores.boxes_NPQ4[n], back(expected.boxes_NPQ4[n]), rtol=1e-3, atol=1e-2)
    straight = detector.detect(mirrored)
    boxes = view.add_masks(replace(straight, boxes_ND4=_mirrored(straight.boxes_ND4, images)))
    torch.testing.assert_close(boxes.masks_NDMM, straight.masks_NDMM.flip(3), rtol=1e-3, atol=1e-4)  # type: ignore


def _mirrored(boxes_ND4: torch.Tensor, images: ImageBatch) -> torch.Tensor:
    width_N1 = images.sizes_hw_N2[:, 1:]
    x0, y0, x1, y1 = boxes_ND4.unbind(-1)
    return torch.stack([width_N1 - x1, y0, width_N1 - x0, y1], dim=-1)


@pytest.mark.parametrize("mirror", [False, True])
def test_an_ensemble_is_the_mean_of_what_each_detector_says_of_each_region(mirror: bool) -> None:
    detectors, images = [opinionated(seed) for seed in range(3)], pictures()
    view = ImprovedDetector(detectors, POST, mirror=mirror).view(images)
    proposals = view.propose()
    each = [DetectorView(detector, images).propose() for detector in detectors]
    assert torch.equal(proposals.boxes_NP4, torch.cat([one.boxes_NP4 for one in each], dim=1))
    assert torch.equal(proposals.valid_NP, torch.cat([one.valid_NP for one in each], dim=1))
    scores = view.score(proposals.boxes_NP4)
    mirrored = mirror_images(images)
    for n, p in itertools.product(range(2), range(0, 90, 7)):
        box = proposals.boxes_NP4[n, p].tolist()
        answers = [answer(detector, images, n, box) for detector in detectors]
        width = float(images.sizes_hw[n][1])
        for detector in detectors if mirror else ():
            turned = [width - box[2], box[1], width - box[0], box[3]]
            probabilities, boxes = answer(detector, mirrored, n, turned)
            answers.append((probabilities, [[width - b[2], b[1], width - b[0], b[3]] for b in boxes]))
        probabilities = torch.tensor([one[0] for one in answers]).mean(dim=0)
        boxes = torch.tensor([one[1] for one in answers]).mean(dim=0)
        torch.testing.assert_close(scores.probabilities_NPK[n, p], probabilities, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(scores.boxes_NPQ4[n, p], boxes, rtol=1e-3, atol=1e-2)


def test_one_box_for_all_classes_stands_for_each_class_in_an_ensemble() -> None:
    class Says:
        def __init__(self, boxes_NPQ4: torch.Tensor) -> None:
            self.scores = RegionScores(torch.full((1, 2, CLASSES + 1), 0.25), boxes_NPQ4)

        def score(self, boxes_NP4: torch.Tensor) -> RegionScores:
            return self.scores

    each, one = torch.rand(1, 2, CLASSES, 4), torch.rand(1, 2, 1, 4)
    views = [Says(each), Says(one)]
    for order in (views, views[::-1]):
        found = MeanView(order, order).score(torch.zeros(1, 2, 4))  # type: ignore[arg-type]
        for c in range(CLASSES):
            torch.testing.assert_close(found.boxes_NPQ4[:, :, c], (each[:, :, c] + one[:, :, 0]) / 2)


def test_detectors_of_other_classes_make_no_ensemble() -> None:
    from tests.detectors.tiny import tiny_detector

    with pytest.raises(ValueError, match="same classes"):
        ImprovedDetector([tiny_detector(3), tiny_detector(4)], POST)


def test_context_puts_the_whole_images_vector_beside_each_regions() -> None:
    detector, images = opinionated(context=True), pictures()
    head = detector.box_head
    maps = detector.body(images.pixels_N3HW, images.sizes_hw_N2)
    boxes = torch.tensor([[[3.0, 4, 60, 50], [20, 20, 40, 70]], [[0.0, 0, 30, 30], [50, 10, 90, 70]]])
    output = head(maps, boxes, images.sizes_hw_N2)
    for n, (height, width) in enumerate(SIZES_HW):
        own = [level[n : n + 1] for level in maps]

        def vector(box: list[float], own: list[torch.Tensor] = own) -> torch.Tensor:
            return head.head.vectors(head.head.maps(head.pool(own, torch.tensor([[box]]))))[0]

        whole = vector([0.0, 0.0, float(width), float(height)])
        for p, box in enumerate(boxes[n].tolist()):
            both = torch.cat([vector(box), whole])
            logits = head.predictor.scores.weight @ both + head.predictor.scores.bias
            deltas = head.predictor.deltas.weight @ both + head.predictor.deltas.bias
            torch.testing.assert_close(output.logits_NRK[n, p], logits, rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(output.deltas_NRQ4[n, p].flatten(), deltas, rtol=1e-4, atol=1e-2)
    assert output.maps_NRCHW.shape[:2] == (2, 2)


def test_context_is_learnt() -> None:
    detector = opinionated(context=True).train()
    images, targets = squares(2)
    sum(detector(images, targets).values()).backward()  # type: ignore[union-attr]
    gradient = detector.box_head.predictor.scores.weight.grad
    assert gradient is not None and gradient[:, :64].abs().sum() > 0 and gradient[:, 64:].abs().sum() > 0


@pytest.mark.parametrize(("refine", "several", "mirror", "many"), itertools.product([False, True], repeat=4))
def test_all_improvements_combine(refine: bool, several: bool, mirror: bool, many: bool) -> None:
    detectors = [opinionated(0, context=True, masks=True)] + [opinionated(seed) for seed in (1, 2) if many]
    images = at_scales(pictures(), (0.5, 1.5)) if several else pictures()
    improved = ImprovedDetector(detectors, POST, refine=refine, region_px=40.0 if several else None, mirror=mirror)
    found = improved.detect(images)
    assert found.boxes_ND4.shape == (2, 20, 4) and found.valid_ND.any(dim=1).all()
    assert (found.scores_ND.diff(dim=1) <= 0).all() and (found.scores_ND <= 1).all()
    for n, (height, width) in enumerate(images.sizes_hw):
        assert (found.boxes_ND4[n] >= 0).all()
        assert (found.boxes_ND4[n] <= torch.tensor([width, height] * 2) + 1e-3).all()
    # masks: the first detector's, of the final boxes, from the image as it is
    maps = detectors[0].body(images.pixels_N3HW, images.sizes_hw_N2)
    expected = detectors[0].add_masks(maps, replace(found, masks_NDMM=None))
    assert found.masks_NDMM is not None
    torch.testing.assert_close(found.masks_NDMM, expected.masks_NDMM)
