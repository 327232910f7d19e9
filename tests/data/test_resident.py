"""Images on the device: the same batches and views as the worker loader's, bad images named, what auto chooses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.data.batches import assert_processes_share, assert_same
from tests.data.writers import write_folders, write_picture
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.data.loading.classification import classification_test_loader, classification_train_loader
from vertebra.data.loading.decode import decode_image
from vertebra.data.loading.resident import (
    ITERATIONS_AT_ONCE,
    ResidentLoader,
    draw_views,
    is_small,
    read_resident,
    resident_test_loader,
    resident_train_loader,
)
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.classification_views import ClassificationTransform, Mixing
from vertebra.data.transforms.geometry import centre_crop, pad_crop
from vertebra.ground.errors import BadSample, DataError

SIZE, PAD = 32, 4


class Drawn:
    """In the place of a generator: gives pad_crop the offsets that were drawn elsewhere."""

    def __init__(self, top: int, left: int) -> None:
        self.offsets = np.array([top, left])

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        assert low <= self.offsets.min() and self.offsets.max() < high and count == 2
        return self.offsets


def in_memory(images: int, side: int = SIZE) -> ClassificationDataset:
    rng = np.random.default_rng(3)
    pixels_IHW3 = rng.integers(0, 256, (images, side, side, 3), np.uint8)
    labels_I = rng.integers(0, 3, images)
    return ClassificationDataset(
        Path("cifar"), "train", ("a", "b", "c"), Strings(map(str, range(images))), labels_I, pixels_IHW3=pixels_IHW3
    )


def train_loader(dataset: ClassificationDataset, share: Share, **options: Any) -> ResidentLoader:
    return resident_train_loader(read_resident(dataset, size=SIZE), share, **options)


def test_each_view_is_pad_crop_of_its_image_at_the_drawn_offsets():
    dataset = in_memory(23)
    start, stop = ITERATIONS_AT_ONCE - 3, ITERATIONS_AT_ONCE + 3  # over the border of two blocks of draws
    seen = 0
    for batch in train_loader(dataset, Share(batch=8, start=start, stop=stop, seed=5), augment="pad", flip=0.5):
        block, place = divmod(batch.iteration, ITERATIONS_AT_ONCE)
        views_B3 = draw_views(5, block, 8, pad=PAD, augment="pad", flip=0.5)[place]
        pixels_N3HW, labels_N = batch.inputs
        assert labels_N.tolist() == dataset.labels_I[list(batch.image_ids)].tolist()
        assert pixels_N3HW.is_contiguous(memory_format=torch.channels_last)
        for pixels_3HW, image, (top, left, mirrored) in zip(pixels_N3HW, batch.image_ids, views_B3):
            expected_HW3 = pad_crop(dataset.pixels_IHW3[image], SIZE, Drawn(top - PAD, left - PAD))
            expected_HW3 = expected_HW3[:, ::-1] if mirrored else expected_HW3
            assert np.array_equal(pixels_3HW.permute(1, 2, 0).numpy(), expected_HW3)
            seen += 1
    assert seen == 6 * 8


def test_offsets_and_mirroring_are_drawn_evenly():
    views_M3 = draw_views(0, 0, 256, pad=PAD, augment="pad", flip=0.25).reshape(-1, 3)
    for column in (0, 1):
        counts = np.bincount(views_M3[:, column], minlength=9)
        assert len(counts) == 9 and np.all(abs(counts / len(views_M3) - 1 / 9) < 0.01)
    assert abs(views_M3[:, 2].mean() - 0.25) < 0.02
    assert not np.array_equal(views_M3, draw_views(0, 1, 256, pad=PAD, augment="pad", flip=0.25).reshape(-1, 3))


def test_batches_have_the_worker_loaders_images_and_a_resumed_run_the_same_views():
    dataset = in_memory(50)
    share, view = Share(batch=8, seed=2, stop=2 * ITERATIONS_AT_ONCE), {"augment": "pad", "flip": 0.5}
    whole = list(train_loader(dataset, share, **view))
    workers = classification_train_loader(dataset, ClassificationTransform(size=SIZE, shorter=SIZE), share)
    assert [batch.image_ids for batch in whole] == [batch.image_ids for batch in workers]
    resumed = list(train_loader(dataset, replace(share, start=70), **view))
    assert_same(whole[70:], resumed)


@pytest.mark.parametrize("train", [True, False])
def test_two_processes_together_have_what_one_has(train: bool):
    images = read_resident(in_memory(22), size=SIZE)

    def loader(**share: int) -> ResidentLoader:
        if train:
            return resident_train_loader(images, Share(batch=4, stop=7, **share), augment="pad", flip=0.5)
        return resident_test_loader(images, Share(batch=4, **share))

    assert_processes_share(loader)


def test_at_test_each_image_comes_once_and_as_it_is(tmp_path: Path):
    dataset = open_classification(write_folders(tmp_path, {"ant": 7, "bee": 6}), "train")  # 48 x 64 pixels
    share = Share(batch=5, limit=11)
    here = list(resident_test_loader(read_resident(dataset, size=SIZE, resize=36), share))
    there = list(classification_test_loader(dataset, ClassificationTransform(size=SIZE, shorter=36), share))
    assert [len(batch) for batch in here] == [5, 5, 1]
    assert_same(here, there)


def test_a_bad_image_is_replaced_and_named_in_training_and_an_error_at_test(tmp_path: Path):
    dataset = open_classification(write_folders(tmp_path, {"ant": 4, "bee": 4}), "train")
    bad = dataset.path(2)
    bad.write_bytes(bad.read_bytes()[:-20])
    images = read_resident(dataset, size=SIZE)
    batches = list(resident_train_loader(images, Share(batch=4)))
    ids = [i for batch in batches for i in batch.image_ids]
    assert len(ids) == 8 and 2 not in ids
    (skipped,) = [name for batch in batches for name in batch.skipped]
    assert skipped == f"{bad}: truncated: its end is missing"
    with pytest.raises(BadSample, match="truncated"):
        list(resident_test_loader(images, Share(batch=4)))
    whole, part = resident_test_loader(images, Share(batch=4), replace_bad=True)
    assert (whole.skipped + part.skipped) == (skipped,) and 2 not in whole.image_ids + part.image_ids
    as_it_is = torch.from_numpy(centre_crop(decode_image(dataset.path(0)), SIZE, SIZE)).permute(2, 0, 1)
    assert torch.equal(whole.inputs[0][0], as_it_is)


def test_mixing_is_drawn_as_by_the_worker_loader():
    dataset, mixing = in_memory(16), Mixing(mixup=0.8, cutmix=1.0)
    share, transform = Share(batch=4, stop=6, seed=9), ClassificationTransform(size=SIZE, shorter=SIZE)
    workers = classification_train_loader(dataset, transform, share, mixing=mixing)
    for one, other in zip(train_loader(dataset, share, mixing=mixing), workers, strict=True):
        assert torch.equal(one.inputs[2], other.inputs[2])


def test_small_means_one_small_size_and_a_stated_memory(tmp_path: Path):
    assert is_small(in_memory(5), SIZE) and not is_small(in_memory(5, side=65), SIZE)
    assert not is_small(in_memory(5), 8192)
    root = write_folders(tmp_path, {"ant": 3, "bee": 3})
    assert is_small(open_classification(root, "train"), SIZE)
    write_picture(next((root / "train" / "ant").iterdir()), 32, 32)
    assert not is_small(open_classification(root, "train"), SIZE)


def test_more_than_the_memory_holds_is_said_before_anything_is_read():
    with pytest.raises(DataError, match=r"5 images of 30000000 px take \d+ MB, more than there is on cpu; give"):
        read_resident(in_memory(5), size=30_000_000)


class Launches(TorchDispatchMode):
    """Names the operations that a GPU would run a kernel for: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_batch_is_three_kernels():
    # What concerns many batches is reckoned for all of them at once: a small net's step waits for its launches.
    batches = iter(train_loader(in_memory(40), Share(batch=4, stop=ITERATIONS_AT_ONCE), augment="pad", flip=0.5))
    next(batches)
    with Launches() as launches:
        next(batches)
    assert launches.names == ["aten.add.Tensor", "aten.index_select.default", "aten.index.Tensor"]
