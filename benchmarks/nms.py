"""Our suppression against torchvision's: same candidates, one alternating run.

python benchmarks/nms.py --rounds 9
python benchmarks/nms.py --device cuda --rounds 50

Three cases: C4's proposals (12,000 candidates for 2,000 places), a pyramid's (2,000 of each of five levels for 1,000
places; levels do not suppress each other), and a detector's output (1,000 candidates of 80 classes for 100 places).
torchvision's is called as detectron2 and torchvision's own detectors call it: image by image, `batched_nms`, then the
first so many. On CUDA ours does not make the host wait; both are waited for here.
"""

from __future__ import annotations

from collections.abc import Callable

from common import (  # first: it makes the rooms importable
    RESULTS,
    alternate,
    conclude,
    parse_timing,
    print_times,
    timing_parser,
)

import torch  # isort: skip
from torch import Tensor
from torchvision.ops import batched_nms

from detectors.nms import nms_batch, nms_by_class

CANVAS_PX = 1333
CASES = {  # candidates, groups, places, IoU
    "C4": (12_000, 1, 2000, 0.7),
    "pyramid": (10_000, 5, 1000, 0.7),
    "output": (1000, 80, 100, 0.5),
}


def candidates(case: str, images: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """boxes_NK4 around a few hundred objects, as a detector gives them, scores_NK and groups_NK."""
    count, groups, _, _ = CASES[case]
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(images, 200, 2, generator=generator) * CANVAS_PX * 0.8
    side = 16 + torch.rand(images, 200, 2, generator=generator) * CANVAS_PX * 0.2
    object_NK = torch.randint(0, 200, (images, count), generator=generator)
    boxes = torch.stack([torch.cat([c, c + s], dim=1)[o] for c, s, o in zip(corner, side, object_NK)])
    boxes = (boxes + 8 * torch.randn(boxes.shape, generator=generator)).clamp(0, CANVAS_PX)
    scores = torch.randn(images, count, generator=generator)
    labels = torch.randint(0, groups, (images, count), generator=generator)
    return boxes.to(device), scores.to(device), labels.to(device)


def by_vertebra(case: str, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Index and validity, as the detector calls it."""
    _, groups, places, iou = CASES[case]
    if case == "output":
        return nms_by_class(boxes, scores, labels, iou=iou, count=places, classes=groups, extent_px=CANVAS_PX)
    return nms_batch(boxes, scores, iou, places, labels if groups > 1 else None)


def by_torchvision(case: str, boxes: Tensor, scores: Tensor, labels: Tensor) -> list[Tensor]:
    _, _, places, iou = CASES[case]
    return [batched_nms(b, s, g, iou)[:places] for b, s, g in zip(boxes, scores, labels)]


def calls(images: int, device: str) -> dict[str, Callable[[], object]]:
    """The timed calls, by name; raises AssertionError where the two do not keep the same."""
    result: dict[str, Callable[[], object]] = {}
    for case in CASES:
        inputs = candidates(case, images, device)
        if device == "cpu":  # elsewhere torchvision's rounds otherwise
            for index, valid, expected in zip(*by_vertebra(case, *inputs), by_torchvision(case, *inputs)):
                assert torch.equal(index[valid], expected), case
        result[f"ours, {case}"] = lambda case=case, inputs=inputs: by_vertebra(case, *inputs)
        result[f"torchvision, {case}"] = lambda case=case, inputs=inputs: by_torchvision(case, *inputs)
    return result


def main() -> None:
    parser = timing_parser(__doc__, rounds=9, device=True)
    parser.add_argument("--images", type=int, default=2, help="in a batch (default 2)")
    args = parse_timing(parser)
    if args.images < 1:
        parser.error("--images: at least 1")

    seconds = alternate(calls(args.images, args.device), rounds=args.rounds, device=args.device)  # type: ignore[arg-type]
    print_times(seconds, "ms")
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    conclude(args.output or RESULTS / f"nms_{args.device}.json", setting, seconds, ((0, 1), (2, 3), (4, 5)))


if __name__ == "__main__":
    main()
