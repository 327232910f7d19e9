"""One of several processes that share a batch; started by test_faster_rcnn.py.

usage: python -m tests.detectors.two_processes RANK WORLD_SIZE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from detectors.structures import ImageBatch, Targets
from tests.detectors.tiny import squares, tiny_detector

# The last two images are so small that they have fewer anchors than are sampled: the processes' counts differ.
SIZES_HW = ((96, 96), (64, 96), (17, 33), (16, 16))


def share(rank: int, world_size: int) -> tuple[ImageBatch, Targets]:
    """The contiguous part of the global batch that belongs to this process."""
    images, targets = squares(4, seed=5, sizes_hw=((96, 96), (64, 96), (48, 48), (48, 48)))
    images = ImageBatch(images.pixels_N3HW, torch.tensor(SIZES_HW), SIZES_HW)
    part = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    return (
        ImageBatch(images.pixels_N3HW[part], images.sizes_hw_N2[part], SIZES_HW[part]),
        Targets(
            *(
                getattr(targets, name)[part]
                for name in ("boxes_NG4", "labels_NG", "valid_NG", "crowd_NG", "difficult_NG", "ignore_NG")
            ),
            draw_seeds_N=targets.draw_seeds_N[part],
            image_ids=targets.image_ids[part],
            original_sizes_hw=targets.original_sizes_hw[part],
        ),
    )


def main(rank: int, world_size: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    model = DistributedDataParallel(tiny_detector())
    losses = model(*share(rank, world_size))
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    values = {name: value.detach() for name, value in losses.items()}
    torch.save({"losses": values, "gradients": gradients}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
