"""albumentations in the loaders: batches are what it makes of the arrays itself, and draws are keyed as all are."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.data.batches import assert_same
from tests.data.test_detection_chain import coded, written_objects
from tests.data.test_segmentation_loading import STEP, make_charts
from tests.data.writers import records, write_coco, write_picture
from vertebra.data.datasets.catalog import open_classification, open_detection
from vertebra.data.datasets.localisation import open_localisation
from vertebra.data.loading.classification import classification_train_loader
from vertebra.data.loading.detection import TruthPolicy, detection_train_loader
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.localisation import TrainView, localisation_train_loader
from vertebra.data.loading.sampling import Share, draw_seed
from vertebra.data.loading.segmentation import segmentation_train_loader
from vertebra.data.sample.locations import write_locations
from vertebra.data.transforms.classification_views import ClassificationTransform
from vertebra.data.transforms.detection_views import ViewDraw
from vertebra.data.transforms.pipeline import Augmented, Pipeline
from vertebra.data.transforms.segmentation_views import SegmentationDraw
from vertebra.ground.errors import DataError, RecipeError
from vertebra.ground.labels import IGNORED
from vertebra.recipes.pipelines import read_pipeline

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
A = pytest.importorskip("albumentations")
ALL = ("bboxes", "masks")


def pipeline(*steps: dict[str, Any], truths=ALL) -> Pipeline:
    return Pipeline(json.dumps(list(steps)), truths)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Five images with six objects each, of which one is a crowd; the last image has none."""
    folder = tmp_path_factory.mktemp("masked")
    sizes_hw = {f"{n}.png": size_hw for n, size_hw in enumerate([(90, 120), (120, 90), (96, 150), (70, 70), (90, 120)])}
    annotations: list[dict[str, Any]] = []
    for number, (name, (height, width)) in enumerate(sizes_hw.items()):
        write_picture(folder / name, height, width, number)
        for one in written_objects(height, width, number) if number < 4 else []:
            annotations.append({"image_id": number + 10, "category_id": 1 + len(annotations) % 3, **one})
    write_coco(folder, sizes_hw, annotations, classes=3, first_id=10)
    return open_detection(folder, "json:ann.json")


def train_loader(dataset, steps: Pipeline, views: ViewDraw, *, canvases=(), masks: bool = True, **share: int) -> Loader:
    wanted = Share(**{"batch": 4, "seed": 7, "stop": 12, **share})
    return detection_train_loader(dataset, views, TruthPolicy(), wanted, canvases=canvases, masks=masks, pipeline=steps)


# A crop that many objects do not survive, and geometry and colours before it; at the canvas's size, so that nothing is
# resized after it.
CUT = [
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-20, 20], "scale": [0.8, 1.3], "p": 0.7}},
    {"RandomBrightnessContrast": {"p": 0.5}},
    {"RandomCrop": {"height": 64, "width": 64, "p": 1.0}},
]


def test_batches_are_what_albumentations_makes_of_the_arrays(masked):
    naive = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-20, 20), scale=(0.8, 1.3), p=0.7),
            A.RandomBrightnessContrast(p=0.5),
            A.RandomCrop(64, 64, p=1.0),
        ],
        bbox_params=A.BboxParams("coco", label_fields=["places"], min_width=1, min_height=1),
    )
    by_id, kept, lost, emptied = {record.image_id: record for record in records(masked)}, 0, 0, 0
    for batch in train_loader(masked, pipeline(*CUT), ViewDraw((64,), 64), canvases=((64, 64),)):
        images, targets = batch.inputs
        assert images.sizes_hw == ((64, 64),) * 4
        next_mask = 0
        for n, image_id in enumerate(batch.image_ids):
            record = by_id[image_id]
            seed = int(np.random.default_rng(draw_seed(7, batch.iteration, image_id)).integers(1 << 63))
            naive.set_random_state(np.random.default_rng(seed), random.Random(seed))
            corners = record.boxes_G4
            data = {"bboxes": np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()}
            masks = [whole_mask(record, g) for g in range(len(corners))]
            if masks:
                data["masks"] = masks
            whole = cv2.cvtColor(cv2.imread(str(record.path)), cv2.COLOR_BGR2RGB)
            seen = naive(image=whole, places=list(range(len(corners))), **data)
            assert np.array_equal(images.pixels_N3HW[n].permute(1, 2, 0).numpy(), seen["image"])
            left = [(int(g), box) for g, box in zip(seen["places"], seen["bboxes"]) if seen["masks"][int(g)].any()]
            emptied += len(seen["bboxes"]) - len(left)
            assert int(targets.valid_NG[n].sum()) == len(left)
            kept, lost = kept + len(left), lost + len(corners) - len(left)
            for place, (g, (x, y, width, height)) in enumerate(left):
                np.testing.assert_allclose(targets.boxes_NG4[n, place], [x, y, x + width, y + height], atol=1e-3)
                assert targets.labels_NG[n, place] == record.labels_G[g]
                assert targets.crowd_NG[n, place] == targets.ignore_NG[n, place] == record.crowd_G[g]
                bits = targets.masks.whole(next_mask, (64, 64))
                assert np.array_equal(bits.numpy() > 0, seen["masks"][g] > 0)
                next_mask += 1
        assert next_mask == len(targets.masks.image_index_K)
    assert kept > 100 and lost > 30 and emptied > 0


def whole_mask(record, g: int) -> np.ndarray:
    if record.segmentations[g] is not None:
        return rle.decode(coded(record.segmentations[g], record.height, record.width))
    whole = np.zeros((record.height, record.width), np.uint8)
    x0, y0, x1, y1 = np.round(record.boxes_G4[g]).astype(int)
    whole[y0:y1, x0:x1] = 1
    return whole


def robust(dataset, **share: int) -> Loader:
    steps = Pipeline(read_pipeline("augmentations/detection-robust"), ALL)
    return train_loader(dataset, steps, ViewDraw((48, 64, 100), 160, 0.5), **share)


def strong(dataset, **share: int) -> Loader:
    steps = Pipeline(read_pipeline("augmentations/classification-strong"))
    transform = ClassificationTransform(size=32, shorter=36, augment="crop", flip=0.5, pipeline=steps)
    wanted = Share(**{"batch": 6, "seed": 7, "stop": 12, **share})
    return classification_train_loader(dataset, transform, wanted, repeats=2, cache_mb=1)


def located(dataset, **share: int) -> Loader:
    steps = Pipeline(read_pipeline("augmentations/detection-robust"), ["bboxes"])
    view = TrainView(size=32, shorter=36, pipeline=steps)
    return localisation_train_loader(dataset, view, Share(**{"batch": 4, "seed": 7, "stop": 12, **share}))


def segmented(dataset, *, draw: SegmentationDraw | None = None, steps: Pipeline | None = None, **share: int) -> Loader:
    steps = steps or Pipeline(read_pipeline("augmentations/detection-robust"), ["mask"])
    wanted = Share(**{"batch": 4, "seed": 7, "stop": 12, **share})
    return segmentation_train_loader(dataset, draw or SegmentationDraw((40, 56)), wanted, steps)


@pytest.fixture
def sets(masked, folders, tmp_path: Path) -> dict[str, Any]:
    write_locations(tmp_path / "located", counts=(12, 10))
    located = open_localisation(tmp_path / "located", "train")
    charts = make_charts(tmp_path / "charts", ".png")
    return {"detection": masked, "classification": folders, "localisation": located, "segmentation": charts}


LOADERS = {"detection": robust, "classification": strong, "localisation": located, "segmentation": segmented}


@pytest.mark.parametrize("kind", LOADERS)
def test_nothing_depends_on_workers_or_where_the_loader_starts(sets, kind: str):
    make = partial(LOADERS[kind], sets[kind])
    whole = list(make())
    for workers in (1, 3):
        assert_same(whole, make(workers=workers))
    assert_same(whole[7:], make(start=7, workers=1))
    firsts = [batch.inputs[0] if kind == "classification" else batch.inputs[0].pixels_N3HW for batch in whole]
    assert all(one.shape != other.shape or not torch.equal(one, other) for one, other in pairwise(firsts))


@pytest.mark.parametrize("outside", [{}, {"fill_mask": 255}])
def test_labels_follow_their_pixels_and_what_is_filled_in_has_none(tmp_path: Path, outside: dict[str, int]):
    """The charts' colours say their labels; without interpolation of either the two stay equal."""
    steps = pipeline(
        {"Rotate": {"limit": [25, 25], "interpolation": 0, "border_mode": 0, "p": 1.0, **outside}}, truths=["mask"]
    )
    whole = SegmentationDraw((200, 200), scale=(1.0, 1.0), flip=0.0)
    for batch in segmented(make_charts(tmp_path, ".png"), draw=whole, steps=steps, stop=2):
        images, labels_NHW = batch.inputs
        for n, (height, width) in enumerate(images.sizes_hw):
            labels = labels_NHW[n, :height, :width].numpy().astype(int)
            red, green, _ = images.pixels_N3HW[n, :, :height, :width].numpy().astype(int) // STEP
            seen = labels != IGNORED
            assert (labels[seen] == (16 * green + red)[seen]).all() and not (red + green)[~seen].any()
            assert 0.05 < (~seen).mean() < 0.5


def test_steps_of_one_chance_are_drawn_apart():
    """With set_random_seed, all steps with one p would be applied together or not at all."""
    image = np.random.default_rng(0).integers(0, 100, (8, 9, 3), np.uint8)
    flip, invert = {"HorizontalFlip": {"p": 0.5}}, {"InvertImg": {"p": 0.5}}
    both = pipeline(flip, invert, truths=())
    counts = {}
    for seed in range(200):
        seen = both(image, np.random.default_rng(seed)).image_HW3
        is_inverted = bool(seen.min() > 100)
        plain = 255 - seen if is_inverted else seen
        is_flipped = not np.array_equal(plain, image)
        assert np.array_equal(plain, image[:, ::-1] if is_flipped else image)
        counts[is_flipped, is_inverted] = counts.get((is_flipped, is_inverted), 0) + 1
    assert len(counts) == 4 and min(counts.values()) > 25


ARGUMENTS = {
    **dict.fromkeys(("height", "width", "max_size"), 48),
    "size": [48, 48],
    "px": 4,
    "min_max_height": [30, 48],
    "num_grid_xy": [4, 4],
    "magnitude": 5,
}
UNFIT = ("Crop", "CropNonEmptyMaskIfExists")  # as they are made here: larger than the image, and without masks


def installed_transforms() -> list[Any]:
    """One object of each transform, but for those that need other images, fonts or a third dimension."""
    bases, made = (A.ImageOnlyTransform, A.DualTransform), []
    for kind in vars(A).values():
        if not isinstance(kind, type) or not issubclass(kind, bases) or kind in bases:
            continue
        accepted = inspect.signature(kind).parameters
        with suppress(TypeError, ValueError):
            made.append(kind(**{key: value for key, value in ARGUMENTS.items() if key in accepted}, p=1.0))
    return made


@pytest.mark.filterwarnings("ignore")
def test_every_transform_is_read_as_it_was_saved_and_does_the_same_again(tmp_path: Path):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
    boxes_G4 = np.array([[5, 5, 40, 45], [30.5, 20, 70, 55]], np.float32)
    same, refused = [], []
    for one in installed_transforms():
        name = type(one).__name__
        try:
            A.save(A.Compose([one]), tmp_path / "saved.json")
            steps = Pipeline(read_pipeline(tmp_path / "saved.json"), ("bboxes",))
        except (NotImplementedError, ValueError):  # those whose arguments are functions are not even saved
            refused.append(name)
            continue
        if name in UNFIT:
            continue
        first, _, again = (steps(image.copy(), np.random.default_rng(seed), boxes_G4) for seed in (1, 2, 1))
        assert np.array_equal(first.image_HW3, again.image_HW3) and np.array_equal(first.boxes_G4, again.boxes_G4), name
        same.append(name)
    assert len(same) > 80
    assert {"Normalize", "ToFloat", "RandomCropNearBBox", "MaskDropout", "OverlayElements"} <= {*refused}
    assert len(refused) < 20


@pytest.mark.parametrize(
    ("steps", "truths", "sentence"),
    [
        ([{"HorizontlFlip": {}}], (), "albumentations has no HorizontlFlip; did you mean HorizontalFlip?"),
        ([{"os": {}}], (), "albumentations has no os"),
        ([{"Blur": {"limit": 3}}], (), "Blur takes no argument limit; did you mean blur_limit?"),
        ([{"RandomCrop": {"heigth": 3, "width": 3}}], (), "RandomCrop takes no argument heigth; did you mean height?"),
        ([{"Blur": {"p": 2}}], (), "Blur cannot be made (p: Input should be less than or equal to 1)"),
        ([{"RandomCrop": {}}], (), "RandomCrop cannot be made (height: Field required; width: Field required)"),
        ([{"OneOrOther": {}}], (), "OneOrOther cannot be made ("),
        ([{"OneOf": {"transforms": [{"Blurr": {}}]}}], (), "albumentations has no Blurr; did you mean Blur?"),
        ([{"SafeRotate": {"limit": 20, "scale": 2}}], (), "SafeRotate takes no argument scale"),
        ([{"Lambda": {"name": "mine"}}], (), "Lambda calls a function, which no file can hold; leave it out"),
        ([{"ReplayCompose": {"transforms": []}}], (), "ReplayCompose writes down what it does"),
        ([{"Normalize": {}}], (), "Normalize makes other numbers of the pixels than 0 to 255"),
        ([{"ToTensorV2": {}}], (), "ToTensorV2 makes other numbers"),
        ([{"OverlayElements": {}}], ALL, "OverlayElements needs overlay_metadata, which a reader of one image"),
        ([{"BBoxSafeRandomCrop": {}}], (), "a step fails on an image of 20 x 30 pixels (KeyError: 'bboxes')"),
        ([{"CubicSymmetry": {}}], ALL, "CubicSymmetry cannot change bboxes, image, masks; leave it out"),
        ([{"Compose": {"transforms": [], "seed": 3}}], ALL, "its Compose has seed, for which there is no use here"),
        ([{"Compose": {"bbox_params": {"min_size": 3}}}], ALL, "its bbox_params cannot be used (TypeError: "),
        ([{"Compose": {"bbox_params": 3}}], ALL, "its bbox_params cannot be used (TypeError: "),
        ([{"Compose": {"p": "often"}}], ALL, "a step fails on an image of 20 x 30 pixels (TypeError"),
        ([{"RandomCrop": {"height": 64, "width": 64}}], ALL, "a step fails on an image of 20 x 30 pixels ("),
        ([{"ToGray": {"num_output_channels": 1, "p": 1}}], ALL, "it makes uint8 of shape (30, 20), not an image of"),
    ],
)
def test_what_cannot_work_is_a_sentence(steps, truths, sentence: str):
    with pytest.raises((RecipeError, DataError)) as told:
        pipeline(*steps, truths=truths)(np.zeros((30, 20, 3), np.uint8), np.random.default_rng(0))
    text = str(told.value)
    assert text.startswith(f"input.albumentations: {sentence}") and "\n" not in text and len(text) < 300


def test_a_saved_composes_filters_hold_and_its_format_does_not():
    image, rng = np.zeros((100, 100, 3), np.uint8), np.random.default_rng(0)
    boxes_G4 = np.array([[0, 0, 50, 50], [40, 0, 100, 50], [10, 10, 20, 10.5]], np.float32)
    crop = {"Crop": {"x_min": 0, "y_min": 0, "x_max": 50, "y_max": 50, "p": 1.0}}
    kept = {}
    for visible in (0.0, 0.5):
        filters = {"format": "yolo", "label_fields": ["x"], "min_visibility": visible}
        steps = pipeline({"Compose": {"transforms": [crop], "bbox_params": filters, "keypoint_params": None, "p": 1.0}})
        kept[visible] = steps(image, rng, boxes_G4)
    assert kept[0.0].places_G.tolist() == [0, 1] and kept[0.5].places_G.tolist() == [0]
    np.testing.assert_allclose(kept[0.0].boxes_G4, [[0, 0, 50, 50], [40, 0, 50, 50]], atol=1e-4)
    assert pickle.loads(pickle.dumps(steps))(image, rng, boxes_G4).places_G.tolist() == [0]


class Spy:
    """In a pipeline's place: keeps what it is given, and then writes all over it, as some transforms do."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, image_HW3, rng, boxes_G4=(), masks_G=()) -> Augmented:
        self.seen.append(image_HW3.copy())
        image_HW3[:] = 0
        return Augmented(image_HW3, boxes_G4, np.arange(len(boxes_G4)), [*masks_G])


@pytest.mark.parametrize("kind", ["detection", "classification"])
def test_a_pipeline_sees_large_images_whole_and_leaves_those_in_the_cache_alone(tmp_path: Path, kind: str):
    spy: Any = Spy()
    for name in ("images/a.jpg", "train/a/a.jpg", "train/b/b.jpg"):
        write_picture(tmp_path / name, 801, 1003)
    if kind == "detection":
        write_coco(tmp_path, {"a.jpg": (801, 1003)}, [{"bbox": [10, 10, 500, 400]}])
        dataset = open_detection(tmp_path / "images", f"json:{tmp_path / 'ann.json'}")
        list(train_loader(dataset, spy, ViewDraw((100,), 200), masks=False, batch=1, stop=2))
    else:
        transform = ClassificationTransform(size=48, shorter=48, augment="crop", pipeline=spy)
        whole = classification_train_loader(
            open_classification(tmp_path, "train"), transform, Share(batch=2, stop=3), cache_mb=64
        )
        assert whole.reader.cache is not None
        list(whole)
    assert len(spy.seen) == (2 if kind == "detection" else 6)
    assert all(image.shape == (801, 1003, 3) and image.max() > 100 for image in spy.seen)
