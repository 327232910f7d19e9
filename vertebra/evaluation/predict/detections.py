"""Running a trained detector over a loader: detections as COCO results.

Legend: N images of a batch, D detections an image (padded), M cells a side of a mask's grid; the first 7 values of
a detection are x0 y0 x1 y1 score label valid, the others its mask.

Each batch crosses from the device to the host once; masks get their full size on the host, and stay run lengths from
there on (a tenth of the grid's bytes). Results are by image in the data set's order, then by rank in the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pydantic_core
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.structures import Detections, ImageBatch, Size
from vertebra.evaluation.metrics.files import Predictions
from vertebra.evaluation.metrics.masks import paste_to_rle
from vertebra.evaluation.predict.inference import Autocast, check_finite, predict_all, rank_and_size
from vertebra.ground.rle import to_json


@dataclass(frozen=True)
class Found:
    """The detections of one image, best first.

    rows_D6: x0 y0 x1 y1 score label, in pixels of the image on disk, clipped to it. size_hw: of that image.
    counts_D: the masks' run lengths (see vertebra.evaluation.metrics.masks); None: the detector gives boxes alone.
    """

    rows_D6: NDArray[np.float32]
    size_hw: Size
    counts_D: tuple[bytes, ...] | None = None


def coco_results(found: Sequence[tuple[int, Found]], category_ids: Sequence[int] | None) -> Predictions:
    """Return the detections of images by id as COCO results; category_ids[label - 1] is the id in files, None:
    proposals, of no class."""
    rows_K6 = np.concatenate([np.zeros((0, 6), np.float32), *(one.rows_D6 for _, one in found)])
    xywh_K4 = rows_K6[:, :4].astype(np.float64)
    xywh_K4[:, 2:] = np.maximum(xywh_K4[:, 2:] - xywh_K4[:, :2], 0)
    ids_I = np.array([image_id for image_id, _ in found], np.int64)
    counts_I = np.array([len(one.rows_D6) for _, one in found], np.int64)
    return Predictions(
        np.repeat(ids_I, counts_I),
        None if category_ids is None else np.array(category_ids)[rows_K6[:, 5].astype(np.int64) - 1],
        rows_K6[:, 4].astype(np.float64),
        np.round(xywh_K4, 3),
        [to_json(counts, one.size_hw) for _, one in found for counts in one.counts_D or ()] or None,
    )


def predict_detections(
    model: nn.Module,
    loader: Iterable[Any],
    category_ids: Sequence[int] | None,
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    **options: Any,
) -> Predictions | None:
    """`model.detect` over the loader, as COCO results in pixels of the images on disk; None on ranks above 0.

    Where the detections have masks, so have the results (`segmentation`). Boxes are clipped to the image.
    loader: batches whose `inputs` are (ImageBatch, Targets). category_ids[label - 1] is the id in files; None: the
    regions of a `Proposer`, without one. Their JSON is made image by image, so that none of it is left for the end.
    autocast: makes the context the model runs in. options: image_order and times_s of `predict_all`; a time is from
    the batch's copy to the device to its detections on the host, masks in full size. Raises UserError where the model
    gives numbers that are not finite.
    """

    def predict(batch: Any) -> dict[int, Found]:
        images, targets = batch.to(device).inputs
        return detect(model, images, targets.original_sizes_hw, targets.image_ids, autocast)

    def render(image_id: int, one: Found) -> tuple[Found, bytes]:
        return one, pydantic_core.to_json(list(coco_results([(image_id, one)], category_ids)))[1:-1]

    found = predict_all(model, loader, predict, keep=render, everywhere=False, **options)
    if rank_and_size()[0] > 0:
        return None
    together = coco_results([(image_id, one) for image_id, (one, _) in found], category_ids)
    return replace(together, parts=tuple(text for _, (_, text) in found))


def detect(
    model: nn.Module,
    images: ImageBatch,
    original_hw: Sequence[Size],
    image_ids: Sequence[int],
    autocast: Autocast = nullcontext,
) -> dict[int, Found]:
    """Return the detections of one batch by image id. original_hw: the images' sizes on disk.

    Raises UserError where the model gives numbers that are not finite.
    """
    detector: Any = getattr(model, "module", model)  # DDP wraps forward only
    with autocast():
        detections = detector.detect(images)
    return _to_host(detections, images.sizes_hw, original_hw, image_ids)


def _to_host(
    detections: Detections, sizes_hw: Sequence[Size], original_hw: Sequence[Size], image_ids: Sequence[int]
) -> dict[int, Found]:
    parts_NDX = [
        detections.boxes_ND4.float(),
        detections.scores_ND.float()[..., None],
        detections.labels_ND.float()[..., None],  # exact up to 2 ** 24
        detections.valid_ND.float()[..., None],
    ]
    if detections.masks_NDMM is not None:
        parts_NDX.append(detections.masks_NDMM.float().flatten(2))
    host_NDX = torch.cat(parts_NDX, dim=2).cpu().numpy()
    original_N2 = np.array(original_hw, dtype=np.float64).reshape(-1, 2)
    scale_N2 = original_N2 / np.array(sizes_hw, dtype=np.float64).reshape(-1, 2)
    boxes_ND4 = host_NDX[..., :4] * scale_N2[:, None, [1, 0, 1, 0]]
    limit_N14 = original_N2[:, None, [1, 0, 1, 0]]
    rows_ND6 = np.concatenate([np.clip(boxes_ND4, 0, limit_N14), host_NDX[..., 4:6]], axis=2).astype(np.float32)
    valid_ND = host_NDX[..., 6] > 0
    finite_N = (np.isfinite(host_NDX).all(axis=2) | ~valid_ND).all(axis=1)
    check_finite(finite_N, image_ids)
    found = {}
    for n, (image_id, size_hw) in enumerate(zip(image_ids, original_hw)):
        rows_D6, counts_D = rows_ND6[n, valid_ND[n]], None
        if detections.masks_NDMM is not None:
            masks_DMM = host_NDX[n, valid_ND[n], 7:].reshape(-1, *detections.masks_NDMM.shape[2:])
            counts_D = paste_to_rle(masks_DMM, rows_D6[:, :4], size_hw)
        found[image_id] = Found(rows_D6, size_hw, counts_D)
    return found
