"""One process of a group: evaluates its share of twenty images and writes what it got. See test_gather.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.evaluation.networks import CATEGORY_IDS, Drawn, Table, classification_batch, detection_batch
from vertebra.evaluation.predict.classes import predict_classes
from vertebra.evaluation.predict.detections import predict_detections
from vertebra.ground.errors import UserError

ORDER = tuple((place * 7) % 20 + 1 for place in range(20))  # the data set's order, not that of the ids


def shares(rank: int, size: int, *, duplicate: bool = False):
    """Global batches of four, cut among the processes; with `duplicate` the last process has the first image too."""
    for first in range(0, len(ORDER), 4):
        begin, end = first + 4 * rank // size, first + 4 * (rank + 1) // size
        if begin < end:
            yield ORDER[begin:end]
    if duplicate and rank == size - 1:
        yield ORDER[:1]


def evaluate(rank: int, size: int) -> dict:
    loader = [detection_batch(ids, resized=(60, 80), original=(120, 200)) for ids in shares(rank, size, duplicate=True)]
    found = predict_detections(Drawn(), loader, CATEGORY_IDS, image_order=ORDER)
    logits_IC = torch.randn(21, 8, generator=torch.Generator().manual_seed(0))
    pairs = [classification_batch(ids, tuple(id_ % 8 for id_ in ids)) for ids in shares(rank, size, duplicate=True)]
    classes = predict_classes(Table(logits_IC), pairs, image_order=ORDER)
    return {
        "detections": found and list(found),
        "ids": classes.image_ids_N.tolist(),
        "ranks": classes.rank_N.tolist(),
        "fault": fault_on_the_last(rank, size),
    }


def fault_on_the_last(rank: int, size: int) -> str:
    """All processes must hear of a bad image that one of them meets, rather than wait for it for ever."""

    def loader():
        for ids in shares(rank, size):
            if rank == size - 1:
                raise OSError("7.jpg is cut short")
            yield detection_batch(ids, resized=(60, 80), original=(60, 80))

    try:
        predict_detections(Drawn(), loader(), CATEGORY_IDS)
    except (UserError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    (folder / f"{rank}.json").write_text(json.dumps(evaluate(rank, size)))
    if size > 1:
        dist.destroy_process_group()
