"""A network in its fully-convolutional form: a classifier of every place of an image of any size.

Legend of shape suffixes: N images, C classes or channels, H W height and width, R windows.

He et al. 2015, §3.4, after Simonyan & Zisserman 2014, §3.2: the convolutions run over the whole uncropped image, and
what lies above them (VGG: fc6 as a 7x7 convolution, fc7 and fc8 as 1x1 ones; ResNet: the 7x7 average pooling and the
fc) slides over the last map in steps of one cell. The window is as large as the last map of a training image, so that
an image of that size gives exactly one score, the network's own.

Here the tail of the network itself runs on every window: in evaluation that is what the convolutions compute, and it
serves every network with our contract, those of other libraries too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.base import Backbone, BackboneError
from backbones.norms import evaluating

WINDOW_VALUES = 1 << 26  # numbers in the windows that are laid out at once: 256 MB in float32


class Dense(nn.Module):
    """`backbone` over whole images, in evaluation mode; its modules are shared, not copied.

    size: side in pixels of the images that it was trained on. Raises BackboneError where they are too small for it.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        super().__init__()
        self.training = backbone.training
        self.backbone, self.size = backbone, size
        self.window = map_side(backbone, size)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """RGB pixels 0..255 to logits_NC: the class map, averaged over its places."""
        return self.class_map(pixels_N3HW).mean(dim=(2, 3))

    def class_map(self, pixels_N3HW: Tensor) -> Tensor:
        """RGB pixels 0..255 to logits_NCHW, float32: one score for each place of the window."""
        map_NCHW = self.backbone.last_map(pixels_N3HW)
        if min(map_NCHW.shape[2:]) < self.window:
            height, width = pixels_N3HW.shape[2:]
            raise BackboneError(
                f"{self.backbone.name}, trained on {self.size} px, cannot be slid over images of {width} x {height} "
                f"px: the shorter side must be {self.size} at least."
            )
        windows_NCHWkk = map_NCHW.unfold(2, self.window, 1).unfold(3, self.window, 1)  # a view
        images, channels, height, width = windows_NCHWkk.shape[:4]
        rows = max(1, WINDOW_VALUES // (images * channels * width * self.window**2))
        logits = []
        for part_NChWkk in windows_NCHWkk.split(rows, dim=2):
            windows_RCkk = part_NChWkk.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
            logits.append(self.backbone.classify(windows_RCkk).unflatten(0, (images, -1, width)))
        return torch.cat(logits, dim=1).permute(0, 3, 1, 2)


def map_side(backbone: Backbone, size: int) -> int:
    """Cells a side of the last map of an image of `size` x `size` px. Raises BackboneError where none is left."""
    pixels_13HW = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=next(backbone.parameters()).device)
    try:
        with evaluating(backbone):
            return backbone.last_map(pixels_13HW).shape[2]
    except RuntimeError as error:
        raise BackboneError(
            f"{backbone.name} cannot see images of {size} px: nothing is left of its last map."
        ) from error
