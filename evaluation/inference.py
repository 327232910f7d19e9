"""Running a trained detector over a loader: detections as COCO results. Classifiers: `evaluation.classes`.

Legend: N images of a batch, D detections an image (padded), 7 = x0 y0 x1 y1 score label valid.

Each batch crosses from the device to the host once. Over several processes each image counts once, and the
result does not depend on how many there are: by image in the data set's order, then by rank in the image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.structures import Detections, Size
from evaluation.files import Entry, EvaluationError
from evaluation.gather import gather_by_image, in_order

Autocast = Callable[[], AbstractContextManager[Any]]
Progress = Callable[[int], None]


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

    loader: batches whose `inputs` are (ImageBatch, Targets). category_ids[label - 1] is the id in files.
    autocast: makes the context the model runs in. progress: called with the number of images done by this
    process after each batch. image_order: the data set's image ids, in order (default: by ascending id); an
    image of it that is missing in the end is an error. times_s: gets each batch's host-side seconds per
    image, from the batch's copy to the device to its detections on the host; its median is the time per
    image. Boxes are clipped to the image. Raises EvaluationError where the model gives numbers that are not
    finite.
    """
    mine: dict[int, NDArray[np.float32]] = {}
    fault: Exception | None = None
    detector: Any = getattr(model, "module", model)  # DDP wraps forward only
    try:
        with evaluating(model):
            for batch in loader:
                started = time.perf_counter()
                images, targets = batch.to(device).inputs
                with autocast():
                    detections = detector.detect(images)
                found = _to_host(detections, images.sizes_hw, targets.original_sizes_hw, targets.image_ids)
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
    for image_id, rows_D6 in in_order(merged, image_order):
        results.extend(_coco_results(image_id, rows_D6, category_ids))
    return results


def _to_host(
    detections: Detections, sizes_hw: Sequence[Size], original_hw: Sequence[Size], image_ids: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """By image: x0 y0 x1 y1 score label of its valid detections, in pixels of the image on disk."""
    packed_ND7 = torch.cat(
        [
            detections.boxes_ND4.float(),
            detections.scores_ND.float()[..., None],
            detections.labels_ND.float()[..., None],  # exact up to 2 ** 24
            detections.valid_ND.float()[..., None],
        ],
        dim=2,
    )
    host_ND7 = packed_ND7.cpu().numpy()
    original_N2 = np.array(original_hw, dtype=np.float64).reshape(-1, 2)
    scale_N2 = original_N2 / np.array(sizes_hw, dtype=np.float64).reshape(-1, 2)
    boxes_ND4 = host_ND7[..., :4] * scale_N2[:, None, [1, 0, 1, 0]]
    limit_N14 = original_N2[:, None, [1, 0, 1, 0]]
    rows_ND6 = np.concatenate([np.clip(boxes_ND4, 0, limit_N14), host_ND7[..., 4:6]], axis=2).astype(np.float32)
    valid_ND = host_ND7[..., 6] > 0
    finite_N = (np.isfinite(host_ND7[..., :5]).all(axis=2) | ~valid_ND).all(axis=1)
    check_finite(finite_N, image_ids)
    return {image_id: rows_D6[valid_D] for image_id, rows_D6, valid_D in zip(image_ids, rows_ND6, valid_ND)}


def _coco_results(image_id: int, rows_D6: NDArray[np.float32], category_ids: Sequence[int]) -> list[Entry]:
    boxes_D4 = rows_D6[:, :4].astype(np.float64)
    boxes_D4[:, 2:] = np.maximum(boxes_D4[:, 2:] - boxes_D4[:, :2], 0)
    boxes = np.round(boxes_D4, 3).tolist()
    scores = rows_D6[:, 4].astype(np.float64).tolist()
    labels = rows_D6[:, 5].astype(np.int64).tolist()
    return [
        {"image_id": int(image_id), "category_id": int(category_ids[label - 1]), "bbox": box, "score": score}
        for box, score, label in zip(boxes, scores, labels)
    ]


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
