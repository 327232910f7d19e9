"""The files of a scene: COCO's annotations, VOC's XML, and the encoded picture.

Each scene is a record of everything that either format needs, so that both have the same objects.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np

from .paint import Bytes
from .scenes import Mask, Scene, SceneObject
from .shapes import CLASS_NAMES

# Not contiguous on purpose, as COCO's own are not: a reader that takes an id for a label fails at once.
CATEGORY_IDS = (3, 5, 8, 11, 14, 17, 21, 26, 30, 38)
JPEG_QUALITY = 92
Record = dict[str, Any]


def encode_jpeg(pixels: Bytes) -> bytes:
    """A JPEG file's bytes of an RGB picture HW3."""
    done, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return encoded.tobytes()


def _box_xywh(mask: Mask) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]


def _run_lengths(mask: Mask) -> dict[str, Any]:
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _annotation(seen: SceneObject) -> Record:
    return {
        "category_id": CATEGORY_IDS[seen.label],
        "bbox": _box_xywh(seen.mask),
        "area": int(np.count_nonzero(seen.mask)),
        "segmentation": _run_lengths(seen.mask),
        "iscrowd": int(seen.crowd),
        "difficult": int(seen.difficult),
        "truncated": int(seen.truncated),
        "occluded": round(seen.occluded, 3),
    }


def scene_record(scene: Scene, image_id: int) -> Record:
    """The image's and its objects' COCO entries; annotation ids are given once all scenes are there."""
    height, width = scene.pixels.shape[:2]
    image = {"id": image_id, "file_name": f"{image_id:06d}.jpg", "width": width, "height": height}
    return {"image": image, "annotations": [{"image_id": image_id, **_annotation(o)} for o in scene.objects]}


def coco_document(records: list[Record]) -> Record:
    """The content of instances_*.json; an annotation's id is its place, from 1."""
    annotations = [annotation for record in records for annotation in record["annotations"]]
    return {
        "info": {"description": "Vertebra's embedded sample set, drawn from a seed"},
        "images": [record["image"] for record in records],
        "annotations": [{"id": place, **annotation} for place, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": id, "name": name} for id, name in zip(CATEGORY_IDS, CLASS_NAMES)],
    }


def voc_xml(record: Record) -> str:
    """One image's VOC annotation: corners count pixels from 1 and belong to the box; crowds are difficult."""
    image = record["image"]
    lines = [
        "<annotation>",
        "  <folder>VOC2007</folder>",
        f"  <filename>{escape(image['file_name'])}</filename>",
        f"  <size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for one in record["annotations"]:
        left, top, width, height = one["bbox"]
        name = CLASS_NAMES[CATEGORY_IDS.index(one["category_id"])]
        corners = {"xmin": left + 1, "ymin": top + 1, "xmax": left + width, "ymax": top + height}
        box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners.items())
        flags = f"<truncated>{one['truncated']}</truncated><difficult>{one['difficult'] | one['iscrowd']}</difficult>"
        lines.append(f"  <object><name>{name}</name><pose>Unspecified</pose>{flags}<bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])
