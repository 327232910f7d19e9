"""A naive matcher of one image's boxes, a loop over detections and truths: what the arrays of `evaluation` are held to.

Legend of shapes: D detections, G truths, of one image. Boxes are x y width height, as in the COCO files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MATCH_IOU = 0.5


@dataclass(frozen=True)
class ImageMatch:
    """Detections of one image in falling order of score, each with the truth that it takes.

    `taken_D`: index of the truth that a detection takes, -1 for none; `ignored_D`: it fell on a crowd or a difficult
    truth and counts as nothing. Matches are greedy by score, so they stay what they are at any score threshold.
    """

    truths: list[dict[str, Any]]
    detections: list[dict[str, Any]]
    scores_D: np.ndarray
    taken_D: np.ndarray
    ignored_D: np.ndarray

    @property
    def wanted_G(self) -> np.ndarray:
        """The truths that count: neither crowd nor difficult."""
        return np.array([not is_ignored(truth) for truth in self.truths], dtype=bool)

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """(hits, false positives, misses) among detections with score >= threshold."""
        shown_D = self.scores_D >= threshold
        hits = int((shown_D & (self.taken_D >= 0)).sum())
        false = int((shown_D & (self.taken_D < 0) & ~self.ignored_D).sum())
        return hits, false, int(self.wanted_G.sum()) - hits

    def f1(self, threshold: float) -> float:
        """2 TP / (2 TP + FP + FN) on a 0-100 scale; 100 where there is nothing to find and nothing was found."""
        hits, false, missed = self.counts(threshold)
        return 100.0 * 2 * hits / (2 * hits + false + missed) if hits + false + missed else 100.0


def is_ignored(truth: Mapping[str, Any]) -> bool:
    return bool(truth.get("iscrowd")) or bool(truth.get("difficult"))


def match_image(truths: Sequence[dict[str, Any]], detections: Sequence[dict[str, Any]]) -> ImageMatch:
    """Match one image: a detection takes the free truth of its class that it overlaps most, from IoU 0.5 on."""
    ordered = sorted(detections, key=lambda detection: -detection["score"])
    taken_D = np.full(len(ordered), -1, dtype=int)
    ignored_D = np.zeros(len(ordered), dtype=bool)
    iou_DG = _iou(ordered, truths)
    free_G = np.ones(len(truths), dtype=bool)
    for d, detection in enumerate(ordered):
        best, best_iou = -1, MATCH_IOU
        for g, truth in enumerate(truths):
            if truth["category_id"] != detection["category_id"] or iou_DG[d, g] < best_iou:
                continue
            if is_ignored(truth):
                ignored_D[d] = True  # counts for nothing unless a truth that counts is found as well
            elif free_G[g]:
                best, best_iou = g, iou_DG[d, g]
        if best >= 0:
            taken_D[d], ignored_D[d], free_G[best] = best, False, False
    scores_D = np.array([detection["score"] for detection in ordered], dtype=float)
    return ImageMatch(list(truths), ordered, scores_D, taken_D, ignored_D)


def _iou(detections: Sequence[Mapping[str, Any]], truths: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """IoU_DG; with a crowd, the share of the detection that lies in it (COCO's rule)."""
    if not detections or not truths:
        return np.zeros((len(detections), len(truths)))
    from pycocotools import mask

    boxes_D4 = np.array([detection["bbox"] for detection in detections], dtype=np.float64)
    boxes_G4 = np.array([truth["bbox"] for truth in truths], dtype=np.float64)
    return np.asarray(mask.iou(boxes_D4, boxes_G4, [int(truth.get("iscrowd") or 0) for truth in truths]))


def match_images(truth: Mapping[str, Any], predictions: Sequence[dict[str, Any]]) -> dict[int, ImageMatch]:
    """Every image's match, by image id."""
    truths, found = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        truths[annotation["image_id"]].append(annotation)
    for prediction in predictions:
        found[prediction["image_id"]].append(prediction)
    return {
        image["id"]: match_image(truths.get(image["id"], []), found.get(image["id"], [])) for image in truth["images"]
    }


def best_threshold(matches: Sequence[ImageMatch]) -> float:
    """The score from which detections are shown: where F1 over all images together is highest; 0.5 with no hits.

    Each detector gets its own, because detectors are calibrated differently and one fixed score favours one of them.
    """
    scores = np.concatenate([match.scores_D for match in matches]) if matches else np.zeros(0)
    if not len(scores):
        return 0.5
    hit = np.concatenate([match.taken_D >= 0 for match in matches])
    counted = np.concatenate([~match.ignored_D for match in matches])
    wanted = sum(int(match.wanted_G.sum()) for match in matches)
    order = np.argsort(-scores, kind="stable")
    hits, shown = np.cumsum(hit[order]), np.cumsum(counted[order])
    if not wanted or not hits[-1]:
        return 0.5
    f1 = 2 * hits / (shown + wanted)
    # Equal scores come or go together: only the last of each run of ties is a threshold.
    ends = np.append(scores[order][1:] != scores[order][:-1], True)
    return float(scores[order][np.argmax(np.where(ends, f1, -1))])
