"""Truth and predictions on disk: COCO JSON and COCO results JSON, read and checked.

Everything that scores goes through here, so that a file with a fault ends in one sentence that names the file, what
was found and how to fix it, and never in a figure that is quietly wrong. A file has millions of numbers, so each
column is checked as a whole, and its entries one by one only where that finds a fault or numbers of unusual types.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NoReturn

from vertebra.evaluation.metrics.segmentations import are_finite, first_fault, is_finite
from vertebra.ground.errors import UserError

Entry = dict[str, Any]
Truth = dict[str, Any]  # COCO JSON: images, annotations, categories
FLAGS = ("iscrowd", "difficult")
MASKS = "segmentation"
IouType = Literal["bbox", "segm"]
Difficult = Literal["ignore", "count"]  # difficult objects: neither to be found nor wrong to find, or as all others
NEEDS: dict[str, str] = {"bbox": "bbox", "segm": MASKS}  # what files must have of each object, by what the IoU is of

_TRUTH = "COCO truth is an object with images, annotations and categories"
_RESULTS = "COCO results are a list of objects with image_id, category_id, bbox and score"
_EXCHANGED = " (were truth and predictions exchanged?)"


def read_truth(source: Truth | str | Path, *, needs: str = "bbox") -> Truth:
    """Return the truth as a COCO JSON dict, checked; a path is read, a dict is taken as it is and never changed.

    Asked for: `images` (id), `categories` (id, name), `annotations` (image_id, category_id, bbox xywh);
    `iscrowd` and `difficult` (0 or 1), `area` and images' `width` and `height` may be missing or null. needs:
    "segmentation" asks for a mask of every object too. Raises UserError on anything else, OSError where the file
    is not readable.
    """
    name = _label(source, "the truth")
    truth = _load(source, name)
    if not isinstance(truth, dict):
        raise UserError(name, f"is a {_kind(truth)}", _TRUTH + _EXCHANGED)
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth.get(key), list):
            raise UserError(name, f"has no list '{key}'", _TRUTH)
    images, categories, annotations = (
        _Entries(name, what, truth[key])
        for what, key in (("image", "images"), ("category", "categories"), ("annotation", "annotations"))
    )
    image_ids, category_ids = images.ids(), categories.ids()
    for side in ("width", "height"):
        images.check_numbers(side, least=0, wanted="a number of pixels", hint="correct it, or leave it out")
    annotations.check_known("image_id", image_ids, "list the image or remove the annotation")
    annotations.check_known("category_id", category_ids, "list the category or correct the id")
    annotations.check_boxes()
    annotations.check_flags()
    annotations.check_numbers("area", least=0, wanted="a number of square pixels", hint="correct it, or leave it out")
    if needs == MASKS:
        annotations.check_masks(truth, polygons=True)
    return truth


def read_predictions(
    source: Sequence[Entry] | str | Path, truth: Truth, *, needs: str = "bbox", classes: bool = True
) -> list[Entry]:
    """Return predictions as a list of COCO results, checked against `truth`; an empty list is fine (and scores 0).

    source: a list or a path. needs: "bbox", or "segmentation" for masks. classes: False for proposals, whose
    category_id is not read. Raises UserError, OSError.
    """
    name = _label(source, "the list of predictions")
    found = _load(source, name)
    if not isinstance(found, list):
        raise UserError(name, f"is a {_kind(found)}", _RESULTS + _EXCHANGED)
    predictions = _Entries(name, "prediction", found)
    image_ids, category_ids = ({entry["id"] for entry in truth[key]} for key in ("images", "categories"))
    predictions.check_known("image_id", image_ids, "score each file against the truth of its images")
    if classes:
        predictions.check_known("category_id", category_ids, "use the ids of the truth's categories")
    hint = "each prediction needs one (was the truth given in place of the predictions?)"
    predictions.check_numbers("score", wanted="a finite number", hint=hint, optional=False)
    if needs == "bbox":
        predictions.check_boxes()
    else:
        predictions.check_masks(truth, polygons=False)
    return found


def area_of(annotation: Entry) -> float:
    """Return an object's area as the file has it, else its box's."""
    area = annotation.get("area")
    return annotation["bbox"][2] * annotation["bbox"][3] if area is None else area


def class_names(truth: Truth) -> dict[int, str]:
    """Return each category id's name, in the file's order; a missing name is the id, a repeated one gets its id."""
    names = {category["id"]: str(category.get("name", category["id"])) for category in truth["categories"]}
    uses = Counter(names.values())
    return {id_: f"{name} ({id_})" if uses[name] > 1 else name for id_, name in names.items()}


def none_for_nan(values: Iterable[tuple[str, float]]) -> dict[str, float | None]:
    """Return a dict fit for JSON: NaN ("no truth") becomes null."""
    return {key: None if math.isnan(value) else value for key, value in values}


def restrict(truth: Truth, predictions: Sequence[Entry], classes: Sequence[str]) -> tuple[Truth, list[Entry]]:
    """Return truth and predictions of the named classes alone; all images stay. Raises UserError for unknown names."""
    ids = {name: category_id for category_id, name in class_names(truth).items()}
    unknown = [name for name in classes if name not in ids]
    if unknown:
        raise UserError(f"the truth has no class {', '.join(unknown)}; it has {', '.join(ids)}")
    kept = {ids[name] for name in classes}
    part = {
        **truth,
        "categories": [category for category in truth["categories"] if category["id"] in kept],
        "annotations": [entry for entry in truth["annotations"] if entry["category_id"] in kept],
    }
    return part, [entry for entry in predictions if entry["category_id"] in kept]


def _label(source: object, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _load(source: Any, name: str) -> Any:
    if not isinstance(source, (str, Path)):
        return list(source) if isinstance(source, tuple) else source
    try:
        with open(source, encoding="utf-8-sig") as file:  # some editors begin a file with a mark of its encoding
            return json.load(file)
    except FileNotFoundError:
        raise UserError(name, "does not exist", "give the path of a JSON file") from None
    except IsADirectoryError:
        raise UserError(name, "is a directory", "give the path of a JSON file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UserError(name, f"does not parse as JSON ({place})", "it may be cut short: write it again") from None
    except UnicodeDecodeError:
        raise UserError(name, "is not a text file", "give a JSON file") from None
    except RecursionError:
        raise UserError(name, "is nested too deeply", "give a file of predictions or truth") from None
    except ValueError as error:  # numbers of thousands of digits
        raise UserError(name, f"has a number that Python does not read ({error})", "correct it") from None


def _kind(value: object) -> str:
    kind = type(value).__name__
    return {"dict": "single object", "str": "string"}.get(kind, kind)


class _Entries:
    """A list of objects in a file. Faults name the file, the entry's place and its image."""

    def __init__(self, name: str, what: str, entries: list[Any]):
        self.name, self.what, self.entries = name, what, entries
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(f"{name}: {what} {place} (counted from 0)", f"is a {_kind(entry)}, not an object")

    def refuse(self, place: int, reason: str, hint: str = "") -> NoReturn:
        """Raise UserError about one entry."""
        image_id = self.entries[place].get("image_id")
        image = f", image_id {image_id}" if _is_integer(image_id) else ""
        raise UserError(f"{self.name}: {self.what} {place} (counted from 0{image})", reason, hint)

    def values(self, key: str) -> list[Any]:
        return [entry.get(key) for entry in self.entries]

    def ids(self) -> set[int]:
        """Return the entries' ids, each of which is a whole number of its own."""
        seen: set[int] = set()
        for place, id_ in enumerate(self.values("id")):
            if not _is_integer(id_):
                self.refuse(place, f"id {id_!r} is not a whole number")
            if id_ in seen:
                self.refuse(place, f"another {self.what} has the id {id_} too", "give each its own")
            seen.add(id_)
        return seen

    def check_known(self, key: str, known: set[int], hint: str) -> None:
        values = self.values(key)
        if set(map(type, values)) <= {int} and known.issuperset(values):
            return
        wrong = [place for place, value in enumerate(values) if not (_is_integer(value) and value in known)]
        if not wrong:
            return
        value = values[wrong[0]]
        if value is None:
            self.refuse(wrong[0], f"has no {key}", hint)
        if not _is_integer(value):
            self.refuse(wrong[0], f"{key} {value!r} is not a whole number", "write it as in the truth")
        if key == "category_id":
            hint += _off_by_one({value for value in values if _is_integer(value)}, known)
        share = f"{len(wrong)} of {len(values)} {self.what}s have such an id"
        self.refuse(wrong[0], f"{key} {value} is not in the truth ({share})", hint)

    def check_numbers(
        self, key: str, *, wanted: str, hint: str, least: float = -math.inf, optional: bool = True
    ) -> None:
        """Refuse what is no finite number of `least` or more; `optional`: nor missing, nor null."""
        values = self.values(key)
        if are_finite([value for value in values if value is not None or not optional], least):
            return
        for place, value in enumerate(values):
            if value is None and not optional:
                self.refuse(place, f"has no {key}", hint)
            if value is not None and not (is_finite(value) and value >= least):
                self.refuse(place, f"{key} {reprlib.repr(value)} is not {wanted}", hint)

    def check_flags(self) -> None:
        for flag in FLAGS:
            for place, value in enumerate(self.values(flag)):
                if value is not None and not (isinstance(value, Real) and value in (0, 1)):
                    self.refuse(
                        place,
                        f"{flag} {reprlib.repr(value)} is neither 0 nor 1",
                        "correct it (a text such as '0' would count as a yes)",
                    )

    def check_boxes(self) -> None:
        boxes = self.values("bbox")
        plain = set(map(type, boxes)) <= {list, tuple} and set(map(len, boxes)) <= {4}
        sides = [side for box in boxes for side in box[2:]] if plain else []
        if plain and are_finite(list(chain.from_iterable(boxes))) and are_finite(sides, least=0):
            return
        for place, box in enumerate(boxes):
            if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_number, box)):
                self.refuse(place, f"bbox {box!r} is not four numbers", "give x, y, width, height in pixels")
            if not all(map(is_finite, box)):
                hint = "remove it, or find the cause in what wrote it"
                self.refuse(place, f"bbox {reprlib.repr(list(box))} is not finite", hint)
            if box[2] < 0 or box[3] < 0:
                hint = "a bbox is x, y, width, height, not two corners"
                self.refuse(place, f"bbox {list(box)} has a negative width or height", hint)

    def check_masks(self, truth: Truth, *, polygons: bool) -> None:
        """polygons: may stand in place of RLE."""
        sizes = {image["id"]: (image.get("height"), image.get("width")) for image in truth["images"]}
        image_ids = self.values("image_id")
        for image_id in dict.fromkeys(image_ids):
            if not all(map(_is_integer, sizes[image_id])):
                reason = f"height x width {list(sizes[image_id])} of the truth's image {image_id} are not whole numbers"
                raise UserError(self.name, reason, "masks need both, in pixels")
        fault = first_fault(self.values(MASKS), [sizes[image_id] for image_id in image_ids], polygons=polygons)
        if fault is not None:
            self.refuse(*fault)


def _off_by_one(used: set[int], known: set[int]) -> str:
    """Return a hint where all ids would fit after one step up or down: the commonest reason for an mAP of 0."""
    for step, reason in ((1, "counted from 0"), (-1, "counted one too high")):
        if {id_ + step for id_ in used} <= known:
            return f": all of them fit after adding {step}, so the ids look {reason} (off by one)"
    if len(used) <= len(known) and used <= set(range(len(known) + 1)):
        return ": these look like places in the list of classes, which are to be mapped back to the ids"
    return ""


def _is_integer(value: object) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
