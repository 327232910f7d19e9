"""Running a trained detector over a loader: detections as COCO results. Classifiers: `predict.classes`.

Legend: N images of a batch, D detections an image (padded), M cells a side of a mask's grid; the first 7 values of
a detection are x0 y0 x1 y1 score label valid, the others its mask.

Each batch crosses from the device to the host once; masks get their full size on the host, and stay run lengths from
there on (a tenth of the grid's bytes). Over several processes each image counts once, and the result does not depend
on how many there are: by image in the data set's order, then by rank in the image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.structures import Detections, ImageBatch, Size
from vertebra.evaluation.metrics.files import Entry, EvaluationError
from vertebra.evaluation.metrics.masks import paste_to_rle
from vertebra.evaluation.predict.gather import gather_by_image, in_order
from vertebra.ground.rle import to_json

Autocast = Callable[[], AbstractContextManager[Any]]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Found:
    """What a detector found in one image, best first.

    rows_D6: x0 y0 x1 y1 score label, in pixels of the image on disk, clipped to it. size_hw: of that image.
    counts_D: the masks' run lengths (see vertebra.evaluation.metrics.masks); None: the detector gives boxes alone.
    """

    rows_D6: NDArray[np.float32]
    size_hw: Size
    counts_D: tuple[bytes, ...] | None = None

    def coco_results(self, image_id: int, category_ids: Sequence[int]) -> list[Entry]:
        """COCO results; category_ids[label - 1] is the id in files."""
        boxes_D4 = self.rows_D6[:, :4].astype(np.float64)
        boxes_D4[:, 2:] = np.maximum(boxes_D4[:, 2:] - boxes_D4[:, :2], 0)
        boxes = np.round(boxes_D4, 3).tolist()
        scores = self.rows_D6[:, 4].astype(np.float64).tolist()
        labels = self.rows_D6[:, 5].astype(np.int64).tolist()
        entries: list[Entry] = [
            {"image_id": int(image_id), "category_id": int(category_ids[label - 1]), "bbox": box, "score": score}
            for box, score, label in zip(boxes, scores, labels)
        ]
        for entry, counts in zip(entries, self.counts_D or ()):
            entry["segmentation"] = to_json(counts, self.size_hw)
        return entries


def predict_detections(
    model: nn.Module,
    loader: Iterable[Any],
    category_ids: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    progress: Progress | None = None,
    image_order: Sequence[int] | None = None,
    times_s: list[float] | None = None,
) -> list[Entry] | None:
    """`model.detect` over the loader, as COCO results in pixels of the images on disk; None on ranks above 0.

    Where the detections have masks, so have the results (`segmentation`). Boxes are clipped to the image.
    loader: batches whose `inputs` are (ImageBatch, Targets). category_ids[label - 1] is the id in files.
    autocast: makes the context the model runs in. progress: called with the number of images done by this
    process after each batch. image_order: the data set's image ids, in order (default: by ascending id); an
    image of it that is missing in the end is an error. times_s: gets each batch's host-side seconds per
    image, from the batch's copy to the device to its detections on the host (masks in full size); its median
    is the time per image. Raises EvaluationError where the model gives numbers that are not finite.
    """
    mine: dict[int, Found] = {}
    fault: Exception | None = None
    try:
        with evaluating(model):
            for batch in loader:
                started = time.perf_counter()
                images, targets = batch.to(device).inputs
                found = detect(model, images, targets.original_sizes_hw, targets.image_ids, autocast)
                note_time(times_s, started, len(found))
                mine.update(found)
                if progress is not None:
                    progress(len(mine))
    except Exception as error:
        fault = error
    merged = gather_by_image(mine, fault, everywhere=False)
    if merged is None:
        return None
    results: list[Entry] = []
    for image_id, one in in_order(merged, image_order):
        results.extend(one.coco_results(image_id, category_ids))
    return results


def predict_proposals(model: nn.Module, loader: Iterable[Any], **options: Any) -> list[Entry] | None:
    """The regions that `model.detect` gives as its only class, as COCO results without category_id, best first.

    options: those of `predict_detections`, which this is otherwise.
    """
    found = predict_detections(model, loader, (1,), **options)
    if found is None:
        return None
    return [{name: value for name, value in entry.items() if name != "category_id"} for entry in found]


def detect(
    model: nn.Module,
    images: ImageBatch,
    original_hw: Sequence[Size],
    image_ids: Sequence[int],
    autocast: Autocast = nullcontext,
) -> dict[int, Found]:
    """What `model.detect` finds in one batch, by image id. original_hw: the images' sizes on disk.

    Raises EvaluationError where the model gives numbers that are not finite.
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


def check_finite(finite_N: NDArray[np.bool_], image_ids: Sequence[int]) -> None:
    """Raises EvaluationError naming the first image whose output is not finite."""
    if not finite_N.all():
        first = image_ids[int(np.argmin(finite_N))]
        raise EvaluationError(
            f"the model's output for image id {first} is not finite; its weights "
            "have most likely diverged: evaluate an earlier checkpoint or train with a lower learning rate"
        )


def note_time(times_s: list[float] | None, started: float, images: int) -> None:
    """Adds the seconds per image of a batch that began at `started`, where somebody wants to know them."""
    if times_s is not None:
        times_s.append((time.perf_counter() - started) / images)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's training flag is given back as it was.

    no_grad and not inference_mode: what a module caches here (anchors) must still serve in training.
    """
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in training:
            module.training = flag
