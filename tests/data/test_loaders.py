"""Loaders: the same batches whatever the workers and processes, truths as the recipe wants them, bad images named."""

import functools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detectors.structures import ImageBatch, Targets
from tests.data.batches import assert_forks_and_resumes, assert_processes_share, assert_same, tensors
from tests.data.writers import paths, records, write_picture, write_turned, write_voc
from vertebra.data.datasets.annotations import Classes, Images, Objects, build_dataset
from vertebra.data.datasets.catalog import open_classification, open_detection
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading.classification import (
    classification_test_loader,
    classification_train_loader,
    part_of_large,
)
from vertebra.data.loading.decode import shrink_factor
from vertebra.data.loading.detection import TruthPolicy, detection_test_loader, detection_train_loader
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.canvases import FixedView
from vertebra.data.transforms.classification_views import ClassificationTransform
from vertebra.data.transforms.detection_views import ViewDraw
from vertebra.data.transforms.geometry import Box, resize
from vertebra.ground.errors import BadSample, DataError

TRANSFORM = ClassificationTransform(size=32, shorter=36, augment="crop", min_scale=0.3, flip=0.5)
AT_TEST = ClassificationTransform(size=32, shorter=36)
VIEWS, VIEW = ViewDraw((48, 64), 96, 0.5), FixedView(64, 96)


def train_loader(dataset, **share: Any) -> Loader:
    made = Share(**{"batch": 4, "seed": 7, **share})
    if isinstance(dataset, DetectionDataset):
        return detection_train_loader(dataset, VIEWS, TruthPolicy(), made)
    return classification_train_loader(dataset, TRANSFORM, made)


def whole_set(dataset, **share: Any) -> Loader:
    made = Share(**{"batch": 4, "seed": 7, **share})
    if isinstance(dataset, DetectionDataset):
        return detection_test_loader(dataset, VIEW, made)
    return classification_test_loader(dataset, AT_TEST, made)


@pytest.fixture
def voc(tmp_path: Path):
    """13 images of three shapes with 0 to 3 objects, one of which is difficult."""
    images: dict[str, list[tuple[str, int, int, int, int, int]]] = {
        f"{number:06}": [("dog", 5 + k, 10, 30 + k, 40, int(number == 1)) for k in range(number % 4)]
        for number in range(13)
    }
    write_voc(tmp_path / "VOCdevkit", images, sizes_hw=[(60, 80), (80, 60), (60, 90)])
    return open_detection(tmp_path, "voc2007/trainval")


@pytest.mark.parametrize("kind", ["folders", "voc"])
def test_batches_do_not_depend_on_workers_or_on_where_the_loader_starts(kind: str, request):
    assert_forks_and_resumes(partial(train_loader, request.getfixturevalue(kind)), start=5, stop=9)


@pytest.mark.parametrize("kind", ["folders", "voc"])
def test_two_processes_together_have_what_one_has(kind: str, request):
    dataset = request.getfixturevalue(kind)
    assert_processes_share(partial(train_loader, dataset), stop=6)
    assert_processes_share(partial(whole_set, dataset))


def test_classification_batches_are_uint8_rgb_with_their_labels(folders):
    loader = classification_test_loader(folders, ClassificationTransform(size=48, shorter=48), Share(batch=5))
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    pixels = torch.cat([batch.inputs[0] for batch in batches])
    labels = torch.cat([batch.inputs[1] for batch in batches])
    assert pixels.shape == (13, 3, 48, 48) and pixels.dtype == torch.uint8
    assert batches[0].inputs[0].is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == folders.labels_I.tolist() and labels.dtype == torch.int64
    assert [i for batch in batches for i in batch.image_ids] == list(range(13))


def cached_sizes(loader: Loader) -> list[tuple[int, int]]:
    """Height and width of each image that the loader keeps."""
    kept = map(loader.reader.cache.get, range(len(loader.reader.chosen_I)))
    return [image_HW3.shape[:2] for image_HW3 in kept if image_HW3 is not None]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_nothing_but_the_time(folders, workers: int):
    share = Share(batch=4, seed=7, stop=8, workers=workers)
    cached, plain = (classification_train_loader(folders, TRANSFORM, share, cache_mb=mb) for mb in (10, 0))
    assert_same(cached, plain)
    assert cached_sizes(cached) == [(48, 64)] * 13
    assert plain.reader.cache is None


def test_large_photographs_are_cached_as_small_as_they_are_decoded_without_one(tmp_path: Path):
    for number in range(4):
        write_picture(tmp_path / "train" / "a" / f"{number}.jpg", 640, 480, number)
    dataset = open_classification(tmp_path, "train")
    transform, share = ClassificationTransform(size=32, shorter=40, augment="scale"), Share(batch=2, stop=4)
    # whole, they would take 3.5 MB
    cached, plain = (classification_train_loader(dataset, transform, share, cache_mb=mb) for mb in (1, 0))
    assert_same(cached, plain)
    assert cached_sizes(cached) == [(160, 120)] * 4


@functools.cache
def photograph(height: int, width: int) -> np.ndarray:
    """Shapes of many sizes with sharp edges, and noise as of a sensor."""
    rng = np.random.default_rng(3)
    image = np.full((height, width, 3), 90, np.uint8)
    for _ in range(150):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(image, centre, int(rng.integers(3, 150)), rng.integers(0, 256, 3).tolist(), -1)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("augment", ["crop", "scale"])
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_large_photographs_are_decoded_small_and_look_the_same(tmp_path: Path, augment: str, orientation: int):
    pixels = photograph(1104, 1504)
    write_turned(tmp_path / "train" / "a" / "one.jpg", pixels, orientation)
    dataset = open_classification(tmp_path, "train")
    content, name = dataset.read(0), dataset.name(0)
    shown = {1: pixels, 6: np.rot90(pixels, -1), 3: np.rot90(pixels, 2)}[orientation]
    transform = ClassificationTransform(size=96, shorter=112, augment=augment, min_scale=0.08, flip=0)
    shrinks = set()
    for seed in range(8):
        view = part_of_large(content, name, (1104, 1504), transform, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        if orientation == 6:
            transform.draw(1104, 1504, rng)  # before the decoder shows that the image is turned
        drawn = transform.draw(*shown.shape[:2], rng)
        shrink = shrink_factor((drawn.height, drawn.width), (96, 96))
        small = drawn.shrunk(shrink)  # whole pixels of the small image: of the large one up to 7 more a side
        box = Box(small.top * shrink, small.left * shrink, small.height * shrink, small.width * shrink)
        part = np.ascontiguousarray(box.cut(shown))
        assert np.abs(view.astype(int) - resize(part, 96, 96)).mean() < 3
        by_area = cv2.resize(part, (96, 96), interpolation=cv2.INTER_AREA)
        assert np.abs(view.astype(int) - by_area).mean() < 3
        shrinks.add(shrink)
    assert len(shrinks) > 1


def test_photographs_that_are_large_when_decoded_are_not_cached(tmp_path: Path):
    write_picture(tmp_path / "train" / "a" / "1.jpg", 700, 800)

    def loader_of(size: int) -> Loader:
        transform = ClassificationTransform(size=size, shorter=size, augment="crop")
        return classification_train_loader(open_classification(tmp_path, "train"), transform, Share(batch=2, stop=2))

    loader = loader_of(224)
    assert loader.reader.cache is None and [len(batch) for batch in loader] == [2, 2]
    loader = loader_of(32)  # decoded to a quarter
    assert len(list(loader)) == 2 and cached_sizes(loader) == [(175, 200)]
    write_picture(tmp_path / "train" / "a" / "2.jpg", 320, 240)
    loader = loader_of(224)  # the small one is
    assert len(list(loader)) == 2 and cached_sizes(loader) == [(320, 240)]


def test_a_cache_that_would_not_hold_all_images_is_not_made(shared_data: Path):
    dataset = open_classification(shared_data / "imagenette", "train")
    transform = ClassificationTransform(size=224, shorter=224)
    loader = classification_train_loader(dataset, transform, Share(batch=8), cache_mb=50)
    assert loader.reader.cache is None


def test_detection_batches_are_what_detectors_take(voc):
    loader = train_loader(voc, stop=30)
    shapes = set()
    for batch in loader:
        images, targets = batch.inputs
        assert isinstance(images, ImageBatch) and isinstance(targets, Targets)
        assert images.pixels_N3HW.dtype == torch.uint8
        assert images.pixels_N3HW.is_contiguous(memory_format=torch.channels_last)
        assert images.sizes_hw_N2.tolist() == [list(size) for size in images.sizes_hw]
        assert targets.boxes_NG4.shape == (4, 16, 4) and targets.image_ids == batch.image_ids
        assert targets.original_sizes_hw == tuple(
            (record.height, record.width)
            for image_id in batch.image_ids
            for record in records(voc)
            if record.image_id == image_id
        )
        shapes.add(tuple(images.pixels_N3HW.shape[2:]))
        for n, (height, width) in enumerate(images.sizes_hw):
            assert images.pixels_N3HW[n, :, height:].sum() == images.pixels_N3HW[n, :, :, width:].sum() == 0
            boxes = targets.boxes_NG4[n][targets.valid_NG[n]]
            assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
            assert int(targets.valid_NG[n].sum()) == targets.image_ids[n] % 4
            assert (targets.labels_NG[n] > 0).equal(targets.valid_NG[n])
    assert shapes == {(64, 96), (96, 64)}  # 60 x 80 and 60 x 90 both go onto the first


def test_one_side_a_batch_is_drawn_by_seed_and_iteration_alone(voc):
    def make(**share: Any) -> Loader:
        options = Share(**{"batch": 4, "seed": 7, **share})
        return detection_train_loader(voc, replace(VIEWS, per_batch=True), TruthPolicy(), options)

    batches = assert_forks_and_resumes(make, start=5, stop=16)
    assert_processes_share(make, stop=6)
    assert len({len({min(size) for size in batch.inputs[0].sizes_hw}) for batch in batches}) == 1
    assert {min(batch.inputs[0].sizes_hw[0]) for batch in batches} == {48, 64}
    canvases = {tuple(batch.inputs[0].pixels_N3HW.shape[2:]) for batch in batches}
    assert canvases <= {(64, 96), (96, 64), (64, 64)} and {(64, 64)} < canvases  # of 48 x 64 and 48 x 72, or 64 x 48


@pytest.mark.parametrize(("per_batch", "least", "most"), [(False, 0.17, 0.23), (True, 0.0, 0.08)])
def test_the_share_of_padding_in_batches_like_cocos(tmp_path: Path, per_batch: bool, least: float, most: float):
    """Made-up sizes with the shares that COCO's have."""
    shares = {(480, 640): 30, (427, 640): 24, (640, 480): 14, (640, 427): 7, (425, 640): 5, (426, 640): 4}
    shares |= {(640, 640): 2, (360, 640): 2, (333, 500): 4, (375, 500): 5, (500, 375): 2, (612, 612): 1, (320, 640): 1}
    sizes = [size for size, count in shares.items() for _ in range(count)]
    ids = list(range(1, len(sizes) + 1))
    objects = Objects(range(len(ids)), np.tile([10.0, 10, 50, 50], (len(ids), 1)), [1] * len(ids))
    dataset = build_dataset(tmp_path, "made up", Classes(["a"]), Images(ids, map(str, ids), sizes), objects)
    views = ViewDraw((640, 672, 704, 736, 768, 800), 1333, per_batch=per_batch)
    loader = detection_train_loader(dataset, views, TruthPolicy(), Share(batch=16, stop=300))
    reader: Any = loader.reader
    seen = full = 0
    for request in loader.requests:
        side = reader._side(request.iteration)
        canvas_hw = reader.canvases[side][request.group]
        for index in request.indices:
            view = views(sizes[index], canvas_hw, np.zeros((0, 4)), np.random.default_rng([full, index]), side)
            seen += view.size_hw[0] * view.size_hw[1]
            full += canvas_hw[0] * canvas_hw[1]
            if side:
                scale = min(side / min(sizes[index]), 1333 / max(sizes[index]))
                assert view.size_hw == tuple(round(one * scale) for one in sizes[index]), "no smaller for its canvas"
    assert least < 1 - seen / full < most


def test_unflipped_boxes_are_the_files_boxes_scaled(voc):
    (batch,) = detection_test_loader(voc, FixedView(120, 999), Share(batch=99))
    images, targets = batch.inputs
    for n, record in enumerate(records(voc)):
        scale = images.sizes_hw[n][0] / record.height
        count = len(record.boxes_G4)
        np.testing.assert_allclose(targets.boxes_NG4[n, :count], record.boxes_G4 * scale, atol=1e-3)
    assert batch.image_ids == tuple(record.image_id for record in records(voc))


def test_draw_seeds_follow_seed_iteration_and_image(voc):
    def seeds(seed: int) -> dict[tuple[int, int], int]:
        loader = train_loader(voc, stop=20, seed=seed)
        return {
            (batch.iteration, image_id): draw
            for batch in loader
            for image_id, draw in zip(batch.image_ids, batch.inputs[1].draw_seeds_N.tolist())
        }

    one, other = seeds(1), seeds(2)
    assert one == seeds(1) and len(set(one.values())) == len(one)
    assert not set(one.values()) & set(other.values())


def targets_by(dataset: DetectionDataset, policy: TruthPolicy) -> Targets:
    loader = detection_test_loader(dataset, VIEW, Share(batch=99))
    return replace(loader.reader, policy=policy)(loader.requests[0]).inputs[1]


@pytest.mark.parametrize(
    ("difficult", "kept", "ignored"), [("train", True, False), ("drop", False, False), ("ignore", True, True)]
)
def test_difficult_objects_are_what_the_recipe_says(voc, difficult: str, kept: bool, ignored: bool):
    targets = targets_by(voc, TruthPolicy(difficult=difficult))
    place = targets.image_ids.index(1)
    assert bool(targets.valid_NG[place].any()) == kept == bool(targets.difficult_NG[place].any())
    assert bool(targets.ignore_NG.any()) == ignored
    assert not (targets.ignore_NG & ~targets.valid_NG).any()


@pytest.mark.parametrize(("crowd", "count", "ignored"), [("drop", 0, 0), ("ignore", 1, 1)])
def test_crowds_are_what_the_recipe_says(coco_set, crowd: str, count: int, ignored: int):
    targets = targets_by(open_detection(coco_set().parent, "json:ann.json"), TruthPolicy(crowd))
    assert int(targets.valid_NG[0].sum()) == int(targets.crowd_NG.sum()) == count
    assert int(targets.ignore_NG.sum()) == ignored and int(targets.valid_NG[1].sum()) == 2


def test_empty_images_are_kept_or_left_out_as_asked(voc, caplog):
    caplog.set_level("INFO")

    def seen(difficult: str = "train", **options: bool) -> set[int]:
        policy = TruthPolicy(difficult=difficult)
        loader = detection_train_loader(voc, VIEWS, policy, Share(batch=4, stop=40, seed=7), **options)
        return {image_id for batch in loader for image_id in batch.image_ids}

    assert seen() == set(range(13))
    assert not caplog.messages
    assert seen(keep_empty=False) == set(range(13)) - {0, 4, 8, 12}
    assert caplog.messages[0].startswith("4 of 13 training images have no object to learn and are left out")
    assert seen(keep_empty=False, difficult="drop") == set(range(13)) - {0, 1, 4, 8, 12}


def test_crowded_images_lose_no_truth(tmp_path: Path, coco_set):
    def crowded(value: dict[str, Any]) -> None:
        value["annotations"] = [{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]} for _ in range(70)]

    dataset = open_detection(tmp_path, f"json:{coco_set(crowded)}")
    (batch,) = detection_test_loader(dataset, FixedView(60, 80), Share(batch=2))
    assert batch.inputs[1].boxes_NG4.shape[1] == 256 and batch.inputs[1].valid_NG.sum(1).tolist() == [0, 70]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_replaced_and_named_in_training_and_an_error_at_test(tmp_path: Path, voc, workers: int):
    path = records(voc)[3].path
    path.write_bytes(path.read_bytes()[:-300])
    loader = train_loader(voc, stop=10, workers=workers)
    skipped = [reason for batch in loader for reason in batch.skipped]
    assert skipped and set(skipped) == {f"{path}: truncated: its end is missing"}
    assert all(len(batch.image_ids) == 4 and 3 not in batch.image_ids for batch in loader)
    with pytest.raises(BadSample) as raised:
        list(whole_set(voc, workers=workers))
    assert str(raised.value) == f"{path}: truncated: its end is missing; replace it, or remove it from the data set"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_outside_of_training_is_replaced_where_that_is_asked_for(folders, workers: int):
    bad = folders.path(3)
    bad.write_bytes(bad.read_bytes()[:-20])
    share = Share(batch=4, workers=workers, seed=7)
    batches = list(classification_test_loader(folders, AT_TEST, share, replace_bad=True))
    used = [i for batch in batches for i in batch.image_ids]
    assert used[:3] == [0, 1, 2] and used[4:] == list(range(4, len(folders))) and used[3] != 3
    assert [name for batch in batches for name in batch.skipped] == [f"{bad}: truncated: its end is missing"]
    with pytest.raises(BadSample):
        list(classification_test_loader(folders, AT_TEST, share))


def test_nothing_but_bad_images_stops_with_a_sentence(folders):
    for path in paths(folders):
        path.write_bytes(b"")
    loader = train_loader(folders, workers=1)
    with pytest.raises(DataError, match=r"11 images in a row cannot be used, the last being .*zero bytes long"):
        list(loader)


def test_what_cannot_be_loaded_is_named(voc, folders):
    with pytest.raises(DataError, match="a global batch of 4 images does not divide among 3 processes; make it a"):
        train_loader(voc, world_size=3)
    with pytest.raises(DataError, match=r"no images to load; check the data set and the limit"):
        train_loader(folders, limit=0)


def test_loading_leaves_the_global_generators_alone(folders):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(train_loader(folders, workers=workers))
    assert torch.equal(before, torch.get_rng_state())


def test_a_limit_uses_that_many_images(folders, voc):
    (batch,) = whole_set(folders, batch=99, limit=4)
    assert batch.image_ids == (0, 3, 6, 9) and batch.inputs[1].tolist() == [0, 0, 0, 1]
    (batch,) = whole_set(voc, batch=99, limit=3)
    assert batch.image_ids == (0, 4, 8)


def test_batches_move_and_pin_as_a_whole(voc):
    (batch,) = whole_set(voc, batch=99)
    moved = batch.to("meta")
    assert all(tensor.device.type == "meta" for tensor in tensors(moved.inputs)) and moved.image_ids == batch.image_ids


def test_a_large_photograph_is_decoded_small_and_its_boxes_stay_right(tmp_path: Path):
    write_voc(tmp_path, {"000001": [("dog", 401, 201, 800, 600, 0)]}, sizes_hw=[(1200, 1600)])
    dataset = open_detection(tmp_path, "voc2007/trainval")
    (batch,) = detection_test_loader(dataset, FixedView(150, 400), Share(batch=1))
    images, targets = batch.inputs
    assert images.sizes_hw == ((150, 200),) and targets.original_sizes_hw == ((1200, 1600),)
    np.testing.assert_allclose(targets.boxes_NG4[0, 0], [50, 25, 100, 75], atol=1e-3)


def test_real_sets_load_as_they_lie(shared_data: Path):
    for source in ("voc2012/train", "coco/train2017"):
        dataset = open_detection(shared_data, source)
        loader = detection_test_loader(dataset, FixedView(100, 160), Share(batch=8, limit=24))
        ids = [image_id for batch in loader for image_id in batch.image_ids]
        assert ids == dataset.image_ids_I[np.arange(24) * len(dataset) // 24].tolist()
        json.dumps(dataset.coco_truth())


@pytest.mark.parametrize("works_on_gpu", [False, True])
def test_batches_are_pinned_where_this_process_works_on_a_gpu(monkeypatch, works_on_gpu):
    # One that is there, but not this process's, would get a context and lose memory to it.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: works_on_gpu)
    loader = Loader(lambda request: None, [], workers=0)
    assert loader._loader.pin_memory == works_on_gpu
