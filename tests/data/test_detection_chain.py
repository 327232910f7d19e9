"""From files to augmented batches: pixels, boxes and masks are what a naive crop and resize of the whole give."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torchvision.transforms import v2

from tests.data.batches import assert_forks_and_resumes, assert_processes_share, extent
from tests.data.writers import picture, records, write_coco, write_picture, write_turned
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.loading.decode import shrink_factor
from vertebra.data.loading.detection import TruthPolicy, detection_train_loader
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.sampling import Share, draw_seed
from vertebra.data.transforms.detection_views import DetectionAugmentation, DrawnView, ViewDraw
from vertebra.data.transforms.geometry import Box

SIZES = [(90, 120), (120, 90), (96, 150), (64, 64)]
AUGMENTATIONS = {
    "none": DetectionAugmentation(),
    "range": DetectionAugmentation(crop="range", crop_min=0.2),
    "iou": DetectionAugmentation(crop="iou"),
    "jitter": DetectionAugmentation(jitter=(0.1, 3.0)),
    "all": DetectionAugmentation(any_side=True, crop="range", crop_min=0.5, crop_chance=0.5, jitter=(0.5, 2.0)),
}
VIEWS = ViewDraw((48, 64, 100), 160, 0.5)


def train_loader(dataset, views: ViewDraw, *, share: dict[str, int], **options: Any) -> Loader:
    return detection_train_loader(dataset, views, TruthPolicy(), Share(**{"batch": 4, "seed": 7, **share}), **options)


def augmented(name: str) -> ViewDraw:
    return replace(VIEWS, augmentation=AUGMENTATIONS[name])


def written_objects(height: int, width: int, number: int) -> list[dict[str, Any]]:
    """A triangle, two polygons as one, uncompressed RLE, compressed RLE, a crowd, and one with a box alone."""
    rng = np.random.default_rng(number)
    triangle = (rng.uniform(0, 1, (3, 2)) * (width, height)).round(2)
    pieces = [rng.uniform(0.1, 0.9, (4, 2)) * (width, height) for _ in range(2)]
    segments: list[Any] = [[triangle.reshape(-1).tolist()], [piece.reshape(-1).round(2).tolist() for piece in pieces]]
    blobs = []
    for _ in range(3):
        blob = np.zeros((height, width), np.uint8)
        centre = tuple(int(c) for c in rng.uniform(0.1, 0.9, 2) * (width, height))
        cv2.circle(blob, centre, int(rng.integers(4, 30)), 1, -1)
        blobs.append(rle.encode(np.asfortranarray(blob)))
    runs = uncompressed(rle.decode(blobs[0]))
    segments += [
        runs,
        {"size": [height, width], "counts": blobs[1]["counts"].decode()},
        uncompressed(rle.decode(blobs[2])),
    ]
    objects = []
    for place, segment in enumerate(segments):
        x, y, w, h = rle.toBbox(coded(segment, height, width)).tolist()
        if w and h:
            objects.append({"bbox": [x, y, w, h], "iscrowd": int(place == 4), "segmentation": segment})
    return [*objects, {"bbox": [5.5, 6.25, 20.5, 30.0], "iscrowd": 0}]


def uncompressed(mask_HW: np.ndarray) -> dict[str, Any]:
    """COCO's runs by hand: column by column, zeros first."""
    counts, value = [0], 0
    for bit in mask_HW.T.reshape(-1).tolist():
        if bit != value:
            counts, value = [*counts, 0], bit
        counts[-1] += 1
    return {"size": list(mask_HW.shape), "counts": counts}


def coded(segment: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segment, list):
        return rle.merge(rle.frPyObjects(segment, height, width))
    return rle.frPyObjects(segment, height, width) if isinstance(segment["counts"], list) else segment


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Four images with six objects each, and one without any."""
    folder = tmp_path_factory.mktemp("masked")
    sizes_hw = {f"{number}.png": size_hw for number, size_hw in enumerate([*SIZES, (90, 120)])}
    annotations: list[dict[str, Any]] = []
    for number, (name, (height, width)) in enumerate(sizes_hw.items()):
        write_picture(folder / name, height, width, number)
        for one in written_objects(height, width, number) if number < 4 else []:
            annotations.append({"image_id": number + 10, "category_id": 1 + len(annotations) % 3, **one})
    write_coco(folder, sizes_hw, annotations, classes=3, first_id=10)
    return open_detection(folder, "json:ann.json")


def naive_nearest(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """int8; -1 where a pixel's centre falls between two of the old pixels, so that either is right."""
    old_h, old_w = mask_HW.shape
    rows = [(2 * y + 1) * old_h for y in range(height)]  # twice the place, in units of a new pixel
    columns = [(2 * x + 1) * old_w for x in range(width)]
    mask = mask_HW[np.ix_([y // (2 * height) for y in rows], [x // (2 * width) for x in columns])].astype(np.int8)
    if height != old_h:
        mask[[y % (2 * height) == 0 for y in rows]] = -1
    if width != old_w:
        mask[:, [x % (2 * width) == 0 for x in columns]] = -1
    return mask


def naive_truths(record, view: DrawnView, is_iou: bool) -> list[tuple[int, list[float], np.ndarray]]:
    """(place, box, mask) of what is left of each object: the whole mask is cut, then resized, then mirrored."""
    part, (height, width) = view.part, view.size_hw
    truths = []
    for g, (x0, y0, x1, y1) in enumerate(record.boxes_G4.tolist()):
        segment = record.segmentations[g]
        if segment is None:
            whole = np.zeros((record.height, record.width), np.uint8)
            whole[round(y0) : round(y1), round(x0) : round(x1)] = 1
        else:
            whole = rle.decode(coded(segment, record.height, record.width))
        seen = whole[part.top : part.top + part.height, part.left : part.left + part.width]
        box = [x0 - part.left, y0 - part.top, x1 - part.left, y1 - part.top]
        left = [max(0, box[0]), max(0, box[1]), min(part.width, box[2]), min(part.height, box[3])]
        scale_x, scale_y = width / part.width, height / part.height
        if left != box:
            if is_iou and not record.crowd_G[g]:
                stays = 0 < (box[0] + box[2]) / 2 < part.width and 0 < (box[1] + box[3]) / 2 < part.height
            else:
                stays = (left[2] - left[0]) * scale_x >= 1 and (left[3] - left[1]) * scale_y >= 1
            ys, xs = np.nonzero(seen)
            if not stays or not len(xs):
                continue
            left = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        box = [left[0] * scale_x, left[1] * scale_y, left[2] * scale_x, left[3] * scale_y]
        mask = naive_nearest(seen, height, width)
        if view.flip:
            box, mask = [width - box[2], box[1], width - box[0], box[3]], mask[:, ::-1]
        truths.append((g, box, mask))
    return truths


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_are_those_of_a_naive_crop_of_the_whole(masked, name: str):
    by_id = {record.image_id: record for record in records(masked)}
    loader = train_loader(masked, augmented(name), masks=True, share={"stop": 20})
    kept, lost, cut, certain = 0, 0, 0, []
    for batch in loader:
        images, targets = batch.inputs
        masks, next_mask = targets.masks, 0
        canvas = tuple(images.pixels_N3HW.shape[2:])
        for n, image_id in enumerate(batch.image_ids):
            record = by_id[image_id]
            rng = np.random.default_rng(draw_seed(7, batch.iteration, image_id))
            normal_G4 = record.boxes_G4[~record.crowd_G]
            view = loader.reader.views((record.height, record.width), canvas, normal_G4, rng)
            assert images.sizes_hw[n] == view.size_hw
            height, width = view.size_hw
            assert not images.pixels_N3HW[n, :, height:].any() and not images.pixels_N3HW[n, :, :, width:].any()
            part = view.part
            if shrink_factor((part.height, part.width), view.size_hw) > 1:  # decoded small: there is a test for that
                next_mask += int(targets.valid_NG[n].sum())
                continue
            whole = cv2.imread(str(record.path), cv2.IMREAD_COLOR_RGB)
            seen = np.ascontiguousarray(part.cut(whole))
            expected = v2.functional.resize(torch.from_numpy(seen).permute(2, 0, 1), [height, width], antialias=True)
            expected = expected.flip(2) if view.flip else expected
            off = (images.pixels_N3HW[n, :, :height, :width].int() - expected.int()).abs()
            assert off.max() <= 6 and off.float().mean() < 1  # OpenCV's weights, where it enlarges, are rougher

            truths = naive_truths(record, view, name == "iou")
            assert int(targets.valid_NG[n].sum()) == len(truths)
            kept, lost = kept + len(truths), lost + len(record.labels_G) - len(truths)
            for place, (g, box, mask) in enumerate(truths):
                np.testing.assert_allclose(targets.boxes_NG4[n, place], box, atol=2e-3)
                assert targets.labels_NG[n, place] == record.labels_G[g]
                assert targets.crowd_NG[n, place] == targets.ignore_NG[n, place] == record.crowd_G[g]
                assert (masks.image_index_K[next_mask], masks.truth_index_K[next_mask]) == (n, place)
                bits = masks.whole(next_mask, (height, width))
                assert ((mask < 0) | (bits.numpy() == mask)).all()
                certain.append((mask >= 0).mean())
                next_mask, cut = next_mask + 1, cut + (part != Box(0, 0, record.height, record.width))
        assert next_mask == len(masks.image_index_K)
    assert np.mean(certain) > 0.9
    assert kept > 100 and (name == "none") == (lost == 0) == (cut == 0)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_images_without_objects_and_images_that_lose_all_are_negatives(masked, name: str):
    loader = train_loader(masked, augmented(name), share={"stop": 40})
    negatives, seen = set(), set()
    for batch in loader:
        targets = batch.inputs[1]
        seen |= set(batch.image_ids)
        for n in (~targets.valid_NG.any(1)).nonzero().flatten().tolist():
            negatives.add(batch.image_ids[n])
            assert not targets.boxes_NG4[n].any() and not targets.labels_NG[n].any()
    assert seen == {10, 11, 12, 13, 14} and 14 in negatives
    without = train_loader(masked, augmented(name), keep_empty=False, share={"stop": 40})
    assert {i for batch in without for i in batch.image_ids} == {10, 11, 12, 13}


def test_a_view_beside_all_objects_is_a_negative(tmp_path: Path):
    write_picture(tmp_path / "a.png", 100, 100)
    triangle = {"bbox": [40, 40, 20, 20], "segmentation": [[40, 40, 60, 40, 60, 60]]}
    write_coco(tmp_path, {"a.png": (100, 100)}, [triangle])
    dataset = open_detection(tmp_path, "json:ann.json")
    views, share = augmented("range"), {"batch": 1, "stop": 120}
    counts = []
    for masks in (False, True):
        found = [batch.inputs[1] for batch in train_loader(dataset, views, masks=masks, share=share)]
        counts.append([int(targets.valid_NG.sum()) for targets in found])
        assert all(not masks or len(targets.masks.windows_K4) == n for targets, n in zip(found, counts[-1]))
    assert 10 < sum(counts[0]) < 115
    assert sum(counts[1]) <= sum(counts[0])  # of the box something may be left where nothing of the triangle is


def test_a_crowd_never_draws_a_crop_and_stays_where_its_centre_is_cut_away(tmp_path: Path):
    """An object on the left, and a crowd over the whole width, whose centre many crops do not have."""
    write_picture(tmp_path / "a.png", 60, 100)
    crowd = {"bbox": [0, 40, 100, 20], "iscrowd": 1}
    write_coco(tmp_path, {"a.png": (60, 100)}, [{"bbox": [2, 5, 20, 30]}, crowd])
    dataset = open_detection(tmp_path, "json:ann.json")
    loader = train_loader(dataset, replace(augmented("iou"), flip=0.0), share={"batch": 1, "stop": 150})
    cut_crowds = 0
    for batch in loader:
        targets = batch.inputs[1]
        assert (targets.valid_NG[0] & ~targets.ignore_NG[0]).sum() == 1  # the object's centre is in every crop
        rng = np.random.default_rng(draw_seed(7, batch.iteration, 1))
        canvas = tuple(batch.inputs[0].pixels_N3HW.shape[2:])
        view = loader.reader.views((60, 100), canvas, np.array([[2, 5, 22, 35]], np.float32), rng)
        part, has_crowd = view.part, bool(targets.crowd_NG[0].any())
        assert has_crowd == ((part.top + part.height - 40) * view.size_hw[0] / part.height >= 1)
        cut_crowds += has_crowd and part.left + part.width <= 50
    assert cut_crowds > 5


EVERYTHING = DetectionAugmentation(any_side=True, crop="iou", crop_chance=0.7, jitter=(0.3, 2.0), photometric=1.0)


def everything(dataset, **share: int) -> Loader:
    views = replace(VIEWS, augmentation=EVERYTHING)
    return train_loader(dataset, views, masks=True, repeat_threshold=1.0, share=share)


def test_with_everything_on_nothing_depends_on_workers_processes_or_where_the_loader_starts(masked):
    def of_images(batch) -> list[torch.Tensor]:
        images, targets = batch.inputs
        tensors = [images.pixels_N3HW, targets.boxes_NG4, targets.labels_NG, targets.draw_seeds_N]
        count = int((targets.masks.windows_K4[:, 2:] - targets.masks.windows_K4[:, :2]).prod(1).sum())
        return [*tensors, targets.masks.windows_K4, targets.masks.bits(torch.arange(count))]

    assert_forks_and_resumes(partial(everything, masked), start=5, stop=9)
    assert_processes_share(partial(everything, masked), of_images=of_images, stop=6)


def test_photometric_distortion_changes_colours_and_nothing_else(masked):
    plain = train_loader(masked, VIEWS, share={"stop": 10})
    photometric = replace(VIEWS, augmentation=DetectionAugmentation(photometric=1.0))
    changed = 0
    for one, other in zip(plain, train_loader(masked, photometric, share={"stop": 10}), strict=True):
        assert one.inputs[0].sizes_hw == other.inputs[0].sizes_hw
        assert torch.equal(one.inputs[1].boxes_NG4, other.inputs[1].boxes_NG4)
        off = (one.inputs[0].pixels_N3HW.int() - other.inputs[0].pixels_N3HW.int()).abs().amax(dim=(1, 2, 3))
        changed += int((off > 3).sum())
        for n, (height, width) in enumerate(other.inputs[0].sizes_hw):
            assert not other.inputs[0].pixels_N3HW[n, :, height:].any()
            assert not other.inputs[0].pixels_N3HW[n, :, :, width:].any()
    assert 30 < changed < 40  # 15 of 16


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photographs_are_decoded_small_and_their_boxes_stay_on_the_pixels(tmp_path: Path, orientation: int):
    """A white rectangle in a dark photograph, twice and four times as large as it is seen, of an odd size."""
    height, width = 1101, 1507
    dark = picture(height, width) // 4
    dark[300:700, 500:1100] = 255
    shown = dark if orientation == 1 else np.rot90(dark, 1)  # stored so that turning it shows `dark`
    write_turned(tmp_path / "a.jpg", shown, orientation)
    outline = [500, 300, 1100, 300, 1100, 700, 500, 700]
    write_coco(tmp_path, {"a.jpg": (height, width)}, [{"bbox": [500, 300, 600, 400], "segmentation": [outline]}])
    dataset = open_detection(tmp_path, "json:ann.json")
    views = ViewDraw((240,), 400, 0.5, DetectionAugmentation(crop="range", crop_min=0.4, jitter=(0.5, 2.0)))
    checked = 0
    for batch in train_loader(dataset, views, masks=True, share={"batch": 1, "stop": 25}):
        images, targets = batch.inputs
        if not targets.valid_NG.any():
            continue
        (view_h, view_w), box = images.sizes_hw[0], targets.boxes_NG4[0, 0]
        bright = images.pixels_N3HW[0].amin(0)[:view_h, :view_w] > 160
        bits = targets.masks.whole(0, (view_h, view_w)) > 0
        assert (bright != bits).sum() <= 1.2 * (view_h + view_w)
        assert (extent(bright) - box).abs().max() <= 1.5
        checked += 1
    assert checked > 18


@pytest.mark.parametrize(
    ("augmentation", "limit", "thinnest_px"),  # of thinner objects a pixel's rounding is too large a part
    [(DetectionAugmentation(), 24, 4), (DetectionAugmentation(crop="range", jitter=(0.4, 2.0)), 40, 8)],
    ids=["whole", "cut"],
)
def test_masks_of_real_objects_stay_in_step_with_their_boxes(
    shared_data: Path, augmentation: DetectionAugmentation, limit: int, thinnest_px: int
):
    """The tight box of a mask lies within its box, and of whole objects covers nearly all of it."""
    dataset = open_detection(shared_data, "coco/val2017")
    views = ViewDraw((200,), 320, 0.5, augmentation)
    overlaps = []
    for batch in train_loader(dataset, views, masks=True, share={"stop": 15, "limit": limit}):
        images, targets = batch.inputs
        masks = targets.masks
        assert len(masks.windows_K4) == len(masks.image_index_K) == int(targets.valid_NG.sum())
        for k, (n, g) in enumerate(zip(masks.image_index_K.tolist(), masks.truth_index_K.tolist())):
            bits = masks.whole(k, images.sizes_hw[n])
            box = targets.boxes_NG4[n, g]
            assert (box[:2] >= 0).all() and (box[2:] <= torch.tensor(images.sizes_hw[n][::-1])).all()
            if (box[2:] - box[:2]).min() < thinnest_px:
                continue
            tight = extent(bits)
            assert (tight[:2] >= box[:2] - 2).all() and (tight[2:] <= box[2:] + 2).all()
            if augmentation == DetectionAugmentation():
                assert (tight - box).abs().max() < 2.5
            overlaps.append(float((tight[2:] - tight[:2]).prod() / (box[2:] - box[:2]).prod()))
    assert len(overlaps) > 150 and np.median(overlaps) > 0.95 and min(overlaps) > 0.6
