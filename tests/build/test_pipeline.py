"""A recipe's pipeline of albumentations reaches the batches of training, and no others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.data.test_segmentation_loading import make_charts
from tests.data.writers import write_coco, write_folders, write_picture
from vertebra.build import build_localisation, classification_data, detection_data
from vertebra.build import segmenter as segmentation_data
from vertebra.data.sample.locations import write_locations
from vertebra.engine.distributed import World
from vertebra.recipes.schema import BackboneRecipe
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
pytest.importorskip("albumentations")
INVERT = [{"InvertImg": {"p": 1.0}}]
SOLVER = {"batch_size": 4, "iterations": 2}


def classifier(root: Path, **view: Any) -> tuple[Any, Any]:
    """The loaders of training and test of a recipe with that view; so of the others below."""
    for split in ("train", "val"):
        write_folders(root / "classes", {"ant": 5, "bee": 4}, split)
    view = {"size": 32, "resize": 48, "augment": "none", "flip": 0.0, **view}
    recipe = BackboneRecipe(data=root / "classes", workers=0, input=view, solver=SOLVER)
    train, test = (classification_data.open_classes(recipe, split) for split in ("train", "val"))
    loader = classification_data.class_train_loader(recipe, train, World(), start=0, iterations=2)
    return loader, classification_data.class_test_loader(recipe, test, World())


def detector(root: Path, **view: Any) -> tuple[Any, Any]:
    for number in range(4):
        write_picture(root / f"{number}.png", 60, 80, number)
    one = {"bbox": [10, 10, 40, 30]}
    write_coco(root, {f"{n}.png": (60, 80) for n in range(4)}, [{**one, "image_id": n + 1} for n in range(4)])
    source = {"train_source": "json:ann.json", "test_source": "json:ann.json"}
    view = {"shorter_side": (48,), "test_shorter_side": 48, "longer_side": 96, "flip": 0.0, **view}
    recipe = DetectionRecipe(dataset="json", data=root, workers=0, input=view, solver=SOLVER, **source)
    train, test = detection_data.open_train(recipe), detection_data.open_test(recipe)
    loader = detection_data.detection_train_loader(recipe, train, World(), start=0, iterations=2)
    return loader, detection_data.detection_test_loader(recipe, test, World())


def localizer(root: Path, **view: Any) -> tuple[Any, Any]:
    if not (root / "located").exists():
        write_locations(root / "located", counts=(12, 10))
    view = {"size": 32, "resize": 48, "augment": "none", "flip": 0.0, **view}
    recipe = LocalisationRecipe(data=root / "located", workers=0, input=view, solver=SOLVER)
    train, test = build_localisation.open_train(recipe), build_localisation.open_test(recipe)
    loader = build_localisation.location_train_loader(recipe, train, World(), start=0, iterations=2)
    return loader, build_localisation.location_test_loader(recipe, test, World())


def segmenter(root: Path, **view: Any) -> tuple[Any, Any]:
    make_charts(root / "charts", ".png")
    source = f"maps:{root / 'charts'}/train"
    view = {"crop": (200, 200), "scale": (1.0, 1.0), "flip": 0.0, **view}
    recipe = SegmentationRecipe(
        dataset="maps", data=root, train_source=source, test_source=source, workers=0, input=view, solver=SOLVER
    )
    train, test = segmentation_data.open_train(recipe), segmentation_data.open_test(recipe)
    loader = segmentation_data.train_loader(recipe, train, World(), start=0, iterations=2)
    return loader, segmentation_data.test_loader(recipe, test, World())


def pixels(batch: Any) -> Any:
    first = batch.inputs[0]
    if hasattr(first, "groups"):
        return first.groups[0][0].pixels_nV3HW.int()
    return (first.pixels_N3HW if hasattr(first, "pixels_N3HW") else first).int()


@pytest.mark.parametrize("kind", [classifier, detector, localizer, segmenter])
def test_training_sees_what_the_pipeline_makes_and_the_test_does_not(tmp_path: Path, kind):
    """The pipeline's own draw is one more before the view's, but here the view has none."""
    same_size = {"resize": 32} if kind is classifier else {}
    plain, changed = kind(tmp_path, **same_size), kind(tmp_path, albumentations=INVERT, **same_size)
    for one, other in zip(plain[0], changed[0], strict=True):
        assert one.image_ids == other.image_ids
        seen = pixels(one) > 0  # a detector's canvas is black beside its images
        off = (255 - pixels(one) - pixels(other)).abs()[seen]
        assert off.numel() and off.float().mean() < 3  # a localizer's is decoded small where there is no pipeline
    for one, other in zip(plain[1], changed[1], strict=True):
        assert (pixels(one) == pixels(other)).all()


def test_a_crop_of_the_pipelines_own_is_not_cropped_again(tmp_path: Path):
    crop = [{"CenterCrop": {"height": 32, "width": 32, "p": 1.0}}]
    loader, _ = classifier(tmp_path, albumentations=crop, resident="no")
    dataset = loader.reader.dataset
    for batch in loader:
        for image_HW3, index in zip(batch.inputs[0].permute(0, 2, 3, 1).numpy(), batch.image_ids):
            whole = cv2.imread(str(dataset.path(index)), cv2.IMREAD_COLOR_RGB)
            top, left = (side // 2 - 16 for side in whole.shape[:2])
            assert (image_HW3 == whole[top : top + 32, left : left + 32]).all()
