"""The per-class RPN: against separate one-class heads, a naive loss, a naive search; what learns and what does not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from detectors.anchors import AnchorGrid
from detectors.boxes import box_iou, clip, decode, encode
from detectors.localizer import Localizer, PerClassHead, elect
from detectors.matching import Matcher
from detectors.structures import ImageBatch, Targets
from tests.detectors.tiny import STRIDE, TinyTrunk, make_images, make_targets

CLASSES = 5


def tiny_localizer(*, seed: int = 0, **options) -> Localizer:
    torch.manual_seed(seed)
    grid = AnchorGrid(scales=(16, 32, 64), ratios=(0.5, 1.0, 2.0), stride=STRIDE)
    return Localizer(trunk=TinyTrunk(), head=PerClassHead(32, CLASSES, grid.per_cell), anchors=grid, **options)


def labelled(count: int, *, seed: int = 0, side: int = 96) -> tuple[ImageBatch, Targets, torch.Tensor]:
    """One bright rectangle an image on noise, of classes that its form tells nothing of."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    pixels = 114 + 10 * torch.randn(count, 3, side, side, generator=generator)
    boxes = []
    for n in range(count):
        width, height = draw(20, 50), draw(20, 50)
        x, y = draw(0, side - width), draw(0, side - height)
        pixels[n, :, y : y + height, x : x + width] = 220
        boxes.append([[x, y, x + width, y + height]])
    classes_N = torch.arange(count) % CLASSES
    targets = make_targets(boxes, [[int(one) + 1] for one in classes_N])
    return make_images(pixels.clamp(0, 255).to(torch.uint8), ((side, side),) * count), targets, classes_N


@dataclass(frozen=True)
class Group:
    rows_n: torch.Tensor
    pixels_n3HW: torch.Tensor
    place_n4: torch.Tensor


@dataclass(frozen=True)
class Views:
    groups: tuple[tuple[Group, ...], ...]
    sizes_hw_N2: torch.Tensor


def as_they_are(images: ImageBatch) -> Views:
    place = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(images), 4)
    return Views(((Group(torch.arange(len(images)), images.pixels_N3HW, place),),), images.sizes_hw_N2)


def test_the_per_class_form_equals_as_many_one_class_heads() -> None:
    torch.manual_seed(0)
    head = PerClassHead(8, CLASSES, 3, hidden_channels=6)
    nn.init.normal_(head.cls.bias)
    nn.init.normal_(head.reg.bias)
    features = torch.randn(2, 8, 4, 5)
    asked = torch.tensor([[4, 0, 2], [1, 1, 3]])
    logits, deltas = head(features, asked)
    hidden = head.conv(features).relu()
    for n in range(2):
        for q, label in enumerate(asked[n].tolist()):
            one_class, regressor = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 12, 1)
            one_class.weight.data, one_class.bias.data = (p[3 * label :][:3] for p in (head.cls.weight, head.cls.bias))
            regressor.weight.data, regressor.bias.data = (
                p[12 * label :][:12] for p in (head.reg.weight, head.reg.bias)
            )
            own_logits, own_deltas = one_class(hidden[n : n + 1])[0], regressor(hidden[n : n + 1])[0]
            anchor = 0
            for row in range(4):  # the order of AnchorGrid
                for column in range(5):
                    for k in range(3):
                        torch.testing.assert_close(logits[n, q, anchor], own_logits[k, row, column])
                        torch.testing.assert_close(deltas[n, q, anchor], own_deltas[4 * k : 4 * k + 4, row, column])
                        anchor += 1
            assert anchor == logits.shape[2]


def test_only_the_classes_of_the_images_learn() -> None:
    model = tiny_localizer()
    images, targets, _ = labelled(2)
    losses = model(images, targets, torch.tensor([3, 1]))
    (losses["loss_loc_cls"] + losses["loss_loc_box"]).backward()
    for sibling in (model.head.cls, model.head.reg):
        of_class = sibling.weight.grad.flatten(1).abs().sum(1).view(CLASSES, -1).sum(1)
        assert (of_class > 0).tolist() == [False, True, False, True, False]
        assert (sibling.bias.grad.view(CLASSES, -1).abs().sum(1) > 0).tolist() == [False, True, False, True, False]


def test_the_losses_are_those_of_eight_anchors_an_image_half_of_them_positive() -> None:
    model = tiny_localizer(matcher=Matcher(positive=0.5, negative=0.3, best_for_truth=True))
    images, targets, classes = labelled(3)
    losses = model(images, targets, classes)
    logits, deltas = model.head(model.trunk(images.pixels_N3HW, images.sizes_hw_N2), classes[:, None])
    anchors = model.anchors(12, 12, torch.device("cpu"))
    matches = model.matcher(anchors, torch.ones(3, len(anchors), dtype=torch.bool), targets)
    samples = model.sampler(matches, targets.draw_seeds_N)
    class_loss, box_loss, positives = 0.0, 0.0, 0
    for n in range(3):
        for s in range(8):
            a = int(samples.index_NS[n, s])
            probability = logits[n, 0, a].sigmoid()
            iou = box_iou(anchors[a : a + 1], targets.boxes_NG4[n, :1])[0, 0]
            if samples.positive_NS[n, s]:
                positives += 1
                class_loss -= probability.log()
                wanted = encode(targets.boxes_NG4[n, 0], anchors[a], (1.0, 1.0, 1.0, 1.0))
                for difference in (deltas[n, 0, a] - wanted).abs():
                    box_loss += difference**2 * 4.5 if difference < 1 / 9 else difference - 1 / 18
            else:
                assert iou < 0.3
                class_loss -= (1 - probability).log()
    assert samples.valid_NS.all() and 3 <= positives <= 12
    torch.testing.assert_close(losses["loss_loc_cls"], class_loss / 24)
    torch.testing.assert_close(losses["loss_loc_box"], box_loss / 24)


def test_an_image_whose_truths_are_all_ignored_teaches_that_nothing_is_there() -> None:
    model = tiny_localizer()
    images, targets, classes = labelled(2)
    values = model(images, replace(targets, ignore_NG=targets.valid_NG.clone()), classes)
    assert values["loss_loc_box"] == 0 and 0 < values["loss_loc_cls"] < 1


def test_dense_search_over_views_of_several_sizes_equals_a_naive_loop() -> None:
    model = tiny_localizer(seed=3).eval()
    nn.init.normal_(model.head.cls.weight, std=0.3)
    nn.init.normal_(model.head.reg.weight, std=0.1)
    generator = torch.Generator().manual_seed(1)
    sizes = ((100, 140), (90, 60), (100, 140))
    asked = torch.tensor([[0, 3], [2, 2], [4, 1]])
    large = [torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8) for h, w in sizes]
    small = [torch.randint(0, 256, (3, 48, 56), generator=generator, dtype=torch.uint8) for _ in sizes]
    spans = [[3.0, 2.0, w / 60, h / 50] for h, w in sizes]
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    groups_large = (
        Group(torch.tensor([0, 2]), torch.stack([large[0], large[2]]), whole.expand(2, 4)),
        Group(torch.tensor([1]), large[1][None], whole[None]),
    )
    groups_small = (Group(torch.arange(3), torch.stack(small), torch.tensor(spans)),)
    boxes, scores = model.locate(Views((groups_large, groups_small), torch.tensor(sizes)), asked)
    assert boxes.shape == (3, 2, 4)
    for n, (height, width) in enumerate(sizes):
        for q in range(2):
            best_score, best_box = -1.0, None
            for pixels, (x, y, x_span, y_span) in ((large[n], whole.tolist()), (small[n], spans[n])):
                features = model.trunk(pixels[None], torch.tensor([pixels.shape[1:]]))
                logits, deltas = model.head(features, asked[n : n + 1, q : q + 1])
                anchors = model.anchors(*features.shape[2:], torch.device("cpu"))
                for a in range(len(anchors)):
                    centre = (anchors[a, :2] + anchors[a, 2:]) / 2
                    if centre[0] >= pixels.shape[2] or centre[1] >= pixels.shape[1]:
                        continue
                    score = logits[0, 0, a].sigmoid().item()
                    if score > best_score:
                        box = decode(deltas[0, 0, a], anchors[a], (1.0, 1.0, 1.0, 1.0))
                        box = box * torch.tensor([x_span, y_span] * 2) + torch.tensor([x, y] * 2)
                        best_score, best_box = score, clip(box[None, None], torch.tensor([[height, width]]))[0, 0]
            assert float(scores[n, q]) == pytest.approx(best_score, abs=1e-5)
            torch.testing.assert_close(boxes[n, q], best_box, atol=1e-2, rtol=1e-4)


def test_candidates_vote_by_their_scores_if_they_overlap_the_best() -> None:
    boxes = torch.tensor([[[[0.0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60], [0, 0, 10, 30]]]])
    scores = torch.tensor([[[0.6, 0.3, 0.5, 0.1]]])
    box, score = elect(boxes, scores, 0.5)  # the third lies elsewhere, the fourth overlaps by a third
    torch.testing.assert_close(box[0, 0], torch.tensor([0, 0, 10, (0.6 * 10 + 0.3 * 12) / 0.9]))
    assert score.item() == pytest.approx(0.6)
    assert torch.equal(elect(boxes[:, :, :1], scores[:, :, :1], 0.5)[0][0, 0], boxes[0, 0, 0])


def test_a_few_images_are_learnt_by_heart() -> None:
    model = tiny_localizer()
    images, targets, classes = labelled(6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        losses = model(images, replace(targets, draw_seeds_N=targets.draw_seeds_N + step), classes)
        (losses["loss_loc_cls"] + losses["loss_loc_box"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["located"] == 100
    boxes, scores = model.eval().locate(as_they_are(images), classes[:, None])
    iou = box_iou(boxes, targets.boxes_NG4[:, :1])[:, 0, 0]
    assert (iou >= 0.5).all() and (scores > 0.5).all()


def test_a_head_that_does_not_fit_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="4 anchors a cell, but the grid 9"):
        Localizer(trunk=TinyTrunk(), head=PerClassHead(8, 2, 4), anchors=AnchorGrid())
