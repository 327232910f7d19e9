"""Transforms: image, boxes and masks stay in step; crops cover what they should; draws come from the given rng."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from tests.data.writers import picture
from vertebra.data.loading.targets import place_on
from vertebra.data.transforms.classification_views import AUGMENTS, ClassificationTransform
from vertebra.data.transforms.detection_views import DrawnView, view_truths, write_view
from vertebra.data.transforms.geometry import Box, centre_crop, pad_crop, resize
from vertebra.ground.rle import Patch


def detection_view(image, boxes_G4, masks_G, *, size_hw, flip, out_HW3=None):
    """Pixels, boxes and masks of the view of a whole image, as a detector's reader makes them."""
    view = DrawnView(Box(0, 0, *image.shape[:2]), size_hw, flip)
    out_HW3 = np.empty((*size_hw, 3), np.uint8) if out_HW3 is None else out_HW3
    write_view(image, view, 0.0, np.random.default_rng(0), out_HW3)
    return (out_HW3, *view_truths(boxes_G4, masks_G, image.shape[:2], view))


@st.composite
def placed_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[int, int, int, int]]]:
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        boxes.append((x0, y0, draw(st.integers(x0 + 6, width)), draw(st.integers(y0 + 6, height))))
    return (height, width), boxes


@settings(max_examples=60)
@given(placed=placed_boxes(), new=st.tuples(st.integers(30, 120), st.integers(30, 120)), flip=st.booleans())
def test_boxes_and_masks_and_pixels_stay_in_step(placed, new: tuple[int, int], flip: bool):
    (height, width), boxes = placed
    boxes_G4 = np.array(boxes, np.float32).reshape(-1, 4)
    masks_GHW = np.zeros((len(boxes), height, width), np.uint8)
    for mask_HW, (x0, y0, x1, y1) in zip(masks_GHW, boxes):
        mask_HW[y0:y1, x0:x1] = 1
    image = np.zeros((height, width, 3), np.uint8)
    if boxes:
        image[masks_GHW[0] > 0] = 255
    patches = [Patch(y0, x0, masks_GHW[g, y0:y1, x0:x1]) for g, (x0, y0, x1, y1) in enumerate(boxes)]
    canvas = np.full((new[0] + 3, new[1] + 2, 3), 7, np.uint8)
    out_HW3 = canvas[: new[0], : new[1]]
    pixels, moved_G4, moved_G = detection_view(image, boxes_G4, patches, size_hw=new, flip=flip, out_HW3=out_HW3)
    assert pixels.shape == (*new, 3) and np.array_equal(pixels, out_HW3)
    assert (canvas[new[0] :] == 7).all() and (canvas[:, new[1] :] == 7).all()
    assert np.array_equal(pixels, detection_view(image, boxes_G4, [], size_hw=new, flip=flip)[0])
    moved_GHW = np.zeros((len(boxes), *new), np.uint8)
    for whole_HW, mask_HW, patch in zip(moved_GHW, masks_GHW, moved_G, strict=True):
        height_px, width_px = patch.bits_HW.shape
        whole_HW[patch.top : patch.top + height_px, patch.left : patch.left + width_px] = patch.bits_HW
        resized_HW = cv2.resize(mask_HW, new[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        assert np.array_equal(whole_HW, resized_HW[:, ::-1] if flip else resized_HW)
    scale = np.array([new[1] / width, new[0] / height] * 2)
    expected_G4 = boxes_G4 * scale
    if flip:
        expected_G4[:, [0, 2]] = new[1] - expected_G4[:, [2, 0]]
    np.testing.assert_allclose(moved_G4, expected_G4, atol=1e-3)
    for mask_HW, box in zip(moved_GHW, moved_G4):
        rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(extent - box).max() <= max(1.0, scale.max())
    if boxes:
        bright = pixels[..., 0] > 127
        assert (bright != (moved_GHW[0] > 0)).sum() <= 2 * (new[0] + new[1]) * max(1, scale.max())


def test_what_an_image_leaves_of_its_canvas_is_black():
    canvas = np.full((6, 7, 3), 9, np.uint8)
    place_on(canvas, (4, 5))[:] = 1
    expected = np.zeros_like(canvas)
    expected[:4, :5] = 1
    assert np.array_equal(canvas, expected)


def test_no_boxes_stay_no_boxes():
    image = picture(40, 50)
    pixels, boxes_G4, masks = detection_view(image, np.zeros((0, 4), np.float32), [], size_hw=(40, 50), flip=True)
    assert np.array_equal(pixels, image[:, ::-1]) and boxes_G4.shape == (0, 4) and masks == []


def test_one_pixel_boxes_and_whole_image_boxes_survive():
    boxes_G4 = np.array([[0, 0, 1, 1], [499, 332, 500, 333], [0, 0, 500, 333], [0.2, 0.1, 0.21, 0.4]], np.float32)
    _, moved_G4, _ = detection_view(picture(333, 500), boxes_G4, [], size_hw=(67, 100), flip=False)
    np.testing.assert_allclose(moved_G4, boxes_G4 * [0.2, 67 / 333, 0.2, 67 / 333], atol=1e-3)
    assert (moved_G4[:, 2:] > moved_G4[:, :2]).all()


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("shape", [(40, 64), (300, 200), (224, 224), (9, 700), (33, 32)])
def test_every_augmentation_gives_its_size_from_any_image(augment: str, shape: tuple[int, int]):
    transform = ClassificationTransform(size=32, shorter=36, augment=augment, min_scale=0.08, flip=0.5)
    views = [transform(picture(*shape), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)
    assert np.array_equal(views[0], views[1])
    if augment != "none":
        assert not np.array_equal(views[0], views[2])


def test_the_centre_crop_is_the_middle():
    image = picture(40, 60)
    assert np.array_equal(centre_crop(image, 40, 40), image[:, 10:50])
    assert np.array_equal(centre_crop(image, 20, 40), image[10:30, 20:40])


def test_a_padded_crop_is_a_shifted_image_with_zeros():
    image = np.full((32, 32, 3), 9, np.uint8)
    shifts = set()
    for seed in range(300):
        view = pad_crop(image, 32, np.random.default_rng(seed))
        rows, columns = (view[..., 0] > 0).any(1).sum(), (view[..., 0] > 0).any(0).sum()
        assert rows >= 28 and columns >= 28 and (view > 0).sum() == rows * columns * 3
        shifts.add((int(rows), int(columns)))
    assert len(shifts) == 25


def test_a_crop_keeps_to_its_share_of_the_area():
    """Where the image's columns and rows count up, a crop's extremes tell its borders."""
    ramp = np.zeros((200, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200), np.arange(200)[:, None]
    transform = ClassificationTransform(size=64, shorter=64, augment="crop", min_scale=0.25, flip=0)
    shares, ratios = [], []
    for seed in range(200):
        view = transform(ramp, np.random.default_rng(seed)).astype(float)
        width, height = np.ptp(view[..., 0]) + 3, np.ptp(view[..., 1]) + 3  # area averaging eats the edges
        shares.append(width * height / 200**2)
        ratios.append(width / height)
    assert 0.22 < min(shares) < 0.35 and 0.9 < max(shares) < 1.1
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.45


@pytest.mark.parametrize("new", [(32, 32), (50, 90), (130, 20)])
def test_what_gets_smaller_is_resized_as_torchvision_does(new: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (140, 100, 3), np.uint8)
    torchvisions = v2.functional.resize(torch.from_numpy(noise).permute(2, 0, 1), list(new), antialias=True)
    assert np.abs(resize(noise, *new).astype(int) - torchvisions.permute(1, 2, 0).numpy()).max() <= 1
    view = noise[3:90, 5:80]  # a crop, which is not contiguous
    assert np.array_equal(resize(view, 32, 32), resize(np.ascontiguousarray(view), 32, 32))


@given(top=st.integers(0, 500), left=st.integers(0, 500), height=st.integers(1, 500), width=st.integers(1, 500))
def test_a_box_on_a_smaller_copy_covers_the_same_part(top: int, left: int, height: int, width: int):
    box = Box(top, left, height, width)
    for factor in (1, 2, 4, 8):
        small = box.shrunk(factor)
        for first, size, whole_first, whole in (
            (small.top, small.height, top, height),
            (small.left, small.width, left, width),
        ):
            assert 0 <= whole_first - first * factor < factor
            assert 0 <= (first + size) * factor - (whole_first + whole) < factor
    assert box.shrunk(1) == box


def test_what_gets_larger_is_interpolated_by_opencv_and_a_mirrored_view_is_its_mirror():
    image, boxes_G4 = picture(30, 40), np.array([[1, 2, 9, 30]], np.float32)
    plain, plain_G4, _ = detection_view(image, boxes_G4, [], size_hw=(45, 61), flip=False)
    turned, turned_G4, _ = detection_view(image, boxes_G4, [], size_hw=(45, 61), flip=True)
    assert np.array_equal(plain, cv2.resize(image, (61, 45), interpolation=cv2.INTER_LINEAR))
    assert np.array_equal(turned, plain[:, ::-1])
    np.testing.assert_allclose(turned_G4, [[61 - plain_G4[0, 2], 3, 61 - plain_G4[0, 0], 45]], rtol=1e-6)


@given(width=st.integers(1, 2000), new=st.integers(1, 2000))
def test_a_box_of_the_whole_image_never_reaches_beyond_the_view(width: int, new: int):
    boxes_G4 = np.array([[0, 0, width, 1]], np.float32)
    for flip in (False, True):
        _, moved_G4, _ = detection_view(np.zeros((1, width, 3), np.uint8), boxes_G4, [], size_hw=(1, new), flip=flip)
        assert moved_G4.min() >= 0 and moved_G4[0, 2] <= new and abs(moved_G4[0, 2] - moved_G4[0, 0] - new) < 1e-3
