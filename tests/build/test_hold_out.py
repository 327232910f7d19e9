"""What is held out of the training images for validation, and what a sweep does to the protocol."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from vertebra.build import detection_data, segmenter
from vertebra.build.hold_out import is_held_out
from vertebra.recipes.schema import protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe


@pytest.fixture
def forty_images(tmp_path) -> DetectionRecipe:
    """A COCO set of 40 images, each with one object."""
    images = [{"id": 7 * i + 1, "file_name": f"{i}.jpg", "width": 20, "height": 20} for i in range(40)]
    objects = [
        {"id": i + 1, "image_id": image["id"], "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
        for i, image in enumerate(images)
    ]
    for image in images:
        (tmp_path / image["file_name"]).touch()
    square = {"segmentation": [[1, 1, 10, 1, 10, 10, 1, 10]]}
    categories = [{"id": 1, "name": "thing"}]
    for name in ("a", "b"):
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"images": images, "annotations": [one | square for one in objects], "categories": categories})
        )
    sources = {"train_source": f"json:{tmp_path / 'a.json'}", "test_source": f"json:{tmp_path / 'b.json'}"}
    return DetectionRecipe(dataset="json", data=tmp_path, validation=0.25, **sources)


def test_held_out_images_are_tested_on_and_never_trained_on(forty_images):
    trained, tested = detection_data.open_train(forty_images), detection_data.open_test(forty_images)
    ids = [set(one.image_ids_I.tolist()) for one in (trained, tested)]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 40 and 0 < len(ids[1]) < 20
    whole = detection_data.open_train(forty_images.model_copy(update={"validation": 0.0}))
    assert len(whole) == 40
    assert len({trained.fingerprint(), tested.fingerprint(), whole.fingerprint()}) == 3
    assert len(tested.coco_truth()["annotations"]) == len(tested), "with their objects"


def test_a_segmenter_holds_out_the_images_that_a_detector_does(forty_images):
    same = forty_images.model_dump(include={"data", "validation", "train_source", "test_source"})
    recipe = SegmentationRecipe(dataset="maps", **same)
    for opened in ("open_train", "open_test"):
        ids_I = getattr(segmenter, opened)(recipe).image_ids_I
        assert ids_I.tolist() == getattr(detection_data, opened)(forty_images).image_ids_I.tolist()
    assert len(segmenter.open_test(recipe.model_copy(update={"validation": 0.0}))) == 40


def test_who_is_held_out_depends_on_the_image_alone():
    ids = np.random.default_rng(0).permutation(20_000)
    held = dict(zip(ids.tolist(), is_held_out(ids.tolist(), 0.1).tolist()))
    assert 0.09 < np.mean(list(held.values())) < 0.11
    some = ids[:100].tolist()
    assert is_held_out(some, 0.1).tolist() == [held[one] for one in some]
    more = is_held_out(some, 0.3)
    assert all(more[held_already] for held_already in np.flatnonzero(is_held_out(some, 0.1))), "a greater share adds"


def test_a_share_that_leaves_nothing_is_a_sentence(forty_images):
    with pytest.raises(ValueError, match=r"--validation 1e-09 of its 40 images leaves none to test on"):
        detection_data.open_test(forty_images.model_copy(update={"validation": 1e-9}))


def test_the_sweep_is_protocol_and_the_value_that_it_chose_is_not():
    def protocol(lr: float, **fields) -> dict:
        return protocol_fields(DetectionRecipe.model_validate({"solver": {"lr": lr}, **fields}))

    grid = "solver.lr: 0.01 0.02, best AP on 0.1 of the training images, seed 0"
    swept = protocol(0.01, sweep=grid)
    assert swept == protocol(0.02, sweep=grid) and swept["sweep"] == grid and "solver.lr" not in swept
    assert swept != protocol(0.01, sweep=grid.replace("0.02", "0.04"))
    assert protocol(0.01) != protocol(0.02)
    assert {"sweep", "validation"}.isdisjoint(protocol(0.01)), "runs from before these fields stay comparable"
    assert protocol(0.01, validation=0.1)["validation"] == 0.1


def test_a_sweep_of_nothing_is_refused():
    with pytest.raises(ValidationError, match=r"sweep names solver\.lrr, which is no field of this recipe"):
        DetectionRecipe(sweep="solver.lrr: 1 2, best AP")
