"""What a report on detectors and one on segmenters call things, and which of their figures are the main ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """tool: the end of `tools/eval_`. head: the field of the protocol that names the network on the backbone.

    main, second: the figures of headlines, rankings and comparisons. notes: every figure that a run may have, with what
    it is taken at. of_class: a class's figures, with those that are their means over the classes; the first is main's.
    counted: what the truth has of a class. scored: the file of a run that figures are computed from. given: what
    predictions without a run are.
    """

    name: str
    network: str
    tool: str
    head: str
    main: str
    second: str
    notes: Mapping[str, str]
    of_class: Mapping[str, str]
    counted: str
    scored: str
    given: str

    def to_dict(self) -> str:
        """Return what report.json has of it."""
        return self.name


DETECTION = Task(
    name="detection",
    network="detector",
    tool="det",
    head="model.body",
    main="AP",
    second="AP50",
    notes={
        "AP": "IoU .50 to .95",
        "AP50": "IoU .50",
        "AP75": "IoU .75",
        "APs": "small",
        "APm": "medium",
        "APl": "large",
        "AR100": "recall",
        "mask AP": "IoU .50 to .95",
        "VOC 11-point": "mAP",
        "VOC area": "mAP",
    },
    of_class={"AP": "AP", "AP50": "AP50"},
    counted="objects",
    scored="predictions.json",
    given="file",
)
SEGMENTATION = Task(
    name="segmentation",
    network="segmenter",
    tool="seg",
    head="model.head",
    main="mIoU",
    second="pixel accuracy",
    notes={"mIoU": "", "pixel accuracy": "", "mean accuracy": "", "fwIoU": "by frequency"},
    of_class={"IoU": "mIoU"},
    counted="pixels",
    scored="pixel_counts.npz",
    given="folder",
)
