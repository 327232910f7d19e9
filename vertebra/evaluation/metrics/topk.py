"""Top-1 and top-5 accuracy over a loader, every image once, with Wilson's interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vertebra.evaluation.predict.classes import NO_LABEL, ClassPredictions, predict_classes
from vertebra.ground.errors import UserError


@dataclass(frozen=True)
class TopK:
    """Accuracies in per cent of `images` images; intervals are Wilson's at 95 %, (low, high) in per cent.

    With fewer than five classes top5 is 100 by its definition.
    """

    top1: float
    top5: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    images: int

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "error1": 100 - self.top1,
            "error5": 100 - self.top5,
            "error1_interval": error_interval(self.top1_interval),
            "error5_interval": error_interval(self.top5_interval),
        }


def evaluate_topk(model: nn.Module, loader: Iterable[Any], **options: Any) -> TopK:
    """Return top-k of `model` over the loader, on all processes; options: those of `predict_classes`."""
    return topk_figures(predict_classes(model, loader, **options))


def topk_figures(predictions: ClassPredictions) -> TopK:
    """Return top-1 and top-5 of class predictions. Raises UserError where there is no image, or one without a label."""
    images = len(predictions.rank_N)
    if not images:
        raise UserError("there are no images to compute top-1 and top-5 of; is the split empty?")
    if (predictions.labels_N == NO_LABEL).any():
        raise UserError("images without a label have no top-1 and top-5; write their predictions to a file")
    right1 = int((predictions.rank_N < 1).sum())
    right5 = int((predictions.rank_N < 5).sum())
    return TopK(
        top1=100 * right1 / images,
        top5=100 * right5 / images,
        top1_interval=wilson_interval(right1, images),
        top5_interval=wilson_interval(right5, images),
        images=images,
    )


def error_interval(accuracy_interval: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of the error that belongs to an accuracy's, both in per cent."""
    low, high = accuracy_interval
    return 100 - high, 100 - low


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion, in per cent (Wilson 1927); sound near 0 and 100 too."""
    from scipy.stats import binomtest  # here, as it takes half a second to import

    if not 0 <= right <= total or not total:
        raise UserError(f"{right} of {total} is not a proportion")
    low, high = binomtest(right, total).proportion_ci(0.95, method="wilson")
    return 100 * float(low), 100 * float(high)
