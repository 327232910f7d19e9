"""Parts of `gpu.py`: whether this device computes what it should, and how fast single operations are."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from common import ratio  # first: it makes the rooms importable

import backbone  # isort: skip
import detector
import nms
import torch
import torchvision
from gpu_figures import Figure, Setting
from torch import Tensor, nn

from backbones import create_backbone
from detectors import pooling
from detectors.pooling import RoIAlign
from detectors.postprocess import Candidates
from detectors.pyramid_pooling import PyramidRoIAlign
from detectors.structures import Detections
from detectors.testtime import DetectorView, vote
from vertebra.engine import precision as precisions


def numerics(setting: Setting) -> Iterator[Figure]:
    """A step on this device against the CPU, both in float32 without TF32; then the fast formats against float32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    size, regions = setting.pick((160, 224), (64, 64)), setting.pick(64, 8)
    for head in setting.pick(("fpn", "mask_fpn", "c4"), ("c4",)):
        torch.manual_seed(0)
        width = setting.pick(1.0, 0.25)
        model = detector.our_detector(head, "r18", regions=regions, proposals=300, width=width)
        expected = _losses_and_gradient(model, size, torch.device("cpu"), "fp32")
        model.to(setting.device)
        for precision, bound in (("fp32", 0.01), ("bf16", 0.1)):
            found = _losses_and_gradient(model, size, setting.device, precision)
            worst = max(abs(found[name] / value - 1) for name, value in expected.items())
            yield Figure(f"{head}: losses and gradient, {precision} of the CPU's fp32", worst, "apart", at_most=bound)
        yield from _region_scores(head, model.eval(), size, setting)
    yield from _logits(setting)


def _losses_and_gradient(
    model: nn.Module, size: tuple[int, int], device: torch.device, precision: str
) -> dict[str, float]:
    with precisions.autocast(device, precision):
        losses = model(*detector.batch_of(size, 2, device))
    learnt = [one for one in model.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), learnt)
    norm = nn.utils.get_total_norm(gradients)
    return {**{name: float(value.detach()) for name, value in losses.items()}, "gradient's norm": float(norm)}


@torch.no_grad()
def _region_scores(head: str, model: Any, size: tuple[int, int], setting: Setting) -> Iterator[Figure]:
    """The same regions read in both formats: where their boxes end, and how probable their classes are."""
    images, _ = detector.batch_of(size, 2, setting.device)
    found = {}
    for precision in ("fp32", "bf16"):
        with precisions.autocast(setting.device, precision):
            view = DetectorView(model, images)
            if not found:
                boxes_NP4 = view.propose().boxes_NP4[:, : setting.pick(300, 16)]
            found[precision] = view.score(boxes_NP4)
    boxes, probabilities = (
        float((getattr(found["bf16"], name) - getattr(found["fp32"], name)).abs().max())
        for name in ("boxes_NPQ4", "probabilities_NPK")
    )
    yield Figure(f"{head}: boxes of the same regions, bf16 of fp32", boxes, "px apart", at_most=1.0)
    yield Figure(f"{head}: their probabilities, bf16 of fp32", probabilities, "apart", at_most=0.02)


@torch.no_grad()
def _logits(setting: Setting) -> Iterator[Figure]:
    """Our network in channels_last against torchvision's contiguous one on the same weights, then the fast formats."""
    torch.manual_seed(0)
    name, side = setting.pick(("r50", 224), ("r18", 32))
    pixels_N3HW = torch.randint(0, 256, (setting.pick(16, 2), 3, side, side), dtype=torch.uint8, device=setting.device)
    ours = create_backbone(name)
    peer = backbone.Theirs(name, ours.state_dict(), frozen=False, channels_last=False)
    ours.to(setting.device).eval()
    expected = peer.to(setting.device).eval()(pixels_N3HW)
    for precision, tf32, bound in (("fp32", False, 1e-4), ("fp32", True, 5e-3), ("bf16", True, 3e-2)):
        torch.backends.cudnn.allow_tf32 = tf32
        with precisions.autocast(setting.device, precision):
            found = ours(pixels_N3HW).float()
        what = f"{precision}{', TF32 in convolutions' if tf32 and precision == 'fp32' else ''}"
        error = float((found - expected).norm() / expected.norm())
        yield Figure(f"{name}: logits, {what}, of torchvision's contiguous fp32", error, "apart", at_most=bound)


def kernels(setting: Setting) -> Iterator[Figure]:
    """Suppression, pooling with its backward pass, and voting, at the sizes of recipes."""
    calls = nms.calls(setting.pick(2, 1), setting.device.type)
    seconds = setting.in_turns(calls)
    pairs = {f"suppression, {case}": (f"ours, {case}", f"torchvision, {case}") for case in nms.CASES}
    for what, (ours, theirs) in pairs.items():
        yield from _kernel(what, seconds[ours], seconds[theirs])
    device, dtype = setting.device, setting.pick(torch.bfloat16, torch.float32)
    boxes_NR4 = nms.candidates("pyramid", 2, device.type)[0][:, : setting.pick(512, 16)] * (800 / nms.CANVAS_PX)
    sizes = {stride: (800 // stride, 1088 // stride) for stride in (4, 8, 16, 32)}
    channels = setting.pick(1024, 8)

    def map_of(stride: int, channels: int) -> Tensor:
        x = torch.randn(2, channels, *sizes[stride], device=device, dtype=dtype)
        return x.to(memory_format=torch.channels_last).requires_grad_()

    single = map_of(16, channels)
    theirs_pool = torchvision.ops.RoIAlign(14, 1 / 16, 0, aligned=True)

    def by_ours(most_values: int) -> object:
        with mock.patch.object(pooling, "MOST_PARTIAL_VALUES", most_values):
            return torch.autograd.grad(RoIAlign(14, 16)([single], boxes_NR4).float().square().sum(), single)

    turns = {
        "ours": lambda: by_ours(pooling.MOST_PARTIAL_VALUES),
        "torchvision": lambda: torch.autograd.grad(theirs_pool(single.float(), [*boxes_NR4]).square().sum(), single),
        "by products": lambda: by_ours(sys.maxsize),
    }
    ours, theirs, by_products = setting.in_turns(turns).values()
    what = f"RoIAlign of C4 and its gradient, 2 x {boxes_NR4.shape[1]} regions"
    yield from _kernel(what, ours, theirs)
    yield Figure(f"{what}: by products, whatever they need", 1e3 * statistics.median(by_products), "ms")
    maps = [map_of(stride, setting.pick(256, 8)) for stride in sizes]
    pyramid = PyramidRoIAlign(7, tuple(sizes))
    theirs_pyramid = torchvision.ops.MultiScaleRoIAlign([*"0123"], 7, 2)

    def by_torchvision() -> object:
        named = {str(place): one.float() for place, one in enumerate(maps)}
        return torch.autograd.grad(theirs_pyramid(named, [*boxes_NR4], [(800, 1088)] * 2).square().sum(), maps)

    turns = {
        "ours": lambda: torch.autograd.grad(pyramid(maps, boxes_NR4).float().square().sum(), maps),
        "torchvision": by_torchvision,
    }
    yield from _kernel("RoIAlign of a pyramid and its gradient", *setting.in_turns(turns).values())
    yield from _voting(setting, boxes_NR4)


def _kernel(what: str, ours: list[float], theirs: list[float]) -> Iterator[Figure]:
    yield Figure(what, 1e3 * statistics.median(ours), "ms")
    yield Figure(f"{what}: torchvision's", 1e3 * statistics.median(theirs), "ms")
    yield Figure(f"{what}: ours of torchvision's", ratio(ours, theirs)["median"], "of its time", at_most=1.0)


def _voting(setting: Setting, boxes_NR4: Tensor) -> Iterator[Figure]:
    """torchvision has none; inside autocast no coordinate may lose digits."""
    images, count = boxes_NR4.shape[:2]
    one_NR = torch.ones(images, count, dtype=torch.int64, device=setting.device)
    candidates = Candidates(boxes_NR4, torch.rand(images, count, device=setting.device), one_NR - 1)
    kept = boxes_NR4[:, :100]
    detections = Detections(kept, *(part[:, : kept.shape[1]] for part in (candidates.scores_NT, one_NR, one_NR > 0)))
    yield Figure("voting", 1e3 * setting.median_s(lambda: vote(detections, candidates)), "ms")
    with torch.autocast(setting.device.type, torch.bfloat16):
        rounded = vote(detections, candidates).boxes_ND4
    apart = float((rounded - vote(detections, candidates).boxes_ND4).abs().max())
    yield Figure("voting: boxes inside autocast and outside", apart, "px apart", at_most=0.01)
