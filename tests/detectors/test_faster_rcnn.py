"""The assembled detector: any batch is the same code, shapes are fixed, and it learns."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torch._subclasses import FakeTensorMode

from detectors.faster_rcnn import FasterRCNN
from detectors.structures import Detections, ImageBatch, Targets, padded_count
from tests.detectors import two_processes
from tests.detectors.tiny import make_images, make_targets, part_of, squares, tiny_detector

LOSSES = ["loss_rpn_cls", "loss_rpn_box", "loss_box_cls", "loss_box_reg"]
REPOSITORY = Path(__file__).parents[2]


def noise(*sizes_hw: tuple[int, int], canvas: int = 96) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(sizes_hw), 3, canvas, canvas), generator=generator, dtype=torch.uint8)
    return make_images(pixels, sizes_hw)


def train_step(model: FasterRCNN, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
    """Losses, after a backward pass that must have reached every parameter with something finite."""
    model.zero_grad()
    losses = model(images, targets)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert list(losses) == LOSSES
    for name, value in losses.items():
        assert value.dtype == torch.float32 and value.shape == () and value.isfinite(), name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses


def crowd_of(count: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=generator) * 80
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 14], dim=1).tolist()


def test_gradients_reach_every_parameter() -> None:
    model = tiny_detector()
    losses = train_step(model, *squares(2))
    assert all(value > 0 for value in losses.values())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


@pytest.mark.parametrize(
    "boxes",
    [
        pytest.param([], id="none"),
        pytest.param([[10.0, 10, 50, 60]], id="one"),
        pytest.param([[10.0, 10, 11, 11], [95.0, 95, 96, 96]], id="one pixel"),
        pytest.param([[5.0, 5, 5, 5]], id="no pixel"),
        pytest.param([[0.0, 0, 96, 96]], id="the whole image"),
        pytest.param([[-30.0, -30, 200, 200], [120.0, 120, 140, 140]], id="beyond the image"),
        pytest.param(crowd_of(300), id="300"),
    ],
)
def test_any_number_and_size_of_truths_gives_finite_losses(boxes: list[list[float]]) -> None:
    places = padded_count(len(boxes))
    targets = make_targets([boxes, []], [[1] * len(boxes), []], places=places)
    losses = train_step(tiny_detector(), noise((96, 96), (96, 96)), targets)
    if not boxes:
        assert losses["loss_rpn_box"] == 0 and losses["loss_box_reg"] == 0


def test_images_smaller_than_the_canvas_down_to_a_pixel_give_finite_losses() -> None:
    sizes = ((96, 96), (50, 96), (7, 9), (1, 1))
    targets = make_targets([[[1.0, 1, 30, 30]], [], [[0.0, 0, 9, 7]], [[0.0, 0, 1, 1]]], [[1], [], [2], [3]])
    train_step(tiny_detector(), noise(*sizes), targets)


def test_what_lies_on_the_padding_does_not_matter() -> None:
    model = tiny_detector()
    images, targets = squares(2, sizes_hw=((96, 96), (60, 70)))
    pixels = images.pixels_N3HW.clone()
    pixels[1, :, 60:] = 255
    pixels[1, :, :, 70:] = 255
    first, second = model(images, targets), model(replace(images, pixels_N3HW=pixels), targets)
    assert all(torch.equal(first[name], second[name]) for name in LOSSES)


def test_more_padding_among_the_truths_changes_nothing() -> None:
    model = tiny_detector()
    images, _ = squares(2)
    boxes, labels = [[[10.0, 10, 50, 60]], [[20.0, 30, 40, 50]]], [[1], [2]]
    few, many = (model(images, make_targets(boxes, labels, places=places)) for places in (16, 256))
    for name in LOSSES:
        torch.testing.assert_close(few[name], many[name])


def test_an_ignored_object_is_neither_learnt_as_object_nor_as_background() -> None:
    model = tiny_detector()
    whole = [[0.0, 0, 96, 96]]
    losses = model(noise((96, 96)), make_targets([whole], [[1]], ignore=[[True]]))
    # Nothing is left to learn: all anchors with half their area in the image lie in the ignored object.
    regions = model.box_head.sample(
        model.rpn.propose(
            model.rpn(model.body(noise((96, 96)).pixels_N3HW, torch.tensor([[96, 96]]))),
            noise((96, 96)),
            model.rpn.train_limits,
        ),
        make_targets([whole], [[1]], ignore=[[True]]),
    )
    assert not regions.valid_NR.any()
    assert losses["loss_box_cls"] == 0 and losses["loss_box_reg"] == 0 and losses["loss_rpn_box"] == 0


def test_truth_boxes_join_the_proposals_unless_told_otherwise() -> None:
    images, targets = squares(2, seed=1)
    for append_truth in (True, False):
        model = tiny_detector(append_truth=append_truth)
        maps = model.body(images.pixels_N3HW, images.sizes_hw_N2)
        proposals = model.rpn.propose(model.rpn(maps), images, model.rpn.train_limits)
        regions = model.box_head.sample(proposals, targets)
        exact = (regions.boxes_NR4 == regions.truth_NR4).all(dim=-1) & regions.valid_NR
        assert exact.any() == append_truth
        assert regions.boxes_NR4.shape == (2, 32, 4)


def test_a_batch_of_two_is_two_batches_of_one() -> None:
    model = tiny_detector()
    images, targets = squares(2, seed=4)
    together = model(images, targets)
    alone = [model(*part_of(images, targets, slice(n, n + 1))) for n in range(2)]
    for name in LOSSES:
        torch.testing.assert_close(together[name], (alone[0][name] + alone[1][name]) / 2)


def test_bf16_layers_give_float32_losses_near_those_of_float32() -> None:
    model = tiny_detector()
    batch = squares(2)
    exact = train_step(model, *batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(*batch)
        detections = model.eval().detect(batch[0])
    for name in LOSSES:
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], exact[name], rtol=0.1, atol=0.02)
    assert detections.boxes_ND4.dtype == detections.scores_ND.dtype == torch.float32


@pytest.mark.parametrize("truths", [0, 3])
def test_no_shape_depends_on_data_and_nothing_is_read_back(truths: int) -> None:
    # A fake tensor has a shape but no values: whatever asks for one raises.
    with FakeTensorMode():
        model = tiny_detector()
        boxes = [[[1.0, 1, 20, 20]] * truths] * 2
        targets = make_targets(boxes, [[1] * truths] * 2, ignore=[[False] * truths] * 2)
        images = make_images(torch.zeros(2, 3, 96, 96, dtype=torch.uint8), ((96, 96), (80, 90)))
        losses = model(images, targets)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        assert model.detect(images).boxes_ND4.shape == (2, 100, 4)


def test_a_network_of_nans_reports_a_nan_loss_and_does_not_crash() -> None:
    model = tiny_detector()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    images, targets = squares(2)
    assert model(images, targets)["loss_rpn_cls"].isnan()
    assert not model.eval().detect(images).valid_ND.any()


def test_two_processes_equal_one_with_the_whole_batch_even_if_one_has_no_truths(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.detectors.two_processes"]
    workers = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path)], cwd=REPOSITORY, env=environment)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case in two_processes.CASES:
        model = tiny_detector()
        losses = train_step(model, *two_processes.share(0, 1, case))
        first, second = (result[case] for result in results)
        for name in LOSSES:
            mean = (first["losses"][name] + second["losses"][name]) / 2
            torch.testing.assert_close(mean, losses[name].detach())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(first["gradients"][name], parameter.grad, rtol=1e-4, atol=1e-6)
            assert torch.equal(first["gradients"][name], second["gradients"][name])
    assert results[1][two_processes.CASES[1]]["losses"]["loss_box_reg"] == 0  # it had no truths indeed


def recall(found: Detections, targets: Targets, iou: float = 0.5) -> float:
    """Share of the truths that a detection of score 0.5 and the right label covers."""
    hits = total = 0
    for n in range(len(targets.boxes_NG4)):
        truth = targets.valid_NG[n]
        good = found.valid_ND[n] & (found.scores_ND[n] > 0.5)
        overlap = torchvision.ops.box_iou(targets.boxes_NG4[n][truth], found.boxes_ND4[n][good])
        overlap = overlap * (targets.labels_NG[n][truth][:, None] == found.labels_ND[n][good])
        hits += int((overlap >= iou).any(dim=1).sum())
        total += int(truth.sum())
    return hits / total


def test_it_learns_four_images_by_heart() -> None:
    model = tiny_detector()
    batch = squares(4, seed=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for iteration in range(450):
        optimiser.param_groups[0]["lr"] = 0.02 * min(1.0, (iteration + 1) / 50)
        optimiser.zero_grad()
        sum(model(*batch).values()).backward()
        optimiser.step()
    assert recall(model.eval().detect(batch[0]), batch[1]) > 0.9
