"""A segmenter over a test set: a map of classes for each image, and the pixels that agree with the truth.

Legend: N images, C classes, H W canvas or image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vertebra.evaluation.metrics.pixels import confusion
from vertebra.evaluation.predict.inference import Autocast, check_finite, predict_all

Keep = Callable[[int, NDArray[np.uint8], "NDArray[np.uint8] | None"], None]


def predict_maps(
    model: nn.Module,
    loader: Iterable[Any],
    classes: int,
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    keep: Keep | None = None,
    **options: Any,
) -> list[tuple[int, NDArray[np.int64] | None]]:
    """Return (image id, confusion_CC, None without truth) of every image on rank 0, in the data set's order.

    model: ImageBatch to scores or probabilities_NCHW of the canvas. keep: called, by the process that made it, with an
    image's id, its map_HW of classes, at the image's own size, and its truth_HW or None; its time does not count.
    options: as of `predict_all`. Raises UserError where a network's output is not finite.
    """
    made: list[tuple[int, NDArray[np.uint8], NDArray[np.uint8] | None]] = []

    def batches() -> Iterator[Any]:
        for batch in loader:
            yield batch
            while made and keep is not None:  # here, where predict_all has stopped its clock
                keep(*made.pop())

    def predict(batch: Any) -> dict[int, NDArray[np.int64] | None]:
        moved = batch.to(device)
        with autocast():
            scores_NCHW = model(*moved.inputs).float()
        finite_N = torch.isfinite(scores_NCHW).flatten(1).all(dim=1).cpu().numpy()
        check_finite(finite_N, batch.image_ids)
        found: dict[int, NDArray[np.int64] | None] = {}
        (images,) = batch.inputs
        for place, image_id in enumerate(batch.image_ids):
            map_HW = class_map(scores_NCHW[place], images.sizes_hw[place], batch.original_sizes_hw[place])
            labels_HW = None if batch.labels[place] is None else batch.labels[place].numpy()
            if keep is not None:
                made.append((image_id, map_HW, labels_HW))
            found[image_id] = None if labels_HW is None else confusion(labels_HW, map_HW, classes)
        return found

    return predict_all(model, batches(), predict, everywhere=False, **options)


def class_map(scores_CHW: Tensor, size_hw: tuple[int, int], original_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the best class of each pixel of the image at its original size.

    size_hw: of the image on the canvas; beyond it is padding. Scores are resized, bilinear, not classes.
    """
    scores_CHW = scores_CHW[:, : size_hw[0], : size_hw[1]]
    if size_hw != tuple(original_hw):
        scores_CHW = F.interpolate(scores_CHW[None], size=tuple(original_hw), mode="bilinear", align_corners=False)[0]
    return scores_CHW.argmax(dim=0).to(torch.uint8).cpu().numpy()
