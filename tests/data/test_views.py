"""Views of images at test: cut where they should be, grouped by size, each image once; images without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.writers import paths, picture, write_folders, write_picture
from vertebra.data.datasets.catalog import open_classification, open_unlabelled
from vertebra.data.loading.decode import decode_image
from vertebra.data.loading.sampling import Share
from vertebra.data.loading.views import BATCH_BYTES, Crops, Whole, images_at_once, view_loader
from vertebra.data.transforms.geometry import centre_crop, resize_shorter
from vertebra.ground.errors import DataError

SIZES = [(40, 60), (60, 40), (40, 60), (50, 50), (400, 700)]


@pytest.fixture
def folders(tmp_path: Path):
    for number, (height, width) in enumerate(SIZES):
        write_picture(tmp_path / "val" / "ant" / f"{number}.jpg", height, width, number)
    return open_classification(tmp_path, "val")


def test_five_crops_are_the_corners_and_the_centre():
    image = resize_shorter(picture(50, 83), 40)
    crops = Crops(32, 40, corners=True)(picture(50, 83))
    height, width = image.shape[:2]
    expected = [image[:32, :32], image[:32, -32:], image[-32:, :32], image[-32:, -32:]]
    top, left = (height - 32) // 2, (width - 32) // 2
    expected.append(image[top : top + 32, left : left + 32])
    assert np.array_equal(crops, np.stack(expected))
    assert np.array_equal(Crops(32, 40)(picture(50, 83))[0], centre_crop(picture(50, 83), 32, 40))


def test_a_crop_fits_into_the_image():
    with pytest.raises(DataError, match="resize 32 is below the crop's size 40; set it to 40 or more"):
        Crops(40, 32)


def test_whole_images_come_in_groups_of_one_size_and_none_is_lost(folders):
    views = (Crops(24, 32, corners=True), Whole(32))
    (batch,) = view_loader(folders, views, Share(batch=8))
    looks, labels_N = batch.inputs
    assert len(looks) == len(labels_N) == 5 and batch.image_ids == (0, 1, 2, 3, 4)
    crops, whole = looks.groups
    assert [group.rows_n.tolist() for group in crops] == [[0, 1, 2, 3, 4]]
    assert crops[0].pixels_nV3HW.shape == (5, 5, 3, 24, 24)
    assert [group.rows_n.tolist() for group in whole] == [[0, 2], [1], [3], [4]]
    for group in whole:
        for row, pixels_V3HW in zip(group.rows_n.tolist(), group.pixels_nV3HW):
            shrink = 8 if row == 4 else 1
            image = resize_shorter(decode_image(folders.path(row), shrink=shrink), 32)
            assert np.array_equal(pixels_V3HW[0].permute(1, 2, 0), image)


def test_a_view_is_the_same_whatever_it_is_read_beside(folders):
    alone = next(iter(view_loader(folders, [Crops(24, 32)], Share(batch=8)))).inputs[0].groups[0]
    beside = next(iter(view_loader(folders, [Whole(300), Crops(24, 32)], Share(batch=8)))).inputs[0].groups[1]
    assert torch.equal(alone[0].pixels_nV3HW, beside[0].pixels_nV3HW)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_read_once_over_all_processes(folders, workers):
    read = [
        image_id
        for rank in range(3)
        for batch in view_loader(folders, [Whole(32)], Share(batch=2, rank=rank, world_size=3, workers=workers))
        for image_id in batch.image_ids
    ]
    assert sorted(read) == [0, 1, 2, 3, 4]


def test_a_batch_stays_small_however_large_its_views():
    paper = [Whole(side) for side in (224, 256, 384, 480, 640)]
    assert images_at_once([Crops(224, 256)], 64) == 64
    assert 1 < images_at_once(paper, 64) < 64
    assert images_at_once([Whole(20000)], 64) == 1
    assert images_at_once(paper, 64) * sum(3 * view.usual_pixels for view in paper) <= BATCH_BYTES


def test_unlabelled_images_stand_in_the_order_of_their_names(tmp_path: Path):
    for name in ("b.png", "a.jpg", "c.JPEG"):
        write_picture(tmp_path / "test" / name, 20, 20)
    (tmp_path / "test" / "list.txt").write_text("")
    for root in (tmp_path, tmp_path / "test"):
        dataset = open_unlabelled(root, "test")
        assert list(dataset.file_names) == ["a.jpg", "b.png", "c.JPEG"]
        assert dataset.labels_I.tolist() == [-1, -1, -1] and dataset.class_names == ()
        assert all(path.is_file() for path in paths(dataset))


def test_a_folder_without_images_is_named(tmp_path: Path):
    write_folders(tmp_path, {"ant": 1})
    with pytest.raises(DataError, match=r"no images in it; unlabelled images are to lie in the folder itself"):
        open_unlabelled(tmp_path, "test")
    with pytest.raises(DataError, match="nowhere: no such directory"):
        open_unlabelled(tmp_path / "nowhere", "test")
