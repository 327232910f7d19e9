"""A detector over pictures without annotations: what it sees in each, its drawing, and the files of all.

Legend: H W a picture's height and width on disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detectors.structures import Size
from vertebra.evaluation.metrics.files import Entry
from vertebra.evaluation.predict.draw import class_colours, draw
from vertebra.evaluation.predict.inference import Autocast, detect, evaluating


@dataclass(frozen=True)
class Seen:
    """One picture and its COCO results, best first. pixels_HW3: RGB uint8, where the batches bring them."""

    image_id: int
    size_hw: Size
    entries: list[Entry]
    pixels_HW3: np.ndarray | None


def look(
    model: nn.Module,
    batches: Iterable[Any],
    category_ids: Sequence[int],
    *,
    kept: Collection[int],
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> Iterator[Seen | str]:
    """One item a picture, in order within its batch: what is seen, or why it could not be read.

    batches: as loading.pictures makes them. category_ids[label - 1] is the id in files; kept: those that are asked for.
    """
    with evaluating(model):
        for batch in batches:
            yield from batch.skipped
            if not len(batch):
                continue
            (images,) = batch.to(device).inputs
            found = detect(model, images, batch.sizes_hw, batch.image_ids, autocast)
            for n, (image_id, one) in enumerate(found.items()):
                entries = one.coco_results(image_id, category_ids)
                entries = [entry for entry in entries if entry["category_id"] in kept]
                yield Seen(image_id, one.size_hw, entries, batch.originals[n].numpy() if batch.originals else None)


class Artist:
    """Draws what has at least the score, each class in a colour of its own; `drawn` counts."""

    def __init__(self, names: Mapping[int, str], score: float) -> None:
        self.names, self.score, self.colours, self.drawn = names, score, class_colours(names), 0

    def draw(self, seen: Seen) -> np.ndarray:
        """RGB uint8, vertebra.evaluation.predict.draw.enlargement times the picture's size."""
        assert seen.pixels_HW3 is not None
        entries = [entry for entry in seen.entries if entry["score"] >= self.score]
        self.drawn += len(entries)
        return draw(seen.pixels_HW3, entries, self.names, self.colours)


@dataclass
class PictureResults:
    """What was seen in all pictures; `skipped` says why others were not read."""

    images: list[Entry] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, seen: Seen, path: Path, **facts: Any) -> None:
        """facts: what else the list of images is to say of this one."""
        height, width = seen.size_hw
        self.images.append(
            {"id": seen.image_id, "file_name": path.as_posix(), "width": width, "height": height, **facts}
        )
        self.entries.extend(seen.entries)

    def index(self, names: Mapping[int, str]) -> dict[str, Any]:
        """COCO JSON without annotations: what the ids of images and categories are."""
        categories = [{"id": category_id, "name": name} for category_id, name in names.items()]
        return {"images": self.images, "categories": categories, "annotations": []}
