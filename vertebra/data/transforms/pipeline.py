"""A pipeline of albumentations on an image and its truths, with draws that are keyed as all others are.

The package is imported where a pipeline is made: it takes seconds. Legend: G truths of an image, H W its height and
width. Steps are {Name: {argument: value}}, see vertebra.recipes.pipelines.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import random
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vertebra.ground.errors import DataError, RecipeError
from vertebra.ground.labels import IGNORED
from vertebra.ground.rle import Patch

FIELD = "input.albumentations"
INSTALL = "pip install 'albumentations>=1.4.24,<3'"
_NUMBERS = "makes other numbers of the pixels than 0 to 255, as which they go to the network, which scales them itself"
_REFUSED = {
    "Lambda": "calls a function, which no file can hold",
    "ReplayCompose": "writes down what it does, which nobody reads; Sequential does the same",
    **dict.fromkeys(("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D"), _NUMBERS),
}
_LEAST = 1.0  # pixels: a truth of which less is seen in height or width is dropped
_NO_BOXES = np.zeros((0, 4), np.float32)


class Augmented(NamedTuple):
    """places_G: of the truths that are left, among those that were given; boxes x0 y0 x1 y1, float32.

    labels_HW: of the pixels, uint8, IGNORED where steps have filled in what the image did not have; None: none given.
    """

    image_HW3: np.ndarray
    boxes_G4: np.ndarray
    places_G: np.ndarray
    masks_G: list[Patch]
    labels_HW: np.ndarray | None = None


class Pipeline:
    """Changes an image, uint8 RGB HW3, and its truths in step with it.

    text: JSON of the steps. truths: what is there to be changed, "bboxes" and "masks", or "mask" (the pixels' labels);
    steps that cannot are refused. Raises RecipeError.
    """

    def __init__(self, text: str, truths: Sequence[str] = ()) -> None:
        self._has_boxes = "bboxes" in truths
        self._compose = _Builder({"image", *truths}).whole(json.loads(text))

    def __call__(
        self,
        image_HW3: np.ndarray,
        rng: np.random.Generator,
        boxes_G4: np.ndarray = _NO_BOXES,
        masks_G: Sequence[Patch] = (),
        labels_HW: np.ndarray | None = None,
    ) -> Augmented:
        """boxes_G4: in the image. masks_G: of all boxes, or none. A truth of which nothing is left is dropped.

        Raises DataError where a step fails.
        """
        size_hw = image_HW3.shape[:2]
        places_G = np.flatnonzero((boxes_G4[:, 2:] - boxes_G4[:, :2] >= _LEAST).all(axis=1))
        data: dict[str, Any] = {"image": image_HW3}
        if self._has_boxes:
            data["bboxes"] = np.column_stack([boxes_G4[places_G], places_G]).astype(np.float32)
        if masks_G:
            data["masks"] = np.stack([patch.whole(size_hw) for patch in masks_G])
        if labels_HW is not None:
            data["mask"] = labels_HW + np.uint8(1)  # so that what is filled in, 0, is IGNORED and not the first class
        # One state for all steps: set_random_seed would give each the same draws, and all with one p would be applied
        # together or not at all.
        seed = int(rng.integers(1 << 63))
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            seen = self._compose(**data)
        except Exception as error:
            reason = f"a step fails on an image of {size_hw[1]} x {size_hw[0]} pixels ({_words(error)})"
            raise DataError(FIELD, reason, "change that step") from error
        image_HW3 = np.ascontiguousarray(seen["image"])
        if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
            reason = f"it makes {image_HW3.dtype} of shape {image_HW3.shape}, not an image of three colours, 0 to 255"
            raise DataError(FIELD, reason, "leave out the step that does so")
        # masks are not dropped with their boxes
        boxes_G5 = np.asarray(seen.get("bboxes", ()), np.float32).reshape(-1, 5)
        boxes_G4, places_G = boxes_G5[:, :4], boxes_G5[:, 4].astype(int)
        if labels_HW is not None:
            seen["mask"][seen["mask"] == IGNORED] = 0  # a fill_mask in the pipeline: no set has so many classes
            labels_HW = seen["mask"] - np.uint8(1)
        if not masks_G:
            return Augmented(image_HW3, boxes_G4, places_G, [], labels_HW)
        patches = [_patch(seen["masks"][place]) for place in places_G]
        left_G = [g for g, patch in enumerate(patches) if patch.bits_HW.size]
        return Augmented(image_HW3, boxes_G4[left_G], places_G[left_G], [patches[g] for g in left_G])


def _patch(mask_HW: np.ndarray) -> Patch:
    left, top, width, height = cv2.boundingRect(mask_HW)
    return Patch(top, left, mask_HW[top : top + height, left : left + width])


class _Builder:
    """Makes albumentations' objects of steps. targets: what they are to change."""

    def __init__(self, targets: set[str]) -> None:
        self.targets, self.library = targets, _albumentations()

    def whole(self, steps: Sequence[dict[str, Any]]) -> Any:
        """Return the Compose of these steps, or the one that is the only step (as albumentations.save has it)."""
        is_one = len(steps) == 1 and "Compose" in steps[0]
        args: dict[str, Any] = steps[0]["Compose"] if is_one else {"transforms": steps}
        args = {name: value for name, value in args.items() if value not in (None, [], {})}  # that is: not set
        for name in ("keypoint_params", "additional_targets", "seed"):
            if name in args:
                raise RecipeError(FIELD, f"its Compose has {name}, for which there is no use here", "leave that out")
        filters = args.pop("bbox_params", {})
        if "bboxes" in self.targets:
            try:
                boxes: Any = self.library.BboxParams(**{**filters, "format": "pascal_voc", "label_fields": None})
                boxes.min_width, boxes.min_height = max(_LEAST, boxes.min_width), max(_LEAST, boxes.min_height)
            except (TypeError, ValueError) as error:
                raise RecipeError(FIELD, f"its bbox_params cannot be used ({_words(error)})") from None
            args["bbox_params"] = boxes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slow steps, and of boxes that none of them changes
            return self.one("Compose", {"p": 1.0, "transforms": [], **args})

    def one(self, name: str, args: dict[str, Any]) -> Any:
        """Return that transform or composition. Raises RecipeError where it cannot be made, or cannot do its part."""
        if name in _REFUSED:
            raise RecipeError(FIELD, f"{name} {_REFUSED[name]}", "leave it out")
        kind = getattr(self.library, name, None)
        kinds = (self.library.BasicTransform, self.library.BaseCompose)
        if not isinstance(kind, type) or not issubclass(kind, kinds):
            known = [one for one, value in vars(self.library).items() if isinstance(value, type)]
            raise RecipeError(FIELD, f"albumentations has no {name}", _nearest(name, known))
        if "transforms" in args:
            args = args | {"transforms": [self.one(*item) for step in args["transforms"] for item in step.items()]}
        accepted = inspect.signature(kind).parameters
        others = {argument: value for argument, value in args.items() if argument not in accepted}
        try:
            made = _make(kind, {argument: value for argument, value in args.items() if argument in accepted})
        except Exception as error:
            if not others:
                raise RecipeError(FIELD, f"{name} cannot be made ({_words(error)})") from None
            made = None
        for argument, value in others.items():
            # albumentations.save writes attributes of parent classes too, which a transform does not take
            if json.loads(json.dumps(getattr(made, argument, object), default=str)) != value:
                hint = _nearest(argument, accepted)
                raise RecipeError(FIELD, f"{name} takes no argument {argument}", hint)
        if isinstance(made, self.library.BasicTransform):
            self._check(name, made)
        return made

    def _check(self, name: str, made: Any) -> None:
        if lacking := set(made.targets_as_params) - self.targets:
            reason = f"{name} needs {', '.join(sorted(lacking))}, which a reader of one image with its truths has not"
            raise RecipeError(FIELD, reason, "leave it out")
        changed = {"image"} if isinstance(made, self.library.ImageOnlyTransform) else self.targets
        if lacking := changed - made.available_keys:
            raise RecipeError(FIELD, f"{name} cannot change {', '.join(sorted(lacking))}", "leave it out")


def _albumentations() -> Any:
    # Its import would ask the network for updates; and its successor, of the same name, sends what pipelines do.
    for variable in ("NO_ALBUMENTATIONS_UPDATE", "ALBUMENTATIONS_NO_TELEMETRY"):
        os.environ.setdefault(variable, "1")
    try:
        import albumentations
    except ImportError as error:
        raise RecipeError(FIELD, f"needs albumentations, which cannot be imported ({error})", INSTALL) from None
    if not hasattr(albumentations, "BaseCompose") or not hasattr(albumentations.BaseCompose, "set_random_state"):
        raise RecipeError(FIELD, f"albumentations {albumentations.__version__} is too old", INSTALL)
    return albumentations


def _make(kind: type, args: dict[str, Any]) -> Any:
    """Return kind(**args). Where version 2 cannot read an argument it takes the defaults, unless it is strict."""
    if "transforms" not in args:
        try:
            return kind(**args, strict=True)
        except TypeError:  # one that checks nothing takes no such argument
            pass
    return kind(**args)


def _words(error: Exception) -> str:
    """Return what is wrong in a line; pydantic's faults without its advice."""
    cause = error.__cause__ or error
    if not hasattr(cause, "errors"):
        return " ".join(f"{type(error).__name__}: {error}".split())
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".lstrip(": ") for fault in cause.errors())


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""
