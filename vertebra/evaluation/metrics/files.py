"""Truth and predictions on disk: COCO JSON and COCO results JSON, read and checked.

Everything that scores goes through here, so that a file with a fault ends in one sentence that names the file, what
was found and how to fix it, and never in a figure that is quietly wrong. The rules are those of the readers of data
sets (`ground.rules`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic_core import to_json

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.ground import rules
from vertebra.ground.entries import MASKS, Entries, Entry, Report
from vertebra.ground.errors import UserError
from vertebra.ground.parse import parse_json

Truth = dict[str, Any]  # COCO JSON: images, annotations, categories
IouType = Literal["bbox", "segm"]
Difficult = Literal["ignore", "count"]  # difficult objects: neither to be found nor wrong to find, or as all others
NEEDS: dict[str, str] = {"bbox": "bbox", "segm": MASKS}  # what files must have of each object, by what the IoU is of

_TRUTH = "COCO truth is an object with images, annotations and categories"
_RESULTS = "COCO results are a list of objects with image_id, category_id, bbox and score"
_EXCHANGED = " (were truth and predictions exchanged?)"


class CheckedTruth(dict[str, Any]):
    """COCO JSON as `read_truth` has checked it, with its objects as columns; not to be changed.

    checked: which NEEDS it was checked for. Legend: I images, G objects in the file's order.
    """

    def __init__(self, truth: Truth):
        super().__init__(truth)
        self.checked: set[str] = set()

    @cached_property
    def image_id_I(self) -> IntArray:
        return np.array([image["id"] for image in self["images"]], np.int64)

    @cached_property
    def image_G(self) -> IntArray:
        """Return the place of each object's image."""
        return places_of(self._column("image_id", np.int64), self.image_id_I)

    @cached_property
    def class_G(self) -> IntArray:
        """Return the place of each object's class."""
        return places_of(self._column("category_id", np.int64), np.array(list(class_names(self)), np.int64))

    @cached_property
    def xywh_G4(self) -> FloatArray:
        return self._column("bbox", np.float64).reshape(-1, 4)

    @cached_property
    def area_G(self) -> FloatArray:
        return self._column("area", np.float64)

    @cached_property
    def crowd_G(self) -> BoolArray:
        return self._column("iscrowd", bool)

    @cached_property
    def difficult_G(self) -> BoolArray:
        return self._column("difficult", bool)

    def _column(self, key: str, dtype: type) -> Any:
        return np.array([entry.get(key) for entry in self["annotations"]], dtype)


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Entry]):
    """Predictions as columns; each is also a COCO result.

    category_id_K: None of proposals. xywh_K4: None where not all have a box. masks_K: RLE, None where none has any.
    truth, checked: what `read_predictions` has checked them against, and for which NEEDS. parts: their JSON in pieces,
    where it was made as they were predicted. Legend: K predictions in the file's order.
    """

    image_id_K: IntArray
    category_id_K: IntArray | None
    score_K: FloatArray
    xywh_K4: FloatArray | None
    masks_K: list[Any] | None
    truth: CheckedTruth | None = None
    checked: frozenset[str] = frozenset()
    parts: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.score_K)

    def __iter__(self) -> Iterator[Entry]:
        columns = {
            "image_id": self.image_id_K.tolist(),
            "category_id": None if self.category_id_K is None else self.category_id_K.tolist(),
            "bbox": None if self.xywh_K4 is None else self.xywh_K4.tolist(),
            "score": self.score_K.tolist(),
            MASKS: self.masks_K,
        }
        names = [name for name, column in columns.items() if column is not None]
        for values in zip(*(columns[name] for name in names)):
            entry = dict(zip(names, values))
            if self.masks_K is not None and entry[MASKS] is None:
                del entry[MASKS]
            yield entry

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[k] for k in range(*place.indices(len(self)))]
        (entry,) = self.at(np.array([range(len(self))[place]]))
        return entry

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Predictions):
            return isinstance(other, Sequence) and list(self) == list(other)
        arrays = ("image_id_K", "category_id_K", "score_K", "xywh_K4")
        return self.masks_K == other.masks_K and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    def at(self, places: IntArray) -> Predictions:
        """Return those at these places of the list, checked for as much as all."""
        return replace(
            self,
            image_id_K=self.image_id_K[places],
            category_id_K=None if self.category_id_K is None else self.category_id_K[places],
            score_K=self.score_K[places],
            xywh_K4=None if self.xywh_K4 is None else self.xywh_K4[places],
            masks_K=None if self.masks_K is None else [self.masks_K[k] for k in places.tolist()],
            parts=(),
        )

    def write(self, file: BinaryIO) -> None:
        """Write them as a list in JSON."""
        file.writelines((b"[", b",".join(filter(None, self.parts or [to_json(list(self))[1:-1]])), b"]\n"))

    @property
    def have_masks(self) -> bool:
        """Return whether each has one in RLE, as COCO results have it."""
        return not len(self) or (self.masks_K is not None and all(isinstance(mask, dict) for mask in self.masks_K))


def places_of(ids_K: IntArray, listed: IntArray) -> IntArray:
    """Return the place of each id in a list that has it."""
    order = np.argsort(listed, kind="stable")
    return order[np.searchsorted(listed, ids_K, sorter=order)]


def read_truth(source: Truth | str | Path, *, needs: str = "bbox") -> CheckedTruth:
    """Return the truth as a COCO JSON dict, checked; a path is read, a dict is never changed.

    Asked for: `images` (id), `categories` (id, name), `annotations` (image_id, category_id, bbox xywh);
    `iscrowd` and `difficult` (0 or 1), `area` and images' `width` and `height` may be missing or null. needs:
    "segmentation" asks for a mask of every object too. A missing area is the mask's, else the box's. What was written
    otherwise than it was read (numbers as texts) is corrected. What was checked before is returned as it is. Raises
    UserError on anything else, OSError where the file is not readable.
    """
    if isinstance(source, CheckedTruth) and needs in source.checked:
        return source
    name = _label(source, "the truth")
    truth = _load(source, name)
    if not isinstance(truth, dict):
        raise UserError(name, f"is a {_kind(truth)}", _TRUTH + _EXCHANGED)
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth.get(key), list):
            raise UserError(name, f"has no list '{key}'", _TRUTH)
    images, categories, annotations = (
        Entries(what, truth[key], _raising(name))
        for what, key in (("image", "images"), ("category", "categories"), ("annotation", "annotations"))
    )
    image_ids = images.ids()
    categories.ids()
    categories.column("name", rules.texts)
    sizes = zip(images.column("height", rules.sides), images.column("width", rules.sides))
    size_of = dict(zip(image_ids, sizes))
    owners = annotations.known("image_id", images, "the truth", lambda _: "list the image or remove the annotation")
    hint = "list the category or correct the id"
    annotations.known("category_id", categories, "the truth", lambda used: hint + _off_by_one(used, categories.id_K))
    xywh_K4 = annotations.boxes()
    for flag in rules.FLAGS:
        annotations.column(flag, rules.flags)
    if needs == MASKS:
        _check_masks(annotations, owners, size_of, name, polygons=True)
    annotations.areas(xywh_K4, [size_of[image_id] for image_id in owners])
    checked = source if isinstance(source, CheckedTruth) else CheckedTruth(truth)
    for key, table in (("images", images), ("categories", categories), ("annotations", annotations)):
        if table.read:
            checked[key] = table.corrected()
    checked.checked |= {"bbox", needs}
    return checked


def read_predictions(
    source: Sequence[Entry] | str | Path,
    truth: Truth,
    *,
    needs: str = "bbox",
    classes: bool = True,
    dropped: Callable[[str], None] | None = None,
) -> Predictions:
    """Return predictions, checked against `truth`; an empty list is fine (and scores 0).

    source: a list of COCO results or a path, also to detectron2's instances_predictions.pth. needs: "bbox", or
    "segmentation" for masks. classes: False for proposals, whose category_id is not read. dropped: those whose score,
    box or mask is none are left out, and this is told why
    and how many. What was checked before, against the same truth, is returned as it is. Raises UserError, OSError.
    """
    truth = read_truth(truth)
    if isinstance(source, Predictions):
        if source.truth is truth and needs in source.checked:
            return source
        if needs == "bbox" and _fit(source, truth):
            return replace(source, truth=truth, checked=frozenset({needs}))
    name = _label(source, "the list of predictions")
    if isinstance(source, (str, Path)) and Path(source).suffix == ".pth":
        found = _detectron2_instances(Path(source), truth)
    else:
        found = _load(source, name)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise UserError(name, f"is a {_kind(found)}", _RESULTS + _EXCHANGED)
    predictions = Entries("prediction", list(found), _raising(name))
    images, categories = (Entries(key, truth[key], _raising(name)) for key in ("images", "categories"))
    images.ids()
    owners = predictions.known("image_id", images, "the truth", lambda _: "score each file against its images' truth")
    category_ids: list[Any] | None = None
    if classes:
        hint = "use the ids of the truth's categories"
        known = categories.ids()
        category_ids = predictions.known(
            "category_id", categories, "the truth", lambda used: hint + _off_by_one(used, known)
        )
    if dropped is not None:
        predictions.report = lambda entry, reason, _: dropped(f"{name}: left out, as asked for: {entry}: {reason}")
    else:
        invalid = "; score.py --drop-invalid leaves such out"
        predictions.report = lambda entry, reason, hint: _raising(name)(entry, reason, hint + invalid)
    score_K = predictions.column("score", rules.scores, required=True)
    masks = predictions.values(MASKS)
    if needs == MASKS:
        size_of = {image["id"]: (image.get("height"), image.get("width")) for image in truth["images"]}
        _check_masks(predictions, owners, size_of, name, polygons=False)
        xywh_K4 = rules.boxes(predictions.values("bbox")).values  # of no concern, so that what is none is not refused
    else:
        xywh_K4 = predictions.boxes()
    good_K = predictions.good_K
    return Predictions(
        np.array(predictions.good(owners), np.int64),
        None if category_ids is None else np.array(predictions.good(category_ids), np.int64),
        score_K[good_K],
        None if np.isnan(xywh_K4[good_K]).any() else xywh_K4[good_K],
        predictions.good(masks) if masks.count(None) < len(masks) else None,
        truth,
        frozenset({needs}),
    )


def class_names(truth: Truth) -> dict[int, str]:
    """Return each category id's name, in the file's order; a missing name is the id, a repeated one gets its id."""
    names = {category["id"]: str(category.get("name", category["id"])) for category in truth["categories"]}
    uses = Counter(names.values())
    return {id_: f"{name} ({id_})" if uses[name] > 1 else name for id_, name in names.items()}


def restrict(truth: Truth, predictions: Predictions, classes: Sequence[str]) -> tuple[CheckedTruth, Predictions]:
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
    needs = MASKS if MASKS in predictions.checked else "bbox"
    assert predictions.category_id_K is not None
    found = predictions.at(np.flatnonzero(np.isin(predictions.category_id_K, list(kept))))
    checked = read_truth(part, needs=needs)
    return checked, replace(found, truth=checked)


def _fit(found: Predictions, truth: CheckedTruth) -> bool:
    """Return whether nothing is wrong with these boxes of classes; what is, and where, the entries say one by one."""
    ids_K, xywh_K4 = found.category_id_K, found.xywh_K4
    return (
        ids_K is not None
        and xywh_K4 is not None
        and bool(np.isin(found.image_id_K, truth.image_id_I).all() and np.isin(ids_K, list(class_names(truth))).all())
        and bool(np.isfinite(found.score_K).all() and np.isfinite(xywh_K4).all())
        and not rules.have_negative_sides(xywh_K4).any()
    )


def _label(source: object, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _load(source: Any, name: str) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    try:
        return parse_json(Path(source).read_bytes())
    except FileNotFoundError:
        raise UserError(name, "does not exist", "give the path of a JSON file") from None
    except IsADirectoryError:
        raise UserError(name, "is a directory", "give the path of a JSON file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UserError(name, f"does not parse as JSON ({place})", "it may be cut short: write it again") from None
    except UnicodeDecodeError:
        raise UserError(name, "is not a text file", "give a JSON file") from None
    except ValueError as error:  # nested too deeply, or a number of thousands of digits
        raise UserError(name, f"cannot be read ({error})", "give a file of predictions or truth") from None


def _detectron2_instances(path: Path, truth: Truth) -> list[Entry]:
    """Return the COCO results in detectron2's instances_predictions.pth, whose classes count from 0."""
    import pickle

    import torch  # here, as JSON needs none

    ids = sorted(category["id"] for category in truth["categories"])
    try:
        images = torch.load(path, weights_only=True)
        results = [entry for image in images for entry in image["instances"]]
        return [{**entry, "category_id": ids[entry["category_id"]]} for entry in results]
    except FileNotFoundError:
        raise UserError(path, "does not exist", "give the path of a file of predictions") from None
    except IndexError:
        raise UserError(path, f"has more classes than the truth's {len(ids)}", "give it with its own truth") from None
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
        fault = f"is not detectron2's instances_predictions.pth ({type(error).__name__})"
        raise UserError(path, fault, "give that, or coco_instances_results.json") from None


def _kind(value: object) -> str:
    kind = type(value).__name__
    return {"dict": "single object", "str": "string"}.get(kind, kind)


def _raising(name: str) -> Report:
    def report(entry: str, reason: str, hint: str) -> None:
        raise UserError(f"{name}: {entry}", reason, hint)

    return report


def _check_masks(
    entries: Entries, owners: Sequence[int], size_of: dict[int, tuple[Any, Any]], name: str, *, polygons: bool
) -> None:
    """polygons: may stand in place of RLE."""
    for image_id in dict.fromkeys(owners):
        if not all(map(rules.is_whole, size_of[image_id])):
            reason = f"height x width {list(size_of[image_id])} of the truth's image {image_id} are not whole numbers"
            raise UserError(name, reason, "masks need both, in pixels")
    entries.masks([size_of[image_id] for image_id in owners], required=True, polygons=polygons)


def _off_by_one(used: set[int], listed: Sequence[int]) -> str:
    """Return a hint where all ids would fit after one step up or down: the commonest reason for an mAP of 0."""
    known = set(listed)
    for step, reason in ((1, "counted from 0"), (-1, "counted one too high")):
        if {id_ + step for id_ in used} <= known:
            return f": all of them fit after adding {step}, so the ids look {reason} (off by one)"
    if len(used) <= len(known) and used <= set(range(len(known) + 1)):
        return ": these look like places in the list of classes, which are to be mapped back to the ids"
    return ""
