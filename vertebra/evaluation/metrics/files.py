"""Truth and predictions on disk: COCO JSON and COCO results JSON, read and checked.

Everything that scores goes through here, so that a file with a fault ends in one sentence that names the
file, what was found and how to mend it, and never in a figure that is quietly wrong.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from vertebra.evaluation.metrics.segmentations import first_fault, is_finite
from vertebra.ground.errors import UserError

Entry = dict[str, Any]
Truth = dict[str, Any]  # COCO JSON: images, annotations, categories
FLAGS = ("iscrowd", "difficult")
MASKS = "segmentation"
IouType = Literal["bbox", "segm"]
Difficult = Literal["ignore", "count"]  # difficult objects: neither to be found nor wrong to find, or as all others
NEEDS: dict[str, str] = {"bbox": "bbox", "segm": MASKS}  # what files must have of each object, by what the IoU is of


class EvaluationError(UserError):
    """A file or a value that cannot be scored; the message is the sentence a user reads."""


def read_truth(source: Truth | str | Path, *, needs: str = "bbox") -> Truth:
    """The truth as a COCO JSON dict, checked; a path is read, a dict is taken as it is and never changed.

    Asked for: `images` (id), `categories` (id, name), `annotations` (image_id, category_id, bbox xywh);
    `iscrowd` and `difficult` (0 or 1), `area` and images' `width` and `height` may be missing or null. needs:
    "segmentation" asks for a mask of every object too. Raises EvaluationError on anything else, OSError where the file
    is not readable.
    """
    name = _label(source, "the truth")
    truth = _load(source, name)
    if not isinstance(truth, dict):
        raise EvaluationError(
            f"{name} holds a {_kind(truth)}; COCO truth is an object with images, annotations and "
            "categories (were truth and predictions exchanged?)"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth.get(key), list):
            raise EvaluationError(
                f"{name} has no list '{key}'; COCO truth is an object with images, annotations and categories"
            )
    images = _unique_ids(truth["images"], "image", name)
    _check_sizes(truth["images"], name)
    categories = _unique_ids(truth["categories"], "category", name)
    annotations = truth["annotations"]
    _check_objects(annotations, "annotation", name)
    _check_known(annotations, "image_id", images, name, "annotation", "list the image or remove the annotation")
    _check_known(annotations, "category_id", categories, name, "annotation", "list the category or correct the id")
    _check_boxes(annotations, name, "annotation")
    _check_flags_and_areas(annotations, name)
    if needs == MASKS:
        _check_masks(annotations, truth, name, "annotation")
    return truth


def read_predictions(
    source: Sequence[Entry] | str | Path, truth: Truth, *, needs: str = "bbox", classes: bool = True
) -> list[Entry]:
    """Predictions as a list of COCO results, checked against `truth`; an empty list is fine (and scores 0).

    source: a list or a path. needs: "bbox", or "segmentation" for masks. classes: False for proposals, whose
    category_id is not looked at. Raises EvaluationError, OSError.
    """
    name = _label(source, "the list of predictions")
    predictions = _load(source, name)
    if not isinstance(predictions, list):
        raise EvaluationError(
            f"{name} holds a {_kind(predictions)}; COCO results are a list of objects with image_id, "
            "category_id, bbox and score (were truth and predictions exchanged?)"
        )
    _check_objects(predictions, "prediction", name)
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    _check_known(predictions, "image_id", images, name, "prediction", "score each file against the truth of its images")
    if classes:
        _check_known(
            predictions, "category_id", categories, name, "prediction", "use the ids of the truth's categories"
        )
    _check_scores(predictions, name)
    if needs == "bbox":
        _check_boxes(predictions, name, "prediction")
    else:
        _check_masks(predictions, truth, name, "prediction")
    return predictions


def area_of(annotation: Entry) -> float:
    """An object's area as the file says it, else its box's."""
    area = annotation.get("area")
    return annotation["bbox"][2] * annotation["bbox"][3] if area is None else area


def class_names(truth: Truth) -> dict[int, str]:
    """Name of each category id, in the file's order; a missing name is the id, a repeated one gets its id."""
    names = {category["id"]: str(category.get("name", category["id"])) for category in truth["categories"]}
    uses = Counter(names.values())
    return {id_: f"{name} ({id_})" if uses[name] > 1 else name for id_, name in names.items()}


def _label(source: object, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _load(source: Any, name: str) -> Any:
    if not isinstance(source, (str, Path)):
        return list(source) if isinstance(source, tuple) else source
    try:
        with open(source, encoding="utf-8-sig") as file:  # some editors begin a file with a mark of its encoding
            return json.load(file)
    except FileNotFoundError:
        raise EvaluationError(f"{name} does not exist; give the path of a JSON file") from None
    except IsADirectoryError:
        raise EvaluationError(f"{name} is a directory; give the path of a JSON file") from None
    except json.JSONDecodeError as error:
        raise EvaluationError(
            f"{name} does not parse as JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "it may be cut short: write it again"
        ) from None
    except UnicodeDecodeError:
        raise EvaluationError(f"{name} is not a text file; give a JSON file") from None
    except ValueError as error:  # numbers of thousands of digits
        raise EvaluationError(f"{name} holds what Python does not read ({error}); correct it") from None


def _kind(value: object) -> str:
    kind = type(value).__name__
    return {"dict": "single object", "str": "string"}.get(kind, kind)


def _check_objects(entries: Sequence[Any], what: str, name: str) -> None:
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise EvaluationError(f"{name}: {what} {index} (counted from 0) is a {_kind(entry)}, not an object")


def _unique_ids(entries: Sequence[Any], what: str, name: str) -> set[int]:
    _check_objects(entries, what, name)
    ids: set[int] = set()
    for index, entry in enumerate(entries):
        id_ = entry.get("id")
        if not _is_integer(id_):
            raise EvaluationError(f"{name}: {what} {index} (counted from 0) has id {id_!r}; ids are whole numbers")
        if id_ in ids:
            raise EvaluationError(f"{name}: two entries have the {what} id {id_}; give each its own")
        ids.add(id_)
    return ids


def _check_known(entries: Sequence[Entry], key: str, known: set[int], name: str, what: str, mend: str) -> None:
    strangers = [
        (index, entry.get(key)) for index, entry in enumerate(entries) if not _hashable_in(entry.get(key), known)
    ]
    if not strangers:
        return
    index, first = strangers[0]
    where = f"{name}: {what} {index} (counted from 0)"
    if first is None:
        raise EvaluationError(f"{where} has no {key}; {mend}")
    if not _is_integer(first):
        raise EvaluationError(f"{where} has {key} {first!r}; write it as a whole number, as in the truth")
    advice = mend
    if key == "category_id":
        advice += _off_by_one({entry[key] for entry in entries if _is_integer(entry.get(key))}, known)
    raise EvaluationError(
        f"{where} has {key} {first}, which the truth does not list ({len(strangers)} of "
        f"{len(entries)} {what}s have such an id); {advice}"
    )


def _hashable_in(value: object, known: set[int]) -> bool:
    return _is_integer(value) and value in known


def _off_by_one(used: set[int], known: set[int]) -> str:
    """A hint where all ids would fit after one step up or down: the commonest reason for an mAP of 0."""
    for step, reason in ((1, "counted from 0"), (-1, "counted one too high")):
        if {id_ + step for id_ in used} <= known:
            return f": all of them fit after adding {step}, so the ids look {reason} (off by one)"
    if len(used) <= len(known) and used <= set(range(len(known) + 1)):
        return ": these look like places in the list of classes, which are to be mapped back to the ids"
    return ""


def _check_boxes(entries: Sequence[Entry], name: str, what: str) -> None:
    for index, entry in enumerate(entries):
        box = entry.get("bbox")
        where = f"{name}: {what} {index} (counted from 0, image_id {entry['image_id']})"
        if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(_is_number(value) for value in box):
            raise EvaluationError(f"{where} has bbox {box!r}; four numbers x, y, width, height in pixels are wanted")
        if not all(is_finite(value) for value in box):
            raise EvaluationError(
                f"{where} has a bbox that is not finite: {_shown(list(box))}; remove it, or look for the cause in what "
                "wrote it"
            )
        if box[2] < 0 or box[3] < 0:
            raise EvaluationError(
                f"{where} has a negative width or height: {list(box)}; a bbox is x, y, width, height, not two corners"
            )


def _check_scores(entries: Sequence[Entry], name: str) -> None:
    for index, entry in enumerate(entries):
        score = entry.get("score")
        if not is_finite(score):
            found = "has no score" if score is None else f"has score {_shown(score)}"
            raise EvaluationError(
                f"{name}: prediction {index} (counted from 0, image_id {entry['image_id']}) {found}; "
                "each prediction needs a finite number as its score (was the truth given in place of "
                "the predictions?)"
            )


def _check_sizes(images: Sequence[Entry], name: str) -> None:
    for index, image in enumerate(images):
        for side in ("width", "height"):
            value = image.get(side)
            if value is not None and not (is_finite(value) and value >= 0):
                raise EvaluationError(
                    f"{name}: image {index} (counted from 0) has {side} {_shown(value)}; write it as a number of "
                    "pixels, or leave it out"
                )


def _check_flags_and_areas(entries: Sequence[Entry], name: str) -> None:
    for index, entry in enumerate(entries):
        for flag in FLAGS:
            value = entry.get(flag)
            if value is not None and not (isinstance(value, Real) and value in (0, 1)):
                raise EvaluationError(
                    f"{name}: annotation {index} (counted from 0, image_id {entry['image_id']}) has {flag} "
                    f"{_shown(value)}; write 0 or 1 (a text such as '0' would count as a yes)"
                )
        area = entry.get("area")
        if area is not None and not (is_finite(area) and area >= 0):
            raise EvaluationError(
                f"{name}: annotation {index} (counted from 0, image_id {entry['image_id']}) has area {_shown(area)}; "
                "write it as a number of square pixels, or leave it out"
            )


def _check_masks(entries: Sequence[Entry], truth: Truth, name: str, what: str) -> None:
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in truth["images"]}
    for image_id in dict.fromkeys(entry["image_id"] for entry in entries):
        if not all(_is_integer(side) for side in sizes[image_id]):
            raise EvaluationError(
                f"{name}: the truth's image {image_id} has height x width {list(sizes[image_id])}; masks need "
                "both as whole numbers of pixels"
            )
    segmentations = [entry.get(MASKS) for entry in entries]
    fault = first_fault(segmentations, [sizes[entry["image_id"]] for entry in entries], polygons=what == "annotation")
    if fault is not None:
        index, told = fault
        raise EvaluationError(f"{name}: {what} {index} (counted from 0, image_id {entries[index]['image_id']}) {told}")


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """For a sentence: long ones shortened."""
    return reprlib.repr(value)


def none_for_nan(values: Iterable[tuple[str, float]]) -> dict[str, float | None]:
    """A dict fit for JSON: NaN ("no truth") becomes null."""
    return {key: None if math.isnan(value) else value for key, value in values}


def restrict(truth: Truth, predictions: Sequence[Entry], classes: Sequence[str]) -> tuple[Truth, list[Entry]]:
    """Truth and predictions of the named classes alone; all images stay. Raises EvaluationError for unknown names."""
    ids = {name: category_id for category_id, name in class_names(truth).items()}
    unknown = [name for name in classes if name not in ids]
    if unknown:
        raise EvaluationError(f"the truth has no class {', '.join(unknown)}; it has {', '.join(ids)}")
    kept = {ids[name] for name in classes}
    part = {
        **truth,
        "categories": [category for category in truth["categories"] if category["id"] in kept],
        "annotations": [entry for entry in truth["annotations"] if entry["category_id"] in kept],
    }
    return part, [entry for entry in predictions if entry["category_id"] in kept]
