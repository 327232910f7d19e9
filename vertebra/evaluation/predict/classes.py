"""Running classifiers over a loader: class probabilities, ranked, one row an image.

Legend: N images of a batch or of the data set, C classes, K = min(5, C) best classes of an image.

Each batch crosses from the device to the host once for each result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vertebra.evaluation.predict.inference import Autocast, check_finite, predict_all
from vertebra.ground.errors import UserError

BEST = 5  # classes of an image that are kept
NO_LABEL = -1


@dataclass(frozen=True)
class ClassPredictions:
    """One row an image, in the data set's order.

    image_ids_N; labels_N: true class (0..C-1; -1: the image has no label); rank_N: place of the true class among the
    scores, 0 for the best (-1 without a label); best_NK: the classes with the highest scores, best first;
    probabilities_NK: theirs, 0..1. Of equal scores the lower class comes first. classes: C.
    """

    image_ids_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    rank_N: NDArray[np.int64]
    best_NK: NDArray[np.int64]
    probabilities_NK: NDArray[np.float64]
    classes: int


def predict_classes(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    **options: Any,
) -> ClassPredictions:
    """The network over a loader of (pixels_N3HW, labels_N), every image once; all processes get the result.

    In evaluation the model maps pixels to logits_NC. autocast: makes the context it runs in. options: image_order and
    times_s of `predict_all`.
    """
    network: Any = getattr(model, "module", model)

    def score(pixels_N3HW: Tensor) -> Iterable[Tensor]:
        with autocast():
            logits_NC = network(pixels_N3HW)
        yield posteriors(logits_NC)

    return predict_scores(score, 1, [model], loader, device=device, **options)[0]


def predict_scores(
    score: Callable[[Any], Iterable[Tensor]],
    results: int,
    networks: Sequence[nn.Module],
    loader: Iterable[Any],
    *,
    device: torch.device | str = "cpu",
    seconds: list[float] | None = None,
    **options: Any,
) -> list[ClassPredictions]:
    """Several results of one pass over a loader of (views, labels_N): `score(views)` yields probabilities_NC of each.

    results: how many; networks: those that score, put into evaluation mode. seconds: `results` numbers to which the
    time of each result on this process is added, from the batch's copy to the device (in the first) to the ranks on
    the host. options: image_order and times_s of `predict_all`. All processes get the results.
    """

    def predict(batch: Any) -> dict[int, NDArray[np.float64]]:
        since = time.perf_counter()
        inputs, labels_N = batch.to(device).inputs
        rows = []
        for place, probabilities_NC in enumerate(score(inputs)):
            rows.append(_ranked(probabilities_NC, labels_N).cpu().numpy())
            _check(rows[-1], batch.image_ids)
            if seconds is not None:
                since, before = time.perf_counter(), since
                seconds[place] += since - before
        return dict(zip(batch.image_ids, np.stack(rows, axis=1)))

    found = predict_all(nn.ModuleList(networks), loader, predict, **options)
    ids_N = np.array([image_id for image_id, _ in found], dtype=np.int64)
    if not found:
        return [_unpacked(ids_N, np.zeros((0, 4 + 2 * BEST)))] * results
    rows_NRX = np.stack([rows for _, rows in found])
    return [_unpacked(ids_N, rows_NRX[:, place]) for place in range(results)]


def posteriors(logits_NC: Tensor) -> Tensor:
    """Softmax in float64, so that no class of a sure network is lost in rounding; NaN where a logit is not finite."""
    logits_NC = logits_NC.double()
    return logits_NC.softmax(dim=1).masked_fill(~logits_NC.isfinite().all(dim=1, keepdim=True), float("nan"))


def _ranked(probabilities_NC: Tensor, labels_N: Tensor) -> Tensor:
    """A float64 row an image: label, its rank, finite or not, C, the K best classes, their probabilities."""
    sorted_NC, order_NC = probabilities_NC.double().sort(dim=1, descending=True, stable=True)
    is_label_NC = order_NC == labels_N[:, None]
    # A class that the network does not know is never found, rather than found at once.
    rank_N = is_label_NC.int().argmax(dim=1).where(is_label_NC.any(dim=1), probabilities_NC.shape[1])
    rank_N = rank_N.where(labels_N != NO_LABEL, NO_LABEL)
    finite_N = probabilities_NC.isfinite().all(dim=1)
    classes_N = torch.full_like(labels_N, probabilities_NC.shape[1])
    facts_N4 = torch.stack([labels_N, rank_N, finite_N.long(), classes_N], dim=1)
    return torch.cat([facts_N4.double(), order_NC[:, :BEST].double(), sorted_NC[:, :BEST]], dim=1)


def _check(rows_NX: NDArray[np.float64], image_ids: Sequence[int]) -> None:
    check_finite(rows_NX[:, 2] > 0, image_ids)
    unknown_N = rows_NX[:, 1] == rows_NX[:, 3]
    if unknown_N.any():
        first = int(np.argmax(unknown_N))
        raise UserError(
            f"image id {image_ids[first]} has class {int(rows_NX[first, 0])} (counted from 0), and the network has "
            f"{int(rows_NX[first, 3])} classes; evaluate it on the classes that it was trained on"
        )


def _unpacked(ids_N: NDArray[np.int64], rows_NX: NDArray[np.float64]) -> ClassPredictions:
    best = (rows_NX.shape[1] - 4) // 2
    whole_NX = rows_NX[:, : 4 + best].astype(np.int64)
    return ClassPredictions(
        image_ids_N=ids_N,
        labels_N=whole_NX[:, 0],
        rank_N=whole_NX[:, 1],
        best_NK=whole_NX[:, 4:],
        probabilities_NK=rows_NX[:, 4 + best :],
        classes=int(whole_NX[0, 3]) if len(whole_NX) else 0,
    )
