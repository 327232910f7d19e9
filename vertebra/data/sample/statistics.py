"""Statistics of the sample set's scenes, counted in the annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL_PX, LARGE_PX = 32**2, 96**2  # COCO's bounds of the mask's area
OVERLAPPED_ABOVE = 0.02  # of an object's pixels are covered by others


def scene_statistics(annotations: dict[str, Any] | Path | str) -> dict[str, float]:
    """Counts and fractions of a COCO document of the sample set, or of the file that holds it.

    `small`, `medium`, `large`, `overlapped`, `difficult` and `truncated` are fractions of the objects (crowds left
    out), `empty` and `with_crowd` of the scenes, `rarest_class` and `commonest_class` of the objects.
    """
    document = annotations if isinstance(annotations, dict) else json.loads(Path(annotations).read_text())
    scenes = len(document["images"])
    crowds = [one for one in document["annotations"] if one["iscrowd"]]
    objects = [one for one in document["annotations"] if not one["iscrowd"]]
    counts = dict.fromkeys((category["id"] for category in document["categories"]), 0)
    for one in objects:
        counts[one["category_id"]] += 1
    inhabited = {one["image_id"] for one in document["annotations"]}

    def share(chosen: list[bool]) -> float:
        return sum(chosen) / max(len(objects), 1)

    return {
        "scenes": scenes,
        "objects": len(objects),
        "objects_per_scene": len(objects) / max(scenes, 1),
        "small": share([one["area"] < SMALL_PX for one in objects]),
        "medium": share([SMALL_PX <= one["area"] <= LARGE_PX for one in objects]),
        "large": share([one["area"] > LARGE_PX for one in objects]),
        "overlapped": share([one["occluded"] > OVERLAPPED_ABOVE for one in objects]),
        "difficult": share([bool(one["difficult"]) for one in objects]),
        "truncated": share([bool(one["truncated"]) for one in objects]),
        "empty": 1 - len(inhabited) / max(scenes, 1),
        "with_crowd": len({one["image_id"] for one in crowds}) / max(scenes, 1),
        "rarest_class": min(counts.values()) / max(len(objects), 1),
        "commonest_class": max(counts.values()) / max(len(objects), 1),
    }
