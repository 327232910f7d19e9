"""A backbone as it is trained: a classifier with its loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone


class Classifier(nn.Module):
    """Cross-entropy on a backbone's logits.

    label_smoothing: probability mass that is moved from the true class to all classes (Szegedy et al. 2016).
    A mixed picture has both its labels, each by its share (Zhang et al. 2017; Yun et al. 2019).
    """

    def __init__(self, backbone: Backbone, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.label_smoothing = label_smoothing

    def forward(self, pixels_N3HW: Tensor, labels_N: Tensor, mixing_5: Tensor | None = None) -> dict[str, Tensor]:
        """RGB pixels 0..255 and classes 0..C-1 to `loss_cls` and, for the log, `top1` in per cent.

        mixing_5: how each picture is mixed with the one before it, see `own_shares`; top1 is then of the label with
        the larger share.
        """
        if mixing_5 is None:
            logits_NC = self.backbone(pixels_N3HW)
            return {"loss_cls": self._loss(logits_NC, labels_N), "top1": top1(logits_NC, labels_N)}
        others_N = labels_N.roll(1)
        shares_HW = own_shares(mixing_5, *pixels_N3HW.shape[2:])
        share = shares_HW.mean()
        logits_NC = self.backbone(mix(pixels_N3HW, shares_HW))
        return {
            "loss_cls": torch.lerp(self._loss(logits_NC, others_N), self._loss(logits_NC, labels_N), share),
            "top1": top1(logits_NC, torch.where(share >= 0.5, labels_N, others_N)),
        }

    def _loss(self, logits_NC: Tensor, labels_N: Tensor) -> Tensor:
        return F.cross_entropy(logits_NC, labels_N, label_smoothing=self.label_smoothing)


def own_shares(mixing_5: Tensor, height: int, width: int) -> Tensor:
    """shares_HW, 0..1: what a pixel of a mixed picture keeps of its own; their mean is the share of its label.

    mixing_5: float32, the share outside of a box, and the box x0 y0 x1 y1 in pixels, inside of which it is 0. Numbers
    stay on the device and shapes are fixed, so nothing waits.
    """
    outside, x0, y0, x1, y1 = mixing_5.unbind()
    rows_H1 = torch.arange(height, device=mixing_5.device)[:, None]
    columns_W = torch.arange(width, device=mixing_5.device)
    in_box_HW = (rows_H1 >= y0) & (rows_H1 < y1) & (columns_W >= x0) & (columns_W < x1)
    return torch.where(in_box_HW, 0.0, outside)


def mix(pixels_N3HW: Tensor, shares_HW: Tensor) -> Tensor:
    """Each picture with the rest of its shares from the one before it, the first from the last; float32."""
    own_N3HW = pixels_N3HW.float()
    return torch.lerp(own_N3HW.roll(1, dims=0), own_N3HW, shares_HW)


def top1(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Per cent of the images whose largest logit is their label's."""
    return 100.0 * (logits_NC.detach().argmax(dim=1) == labels_N).float().mean()
