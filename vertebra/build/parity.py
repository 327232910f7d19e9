"""Whether an exported file finds in real pictures what its network finds, and how long each takes.

Legend of shape suffixes: N images, D detections of an image, C classes, x what follows: nothing, or a map.

Both get the same pixels, in float32 on the CPU. Detections are paired one to one by class and place, whatever their
order: scores that differ by less than a rounding may change places. One that only one side reports counts as a
difference unless its score is at the border, that of the weakest that is reported, within the tolerance.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from detectors.structures import Detections
from vertebra.build.artifact import Artifact
from vertebra.build.export import Exportable, as_detections
from vertebra.engine.measure import timed_calls

# differing: the share of pixels whose best class is another one, as where two are as good as equal.
TOLERANCES = {"box_px": 1e-2, "score": 1e-4, "mask": 1e-3, "differing": 1e-3}
FAR_PX = 10.0  # no pair: two detections, not one


@dataclass
class Parity:
    """What was compared. worst: the largest difference by kind, see TOLERANCES; unlike: sentences on what differs."""

    images: int = 0
    outputs: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    unlike: list[str] = field(default_factory=list)

    def see(self, kind: str, difference: float, where: str) -> None:
        """Count one difference; beyond the tolerance (or NaN) it goes into `unlike`."""
        self.worst[kind] = float(np.maximum(self.worst.get(kind, 0.0), difference))  # NaN stays
        if not difference <= TOLERANCES[kind]:
            self.unlike.append(f"{where}: {kind} differs by {difference:.3g} (allowed: {TOLERANCES[kind]:g})")

    def add_classes(self, wanted_NCx: torch.Tensor, found_NCx: torch.Tensor, names: Sequence[str]) -> None:
        """Compare the probabilities of a batch, of pictures or of all their pixels."""
        for name, wanted_Cx, found_Cx in zip(names, wanted_NCx, found_NCx):
            self.images, self.outputs = self.images + 1, self.outputs + wanted_Cx.numel()
            self.see("score", float((wanted_Cx - found_Cx).abs().max()), name)
            if wanted_Cx.ndim > 1:
                self.see("differing", float((wanted_Cx.argmax(0) != found_Cx.argmax(0)).float().mean()), name)

    def add_detections(self, wanted: Detections, found: Detections, names: Sequence[str], threshold: float) -> None:
        """Compare the detections of a batch. threshold: the score that each has more than."""
        places = wanted.valid_ND.shape[1]
        for n, name in enumerate(names):
            self.images += 1
            mine, others = _of_image(wanted, n), _of_image(found, n)
            weakest = [float(one.scores_ND[-1]) for one in (mine, others) if len(one.scores_ND) == places]
            self._add_image(mine, others, name, max([threshold, *weakest]) + TOLERANCES["score"])

    def _add_image(self, wanted: Detections, found: Detections, name: str, border: float) -> None:
        score_px = TOLERANCES["box_px"] / TOLERANCES["score"]
        apart_DD = (wanted.boxes_ND4[:, None] - found.boxes_ND4).abs().amax(dim=2)
        scores_DD = (wanted.scores_ND[:, None] - found.scores_ND).abs()
        cost_DD = torch.maximum(apart_DD, scores_DD * score_px).nan_to_num(FAR_PX).clamp(max=FAR_PX)
        cost_DD = cost_DD.masked_fill(wanted.labels_ND[:, None] != found.labels_ND, FAR_PX)
        pairs = [(d, e) for d, e in zip(*linear_sum_assignment(cost_DD.numpy())) if cost_DD[d, e] < FAR_PX]
        for what, one, paired in (("network", wanted, {d for d, _ in pairs}), ("file", found, {e for _, e in pairs})):
            alone = [d for d in range(len(one.scores_ND)) if d not in paired and one.scores_ND[d] > border]
            self.unlike += [f"{name}: only the {what} finds {_words(one, d)}" for d in alone]
        for d, e in pairs:
            if cost_DD[d, e] > TOLERANCES["box_px"] and wanted.scores_ND[d] <= border:
                continue  # neighbours, of which each side reports one
            self.outputs += 1
            where = f"{name}: {_words(wanted, d)}"
            self.see("box_px", float(apart_DD[d, e]), where)
            self.see("score", float(scores_DD[d, e]), where)
            if wanted.masks_NDMM is not None and found.masks_NDMM is not None:
                self.see("mask", float((wanted.masks_NDMM[d] - found.masks_NDMM[e]).abs().max()), where)


def _of_image(batch: Detections, n: int) -> Detections:
    """The detections of image n alone, without padding and without the first dimension."""
    return batch._map(lambda tensor: tensor[n][batch.valid_ND[n]])


def _words(found: Detections, d: int) -> str:
    box = " ".join(f"{side:.1f}" for side in found.boxes_ND4[d].tolist())
    return f"class {int(found.labels_ND[d])} at {box}, score {float(found.scores_ND[d]):.4f}"


def check(graph: Exportable, artifact: Artifact, pictures: Mapping[str, np.ndarray]) -> Parity:
    """Compare what both find in pictures, uint8 RGB HW3 by name."""
    parity, names, at_once = Parity(), list(pictures), graph.batch or 4
    for first in range(0, len(names), at_once):
        part = names[first : first + at_once]
        inputs = graph.place([pictures[name] for name in part])
        with torch.no_grad():
            wanted, found = graph.reference(*inputs), artifact.outputs(*inputs)
        if graph.facts["kind"] == "detector":
            parity.add_detections(as_detections(wanted), as_detections(found), part, graph.facts["test"]["score"])
        else:
            parity.add_classes(wanted[0].softmax(dim=1), found[0].softmax(dim=1), part)
    return parity


def latency(graph: Exportable, artifact: Artifact, pictures: Mapping[str, np.ndarray], rounds: int) -> dict[str, Any]:
    """Milliseconds of a batch (of one where it is dynamic), in turns after one that does not count: the medians of
    network and file, and the median and span of their ratios."""
    images = graph.batch or 1
    inputs = graph.place([one for one, _ in zip(cycle(pictures.values()), range(images))])
    device = torch.device("cpu")
    turns = []
    with torch.inference_mode():
        for number in range(rounds + 1):
            calls = (lambda: graph.reference(*inputs), lambda: artifact.outputs(*inputs))
            times_s = [timed_calls(call, device, enough=1, warmup=0)[0] for call in calls]
            turns += [times_s] if number else []
    ratios = [file_s / network_s for network_s, file_s in turns]
    network_ms, file_ms = (1000 * statistics.median(side) for side in zip(*turns))
    facts = {"images": images, "rounds": rounds, "threads": torch.get_num_threads()}
    ratio = {"ratio": statistics.median(ratios), "ratio_span": [min(ratios), max(ratios)]}
    return {"network_ms": network_ms, "file_ms": file_ms, **ratio, **facts}
