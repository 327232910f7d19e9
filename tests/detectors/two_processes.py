"""One of several processes that share a batch; started by test_faster_rcnn.py.

usage: python -m tests.detectors.two_processes RANK WORLD_SIZE FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from detectors.structures import ImageBatch, Targets
from tests.detectors.tiny import part_of, squares, tiny_detector

# The last two images are so small that they have fewer anchors than are sampled: the processes' counts differ.
SIZES_HW = ((96, 96), (64, 96), (17, 33), (16, 16))
CASES = ("truths everywhere", "truths in the first half only")


def share(rank: int, world_size: int, case: str) -> tuple[ImageBatch, Targets]:
    """The contiguous part of the global batch that belongs to this process."""
    images, targets = squares(4, seed=5, sizes_hw=((96, 96), (64, 96), (48, 48), (48, 48)))
    if case == CASES[1]:
        targets = replace(targets, valid_NG=targets.valid_NG & (torch.arange(4) < 2).unsqueeze(1))
    images = ImageBatch(images.pixels_N3HW, torch.tensor(SIZES_HW), SIZES_HW)
    return part_of(images, targets, slice(rank * 4 // world_size, (rank + 1) * 4 // world_size))


def main(rank: int, world_size: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    model = DistributedDataParallel(tiny_detector())
    results = {}
    for case in CASES:
        model.zero_grad()
        losses = model(*share(rank, world_size, case))
        sum(losses.values()).backward()
        gradients = {name: p.grad.clone() for name, p in model.module.named_parameters()}
        results[case] = {"losses": {name: value.detach() for name, value in losses.items()}, "gradients": gradients}
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
