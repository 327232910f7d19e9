"""The same images at several sizes are to the bit what loaders of one size each give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.writers import write_voc
from vertebra.build import detection_data
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.loading.detection import at_several_sizes, detection_test_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.canvases import FixedView
from vertebra.engine.distributed import World
from vertebra.recipes.schema_detection import DetectionRecipe


@pytest.fixture
def voc(tmp_path: Path):
    """Seven images, the first large enough to be decoded shrunken."""
    sizes_hw = [(600, 800), (80, 60), (60, 90), (60, 80), (90, 60), (70, 70), (60, 80)]
    images = {f"{number:06}": [("dog", 5, 10, 30, 40, 0)] for number in range(7)}
    write_voc(tmp_path / "VOCdevkit", images, sizes_hw=sizes_hw)
    return open_detection(tmp_path, "voc2007/trainval")


def recipe(**test: object) -> DetectionRecipe:
    view = {"test_shorter_side": 64, "longer_side": 96}
    return DetectionRecipe.model_validate({"input": view, "test": {"batch_size": 3, **test}, "workers": 0})


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_those_of_a_loader_of_that_size_alone(voc, workers: int) -> None:
    settings = recipe(multi_scale=(128, 32, 64)).model_copy(update={"workers": workers})
    batches = list(detection_data.detection_test_loader(settings, voc, World()))
    alone = {}
    for side, longer in ((64, 96), (32, 48), (128, 192)):
        alone[side] = list(detection_test_loader(voc, FixedView(side, longer), Share(batch=3)))
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        images, targets = batch.inputs
        assert len(images.other_scales) == 2
        for one, side in zip((images, *images.other_scales), (64, 32, 128)):
            expected, truth = alone[side][number].inputs
            assert torch.equal(one.pixels_N3HW, expected.pixels_N3HW) and one.sizes_hw == expected.sizes_hw
            assert torch.equal(one.sizes_hw_N2, expected.sizes_hw_N2)
            if side == 64:
                assert torch.equal(targets.boxes_NG4, truth.boxes_NG4) and targets.image_ids == truth.image_ids


def test_all_sizes_move_to_the_device_together(voc) -> None:
    images, _ = next(iter(detection_data.detection_test_loader(recipe(multi_scale=(64, 32)), voc, World()))).inputs
    moved = images.to("meta")
    assert moved.other_scales[0].pixels_N3HW.device.type == "meta" and moved.other_scales[0].sizes_hw_N2.is_meta
    assert moved.other_scales[0].sizes_hw == images.other_scales[0].sizes_hw


def test_two_processes_together_see_each_image_once_at_all_sizes(voc) -> None:
    settings = recipe(multi_scale=(64, 32))
    ids = []
    for rank in range(2):
        for batch in detection_data.detection_test_loader(settings, voc, World(rank=rank, size=2)):
            assert len(batch.inputs[0].other_scales) == 1
            ids += batch.image_ids
    assert sorted(ids) == sorted(int(image_id) for image_id in voc.image_ids_I)


def test_loaders_of_different_images_are_not_put_together(voc) -> None:
    few, all_ = (detection_test_loader(voc, FixedView(64, 96), Share(batch=3, limit=limit)) for limit in (2, None))
    with pytest.raises(ValueError, match="different images"):
        at_several_sizes([few, all_])
