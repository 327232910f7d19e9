"""A segmenter over images: a map of classes for each, and, of a test set, the pixels that agree with the truth.

Legend: N images, C classes, H W canvas or image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from backbones.norms import evaluating
from vertebra.evaluation.metrics.pixels import confusion
from vertebra.evaluation.predict.inference import Autocast, check_finite, predict_all
from vertebra.ground.files import write_atomically
from vertebra.ground.rle import Size

Mapped: TypeAlias = tuple[NDArray[np.uint8], "NDArray[np.uint8] | None"]  # an image's map, and its truth
Keep = Callable[[int, NDArray[np.uint8], "NDArray[np.uint8] | None"], None]


def predict_maps(
    model: nn.Module,
    loader: Iterable[Any],
    classes: int,
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    keep: Keep | None = None,
    **options: Any,
) -> list[tuple[int, NDArray[np.int64] | None]]:
    """Return (image id, confusion_CC, None without truth) of every image on rank 0, in the data set's order.

    model: ImageBatch to scores or probabilities_NCHW of the canvas. keep: called, by the process that made it, with an
    image's id, its map_HW of classes, at the image's own size, and its truth_HW or None; its time does not count.
    options: as of `predict_all`. Raises UserError where a network's output is not finite.
    """

    def predict(batch: Any) -> dict[int, Mapped]:
        maps = class_maps(model, batch, batch.original_sizes_hw, device, autocast)
        truths = [None if truth is None else truth.numpy() for truth in batch.labels]
        return dict(zip(batch.image_ids, zip(maps, truths)))

    def count(image_id: int, mapped: Mapped) -> NDArray[np.int64] | None:
        map_HW, truth_HW = mapped
        if keep is not None:
            keep(image_id, map_HW, truth_HW)
        return None if truth_HW is None else confusion(truth_HW, map_HW, classes)

    return predict_all(model, loader, predict, keep=count, everywhere=False, **options)


def class_maps(
    model: nn.Module, batch: Any, sizes_hw: Sequence[Size], device: torch.device | str, autocast: Autocast
) -> Iterator[NDArray[np.uint8]]:
    """Yield the map of classes of each of the batch's images, at its own size, which `sizes_hw` gives.

    Raises UserError where a network's output is not finite.
    """
    with autocast():
        scores_NCHW = model(*batch.to(device).inputs).float()
    finite_N = torch.isfinite(scores_NCHW).flatten(1).all(dim=1).cpu().numpy()
    check_finite(finite_N, batch.image_ids)
    (images,) = batch.inputs
    yield from map(class_map, scores_NCHW, images.sizes_hw, sizes_hw)


def class_map(scores_CHW: Tensor, size_hw: Size, original_hw: Size) -> NDArray[np.uint8]:
    """Return the best class of each pixel of the image at its original size.

    size_hw: of the image on the canvas; beyond it is padding. Scores are resized, bilinear, not classes.
    """
    scores_CHW = scores_CHW[:, : size_hw[0], : size_hw[1]]
    if size_hw != tuple(original_hw):
        scores_CHW = F.interpolate(scores_CHW[None], size=tuple(original_hw), mode="bilinear", align_corners=False)[0]
    return scores_CHW.argmax(dim=0).to(torch.uint8).cpu().numpy()


def write_map(path: Path, map_HW: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
    """Write a map of classes as an indexed PNG, which any tool reads as classes and any viewer shows in colours.

    A kill leaves a whole map or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # any process may be first
    image = Image.fromarray(map_HW)
    image.putpalette(palette.tobytes())
    write_atomically(path, lambda file: image.save(file, "PNG"), sync=False)


@dataclass(frozen=True)
class PictureMap:
    """One picture and its map of classes. pixels_HW3: RGB uint8, where the batches bring them."""

    image_id: int
    map_HW: NDArray[np.uint8]
    pixels_HW3: np.ndarray | None

    @property
    def size_hw(self) -> Size:
        return self.map_HW.shape[0], self.map_HW.shape[1]

    def shares(self) -> dict[int, float]:
        """Return the share of the pixels that each class has, the largest first; only of classes that are there."""
        pixels_C = np.bincount(self.map_HW.ravel())
        found = ((int(label), float(pixels_C[label] / self.map_HW.size)) for label in np.flatnonzero(pixels_C))
        return dict(sorted(found, key=lambda item: -item[1]))


def map_pictures(
    model: nn.Module, batches: Iterable[Any], *, device: torch.device | str = "cpu", autocast: Autocast = nullcontext
) -> Iterator[PictureMap | str]:
    """One item a picture, in order within its batch: its map, or why it could not be read.

    batches: as loading.pictures makes them.
    """
    with evaluating(model):
        for batch in batches:
            yield from batch.skipped
            if not len(batch):
                continue
            maps = class_maps(model, batch, batch.sizes_hw, device, autocast)
            for n, (image_id, map_HW) in enumerate(zip(batch.image_ids, maps)):
                yield PictureMap(image_id, map_HW, batch.originals[n].numpy() if batch.originals else None)
