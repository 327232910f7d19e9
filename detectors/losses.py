"""Losses in float32, summed over what was sampled and divided by how much was sampled in the whole batch.

Legend: X any shape, K classes with background (0), N images, A anchors, S sampled anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.boxes import encode, take
from detectors.matching import Matcher
from detectors.sampling import Sampler
from detectors.structures import Targets


class GlobalCounts:
    """How many of each `selected` (bool) are set, over all processes, exchanged in one vector while work goes on.

    `counts[k]` waits for it and gives the k-th count, at least 1, as the mean over the processes; float32 scalar. A sum
    divided by it and averaged over processes (as DDP does with gradients) is the sum over the global batch divided by
    the global count: the number of processes changes nothing. Detectron2 divides by each process's own count instead.
    """

    def __init__(self, *selected: Tensor) -> None:
        self._counts_K = torch.stack([one.sum() for one in selected]).float()
        self._size, self._exchange = 1, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._size = torch.distributed.get_world_size()
            self._exchange = torch.distributed.all_reduce(self._counts_K, async_op=True)

    def __getitem__(self, place: int) -> Tensor:
        if self._exchange is not None:
            self._exchange.wait()
            self._exchange = None
        return self._counts_K[place].clamp(min=1) / self._size


def smooth_l1(predicted_X4: Tensor, wanted_X4: Tensor, beta: float) -> Tensor:
    """Smooth L1 loss summed over the last dimension, shape X (Fast R-CNN, §2.3).

    Quadratic for differences below `beta`; beta 0 is L1, the paper's sigma s is beta 1/s² (RPN: 1/9).
    """
    return F.smooth_l1_loss(predicted_X4.float(), wanted_X4, reduction="none", beta=beta).sum(dim=-1)


def binary_cross_entropy(logits_X: Tensor, positive_X: Tensor) -> Tensor:
    """Binary cross entropy of sigmoid(logits), shape X."""
    return F.binary_cross_entropy_with_logits(logits_X.float(), positive_X.float(), reduction="none")


def cross_entropy(logits_XK: Tensor, labels_X: Tensor) -> Tensor:
    """Cross entropy of softmax(logits), shape X."""
    logits_MK = logits_XK.flatten(0, -2).float()
    return F.cross_entropy(logits_MK, labels_X.flatten(), reduction="none").view(labels_X.shape)


def masked_sum(losses_X: Tensor, selected_X: Tensor) -> Tensor:
    """The sum of the selected losses; what is not selected may be anything, infinite included."""
    return losses_X.where(selected_X, 0.0).sum()


@dataclass(frozen=True)
class AnchorSamples:
    """The anchors learnt from. index_NS: int64; positive_NS, valid_NS: bool; wanted_NS4: deltas to the truth."""

    index_NS: Tensor
    positive_NS: Tensor
    valid_NS: Tensor
    wanted_NS4: Tensor


@torch.no_grad()
def sample_anchors(
    anchors_A4: Tensor, eligible_NA: Tensor, targets: Targets, *, matcher: Matcher, sampler: Sampler
) -> AnchorSamples:
    """Draw from the eligible anchors those that are learnt from, a fixed number an image (Faster R-CNN, §3.1.3)."""
    matches = matcher(anchors_A4, eligible_NA, targets)
    samples = sampler(matches, targets.draw_seeds_N)
    truth_NS4 = take(targets.boxes_NG4, take(matches.truth_NA, samples.index_NS))
    wanted_NS4 = encode(truth_NS4, anchors_A4[samples.index_NS])
    return AnchorSamples(samples.index_NS, samples.positive_NS, samples.valid_NS, wanted_NS4)


def anchor_losses(
    logits_NA: Tensor, deltas_NA4: Tensor, samples: AnchorSamples, *, count: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Return the binary loss and the box loss of the sampled anchors (Faster R-CNN, §3.1.2).

    Both are divided by `count`, the number of sampled anchors (of the whole batch). For the box loss that is about the
    paper's number of anchor positions with its lambda of 10, and what detectron2 and torchvision do.
    """
    class_loss_NS = binary_cross_entropy(take(logits_NA, samples.index_NS), samples.positive_NS)
    box_loss_NS = smooth_l1(take(deltas_NA4, samples.index_NS), samples.wanted_NS4, beta)
    return masked_sum(class_loss_NS, samples.valid_NS) / count, masked_sum(box_loss_NS, samples.positive_NS) / count
