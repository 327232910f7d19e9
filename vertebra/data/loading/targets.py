"""The parts of a detection batch: images on one canvas, and the truths that a policy keeps, padded.

Legend: K truths of the data set, N images of a batch, G truths an image (padded in the batch), H W an image's resized
height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detectors.structures import ImageBatch, Masks, Targets, padded_count
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading.loaders import empty_pixels
from vertebra.data.transforms.canvases import Size
from vertebra.ground.rle import Patch


@dataclass(frozen=True)
class TruthPolicy:
    """The treatment of special truths. crowd: "drop" or "ignore"; difficult: "train", "drop" or "ignore".

    Dropped truths are gone from the targets; ignored ones are there and flagged; others are normal.
    """

    crowd: str = "ignore"
    difficult: str = "train"

    def keep(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        return ~(crowd_G & (self.crowd == "drop") | difficult_G & (self.difficult == "drop"))

    def ignore(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        return crowd_G | difficult_G if self.difficult == "ignore" else crowd_G.copy()

    def normal(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        """Those that are there to be found."""
        return self.keep(crowd_G, difficult_G) & ~self.ignore(crowd_G, difficult_G)


@dataclass
class DetectionSample:
    """One image of a batch, its truths in pixels of the view; truths_G: their places among all of the data set."""

    index: int
    seed: int
    pixels_HW3: np.ndarray
    boxes_G4: np.ndarray
    truths_G: np.ndarray
    ignore_G: np.ndarray
    masks_G: Sequence[Patch] = ()


def padded_targets(dataset: DetectionDataset, samples: Sequence[DetectionSample], *, masks: bool = False) -> Targets:
    """The truths of a batch's images."""
    counts_N1 = np.array([[len(sample.truths_G)] for sample in samples])
    valid_NG = np.arange(padded_count(int(counts_N1.max()))) < counts_N1
    truths_T = np.concatenate([sample.truths_G for sample in samples])  # T: of all images

    def padded(values_T: np.ndarray) -> torch.Tensor:
        values_NG = np.zeros((*valid_NG.shape, *values_T.shape[1:]), values_T.dtype)
        values_NG[valid_NG] = values_T
        return torch.from_numpy(values_NG)

    indices = [sample.index for sample in samples]
    return Targets(
        boxes_NG4=padded(np.concatenate([sample.boxes_G4 for sample in samples], dtype=np.float32)),
        labels_NG=padded(dataset.labels_K[truths_T]),
        valid_NG=torch.from_numpy(valid_NG),
        crowd_NG=padded(dataset.crowd_K[truths_T]),
        difficult_NG=padded(dataset.difficult_K[truths_T]),
        ignore_NG=padded(np.concatenate([sample.ignore_G for sample in samples])),
        draw_seeds_N=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
        image_ids=tuple(dataset.image_ids_I[indices].tolist()),
        original_sizes_hw=tuple(map(tuple, dataset.sizes_hw_I2[indices].tolist())),
        masks=_flat_masks(samples) if masks else None,
    )


def image_batch(pixels: Sequence[np.ndarray], canvas_hw: Size) -> ImageBatch:
    """Resized images, each uint8 RGB HW3, at the top left of one canvas."""
    pixels_NHW3 = empty_pixels(len(pixels), *canvas_hw)
    for canvas_HW3, pixels_HW3 in zip(pixels_NHW3.numpy(), pixels):
        place_on(canvas_HW3, pixels_HW3.shape[:2])[:] = pixels_HW3
    return on_canvases(pixels_NHW3, pixels)


def place_on(canvas_HW3: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Return the place on the canvas for an image of that size, after the rest has been blackened."""
    height, width = size_hw
    canvas_HW3[height:] = 0
    canvas_HW3[:height, width:] = 0
    return canvas_HW3[:height, :width]


def on_canvases(pixels_NHW3: torch.Tensor, pixels: Sequence[np.ndarray]) -> ImageBatch:
    """The batch of these images, which lie on its canvases already."""
    sizes_hw = tuple((pixels_HW3.shape[0], pixels_HW3.shape[1]) for pixels_HW3 in pixels)
    sizes_hw_N2 = torch.tensor(sizes_hw, dtype=torch.int64).reshape(-1, 2)
    return ImageBatch(pixels_NHW3.permute(0, 3, 1, 2), sizes_hw_N2, sizes_hw)


def _flat_masks(samples: Sequence[DetectionSample]) -> Masks:
    """All masks of the batch in one row of bits: they cross to this process, and to the device, at an eighth."""
    patches = [patch for sample in samples for patch in sample.masks_G]
    bits_M = np.concatenate([np.zeros(0, np.uint8), *(patch.bits_HW.reshape(-1) for patch in patches)])
    windows = [(one.left, one.top, one.left + one.bits_HW.shape[1], one.top + one.bits_HW.shape[0]) for one in patches]
    counts = [len(sample.truths_G) for sample in samples]
    return Masks(
        packed_B=torch.from_numpy(np.packbits(bits_M)),
        windows_K4=torch.tensor(windows, dtype=torch.int64).view(-1, 4),
        image_index_K=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
        truth_index_K=torch.from_numpy(np.concatenate([np.arange(count) for count in counts])),
    )
