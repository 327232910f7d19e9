"""What a backbone is trained as: a classifier with its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone


class Classifier(nn.Module):
    """Cross-entropy on a backbone's logits.

    label_smoothing: probability mass that is moved from the true class to all classes (Szegedy et al. 2016).
    """

    def __init__(self, backbone: Backbone, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.label_smoothing = label_smoothing

    def forward(self, pixels_N3HW: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
        """RGB pixels 0..255 and classes 0..C-1 to `loss_cls` and, for the log, `top1` in per cent."""
        logits_NC = self.backbone(pixels_N3HW)
        return {
            "loss_cls": F.cross_entropy(logits_NC, labels_N, label_smoothing=self.label_smoothing),
            "top1": 100.0 * (logits_NC.detach().argmax(dim=1) == labels_N).float().mean(),
        }
