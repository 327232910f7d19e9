"""A training step is one program of fixed shapes, for which the host never waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from backbones import create_backbone
from backbones.norms import freeze_norms
from detectors.anchors import AnchorGrid
from detectors.bodies import FeaturePyramid, SingleMap
from detectors.box_head import BoxHead, BoxPredictor, LinearRegionHead
from detectors.faster_rcnn import FasterRCNN
from detectors.mask_head import MaskHead
from detectors.pooling import RoIAlign
from detectors.pyramid_pooling import PyramidRoIAlign
from detectors.rpn import RPN, ProposalLimits, RPNHead
from detectors.structures import ImageBatch, Masks, Targets
from tests.detectors.test_faster_rcnn import crowd_of, noise
from tests.detectors.tiny import make_images, make_targets, squares, tiny_detector
from vertebra.data.loading.loaders import Batch
from vertebra.engine import distributed
from vertebra.engine.average import WeightAverage
from vertebra.engine.distributed import World
from vertebra.engine.guard import FiniteGuard, spoiling
from vertebra.engine.loop import clip_gradients, total_loss, train
from vertebra.engine.meter import LossMeter
from vertebra.engine.optim import sgd, trained_parameters
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Constant


def batch_of(truths: int) -> tuple[ImageBatch, Targets]:
    """Two images, one of which has `truths` truths among 16 places."""
    return noise((96, 96), (80, 90)), make_targets([crowd_of(truths), []], [[1] * truths, []])


def step(model: FasterRCNN, images: ImageBatch, targets: Targets) -> tuple[Tensor, ...]:
    """Losses and all gradients."""
    losses = model(images, targets)
    return (*losses.values(), *torch.autograd.grad(torch.stack([*losses.values()]).sum(), [*model.parameters()]))


def test_a_traced_step_is_the_step_whatever_the_number_of_truths() -> None:
    # Tracing looks at shapes alone: whatever asks for a value, or has a shape that depends on one, raises. And one
    # trace that serves all numbers of truths is one path through the code.
    model = tiny_detector()
    some_images, some_targets = batch_of(3)
    step(model, some_images, some_targets)  # anchors are constants of the trace

    names = [name for name, value in vars(some_targets).items() if isinstance(value, Tensor)]

    def of_tensors(pixels: Tensor, sizes: Tensor, *truth: Tensor) -> tuple[Tensor, ...]:
        images = replace(some_images, pixels_N3HW=pixels, sizes_hw_N2=sizes)
        return step(model, images, replace(some_targets, **dict(zip(names, truth))))

    def tensors(images: ImageBatch, targets: Targets) -> list[Tensor]:
        return [images.pixels_N3HW, images.sizes_hw_N2, *(getattr(targets, name) for name in names)]

    traced = make_fx(of_tensors, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors(some_images, some_targets))
    for truths in (0, 1, 3, 16):
        batch = batch_of(truths)
        for eager, replayed in zip(step(model, *batch), traced(*tensors(*batch))):
            assert torch.equal(eager, replayed), truths


class Moves(TorchDispatchMode):
    """Notes every operation that takes or gives tensors of more than one device, or gives a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        leaves = pytree.tree_leaves((args, kwargs, result))
        kinds = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        reads = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, int | float | bool)]
        if len(kinds) > 1 or reads:
            self.seen.append(f"{func} on {sorted(kinds)}")
        return result


def c4_detector(width: float = 1.0) -> FasterRCNN:
    """A ResNet-18 in two, with frozen norms and stages as a recipe would have them."""
    backbone = create_backbone("r18", width=width)
    freeze_norms(backbone)
    backbone.freeze(4)
    trunk, head = backbone.cut(stride=16)
    parts = tiny_detector()
    rpn = parts.rpn
    rpn.head.conv = torch.nn.Conv2d(trunk.out_channels, 32, 3, padding=1)
    rpn.anchors[0].stride = trunk.stride
    predictor = BoxPredictor(head.out_channels, 3)
    body = SingleMap(trunk, trunk.out_channels, trunk.stride)
    return FasterRCNN(body=body, rpn=rpn, box_head=BoxHead(RoIAlign(7, trunk.stride), head, predictor, samples=32))


def fpn_detector() -> FasterRCNN:
    """Mask R-CNN on a small pyramid."""
    backbone = create_backbone("r18", width=0.125)
    freeze_norms(backbone)
    trunk = backbone.maps(("c2", "c3", "c4", "c5"))
    channels, strides = zip(*((spec.channels, spec.stride) for spec in trunk.specs))
    body = FeaturePyramid(trunk, channels, strides, channels=16)
    grids = [AnchorGrid(scales=[4 * stride], stride=stride) for stride in body.strides]
    limits = ProposalLimits(before_nms=100, after_nms=40)
    rpn = RPN(RPNHead(16, 3), grids, train_limits=limits, test_limits=limits, samples=32)
    pool, mask_pool = (PyramidRoIAlign(bins, strides) for bins in (7, 14))
    box_head = BoxHead(pool, LinearRegionHead(16, width=16), BoxPredictor(16, 3), samples=32)
    return FasterRCNN(body=body, rpn=rpn, box_head=box_head, mask_head=MaskHead(16, 3, pool=mask_pool, channels=8))


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch that knows of CUDA, though no GPU")
@pytest.mark.parametrize("make", [tiny_detector, c4_detector, fpn_detector])
def test_no_operation_of_a_step_on_a_gpu_meets_the_host(make: Any) -> None:
    # Fake tensors may lie on a device that is not there. A value that goes from one device to the other would show.
    model = make()
    with FakeTensorMode():
        without_values(model)
        images, targets = squares_without_values()
        images, targets = images.to("cuda"), targets.to("cuda")
        model(images, targets)  # anchors go to the device once
        with Moves() as moves:
            losses = model(images, targets)
        assert all(loss.device.type == "cuda" for loss in losses.values())
        assert moves.operations > 200 and not moves.seen
        with Moves() as moves:
            model.detect(images)
        assert moves.operations > 50 and not moves.seen
        with Moves() as moves:
            torch.zeros(2, device="cpu").to("cuda")
            torch.zeros((), device="cuda").cpu()
        assert len(moves.seen) == 2  # so it does show


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch that knows of CUDA, though no GPU")
def test_no_operation_of_the_loop_around_a_step_meets_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_detector()
    with FakeTensorMode():
        without_values(model)
        optimizer = sgd(model, lr=0.1)
        monkeypatch.setattr(optimizer, "step", lambda: None)  # fake tensors know no fused step
        world = distributed.World(device=torch.device("cuda"))
        guard = FiniteGuard(optimizer, torch.amp.GradScaler("cuda", enabled=False), world)
        meter, average = LossMeter(), WeightAverage(model, 0.9)
        with Moves() as moves:
            for iteration in (1, 2):
                losses = {name: torch.zeros((), device="cuda") for name in ("loss_a", "loss_b")}
                seen = meter.add(losses)
                total_loss(losses)
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                norm = clip_gradients(trained_parameters(optimizer), 1.0)
                guard.watch(iteration, (1, 2), seen, norm)
                guard.step()
                average.update(iteration)
        assert moves.operations > 100 and not moves.seen


def test_watching_a_step_launches_few_kernels() -> None:
    # A small net's step takes as long as its launches: the whole of cifar_r20's are about 270.
    weight = torch.ones((), requires_grad=True)
    guard = FiniteGuard(sgd(torch.nn.Linear(1, 1), lr=0.1), torch.amp.GradScaler("cpu", enabled=False), World())
    with Moves() as moves:
        spoiling(3 * weight, torch.ones(2))
        guard.watch(1, (1,), torch.ones(2), torch.ones(()))
    assert 8 <= moves.operations <= 16


def without_values(model: torch.nn.Module) -> None:
    """Puts every parameter and buffer on a GPU that need not be there; inside a FakeTensorMode."""
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    kept[name] = torch.nn.Parameter(fake, tensor.requires_grad) if kept is module._parameters else fake


def squares_without_values() -> tuple[ImageBatch, Targets]:
    images = make_images(torch.zeros(2, 3, 96, 96, dtype=torch.uint8), ((96, 96), (80, 90)))
    targets = make_targets([[[1.0, 1, 20, 20]] * 3, []], [[1] * 3, []])
    return images, with_masks(images, targets, [3, 0])


def with_masks(images: ImageBatch, targets: Targets, counts: list[int]) -> Targets:
    """The targets with a mask over the whole image for each of so many truths of each image."""
    ones = [torch.ones(size, dtype=torch.uint8) for size, count in zip(images.sizes_hw, counts) for _ in range(count)]
    image_K = torch.tensor([n for n, count in enumerate(counts) for _ in range(count)], dtype=torch.int64)
    truth_K = torch.tensor([g for count in counts for g in range(count)], dtype=torch.int64)
    return replace(targets, masks=Masks.of(ones, image_K, truth_K))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [tiny_detector, c4_detector, fpn_detector])
def test_a_detectors_step_between_two_log_lines_does_not_wait_for_the_device(
    tmp_path: Path, make: Any, precision: str
) -> None:
    world = distributed.start("cuda")
    model = make().to(world.device)

    def watched() -> Iterator[Batch]:
        for iteration in range(12):
            images, targets = squares(2, seed=iteration)
            targets = with_masks(images, targets, targets.valid_NG.sum(dim=1).tolist())
            # From the third step on, until the log line of the tenth is due: by then what is compiled or kept is.
            torch.cuda.set_sync_debug_mode("error" if 2 <= iteration < 9 else "default")
            yield Batch((images, targets), targets.image_ids).pin_memory()

    run = RunDirectory.open(tmp_path / "run", {"lr": 0.001}, tensorboard=False)
    options = {"schedule": Constant(), "run": run, "world": world, "precision": precision, "log_period": 12}
    try:
        train(model=model, optimizer=sgd(model, lr=0.001), loader=watched(), iterations=12, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
