"""Batches for segmentation: labels in step with the pixels, padding ignored, the truth at test as it is on disk."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.data.batches import assert_forks_and_resumes, assert_processes_share, assert_same
from tests.data.test_semantic import write_map
from tests.data.writers import picture, write_picture, write_text
from vertebra.data.datasets.semantic import SemanticDataset, open_semantic
from vertebra.data.loading.decode import decode_image
from vertebra.data.loading.sampling import Share, draw_seed
from vertebra.data.loading.segmentation import segmentation_test_loader, segmentation_train_loader
from vertebra.data.transforms.canvases import FixedView
from vertebra.data.transforms.detection_views import DrawnView
from vertebra.data.transforms.geometry import Box
from vertebra.data.transforms.segmentation_views import SegmentationDraw, view_of_labels
from vertebra.ground.errors import BadSample, DataError
from vertebra.ground.labels import IGNORED

CELL, STEP = 16, 12  # pixels of a cell; grey levels from one to the next
SIZES = ((120, 200), (200, 120), (64, 96), (48, 48))


def write_chart(root: Path, stem: str, size_hw: tuple[int, int], extension: str) -> None:
    """Red says the column's cell and green the row's, and the label says both."""
    rows, columns = (np.arange(side) // CELL for side in size_hw)
    pixels_HW3 = np.zeros((*size_hw, 3), np.uint8)
    pixels_HW3[..., 0], pixels_HW3[..., 1] = STEP * columns[None], STEP * rows[:, None]
    path = root / "images" / "train" / f"{stem}{extension}"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    write_map(root / "masks" / "train" / f"{stem}.png", (rows[:, None] * 16 + columns[None]).astype(np.uint8))


@pytest.fixture
def charts(tmp_path: Path) -> SemanticDataset:
    return make_charts(tmp_path, ".png")


def make_charts(root: Path, extension: str) -> SemanticDataset:
    for number, size_hw in enumerate(SIZES):
        write_chart(root, f"{number}", size_hw, extension)
    write_text(root / "classes.txt", "\n".join(f"class {label}" for label in range(250)))
    return open_semantic(root, f"maps:{root}/train")


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.2, 0.4), (1.0, 1.0)])
def test_labels_are_in_step_with_the_pixels(tmp_path: Path, extension: str, scale: tuple, flip: int) -> None:
    """Colours, which are resized with the image, say the labels: nowhere another cell, on average no shift.

    JPEGs are decoded shrunken where they get much smaller.
    """
    dataset = make_charts(tmp_path, extension)
    wrong: list[torch.Tensor] = []
    for batch in segmentation_train_loader(dataset, SegmentationDraw((72, 88), scale, flip), Share(batch=4, stop=20)):
        images, labels_NHW = batch.inputs
        assert images.pixels_N3HW.shape == (4, 3, 72, 88) and labels_NHW.shape == (4, 72, 88)
        for pixels_3HW, labels_HW, (height, width) in zip(images.pixels_N3HW, labels_NHW, images.sizes_hw):
            assert (labels_HW[height:] == IGNORED).all() and (labels_HW[:, width:] == IGNORED).all()
            assert not pixels_3HW[:, height:].any() and not pixels_3HW[:, :, width:].any()
            red, green = pixels_3HW[:2, :height, :width].float() / STEP
            wrong += [
                (red - labels_HW[:height, :width] % 16).ravel(),
                (green - labels_HW[:height, :width] // 16).ravel(),
            ]
    columns, rows = torch.cat(wrong[::2]), torch.cat(wrong[1::2])
    noise, shift = (0.5, 0.02) if extension == ".jpg" else (0.5 / STEP, 0.01)  # cells
    assert max(columns.abs().max(), rows.abs().max()) <= (0 if scale[0] == 1 else 1) + noise
    assert max(abs(columns.mean()), abs(rows.mean())) < shift


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("decoded_hw", [(30, 44), (15, 22), (8, 11)])
def test_a_label_is_the_one_under_the_pixels_centre(flip: bool, decoded_hw: tuple[int, int]) -> None:
    """Against a loop in exact arithmetic, for images decoded to a half and a quarter too; 17 and 23 leave few ties."""
    labels_HW = np.random.default_rng(0).integers(0, 256, (30, 44), np.uint8)
    part = Box(1, 2, decoded_hw[0] - 2, decoded_hw[1] - 3)
    seen_HW = view_of_labels(labels_HW, DrawnView(part, (17, 23), flip), decoded_hw)

    def under(centre: Fraction) -> set[int]:
        """The place that a centre lies on, and both at a border."""
        return {math.floor(centre), math.ceil(centre) - 1}

    def sources(place: int, start: int, side: int, new: int, decoded: int, whole: int) -> set[int]:
        in_part = under(Fraction(2 * place + 1, 2) * Fraction(side, new))
        return set().union(*(under(Fraction(2 * (start + one) + 1, 2) * Fraction(whole, decoded)) for one in in_part))

    for y in range(17):
        for x in range(23):
            rows = sources(y, part.top, part.height, 17, decoded_hw[0], 30)
            columns = sources(22 - x if flip else x, part.left, part.width, 23, decoded_hw[1], 44)
            assert seen_HW[y, x] in labels_HW[np.ix_(sorted(rows), sorted(columns))]


def test_scales_sizes_and_sides_are_those_that_were_asked_for() -> None:
    labels_HW = np.zeros((100, 150), np.uint8)
    rng = np.random.default_rng(0)
    small = [SegmentationDraw((400, 400), (0.5, 2.0))(labels_HW, rng) for _ in range(500)]
    assert all(view.part == Box(0, 0, 100, 150) for view in small)  # nothing is cut off
    factors = np.array([view.size_hw[0] / 100 for view in small])
    assert factors.min() >= 0.5 and factors.max() <= 2 and abs(factors.mean() - 1.25) < 0.07
    assert 0.4 < np.mean([view.flip for view in small]) < 0.6
    based = SegmentationDraw((1000, 1000), (1.0, 1.0), shorter=60)(labels_HW, rng)
    assert based.size_hw == (60, 90)
    large = [SegmentationDraw((50, 60), (1.0, 1.0), flip=0)(labels_HW, rng) for _ in range(500)]
    assert {(view.part.height, view.part.width, *view.size_hw, view.flip) for view in large} == {
        (50, 60, 50, 60, False)
    }
    assert {view.part.top for view in large} == set(range(51)) and {view.part.left for view in large} == set(range(91))


def test_crops_of_one_class_are_drawn_again() -> None:
    labels_HW = np.zeros((200, 200), np.uint8)
    labels_HW[:30], labels_HW[150:] = 1, IGNORED
    rng = np.random.default_rng(0)

    def share_of_one(max_share: float) -> float:
        draw = SegmentationDraw((50, 50), (1.0, 1.0), max_share=max_share)
        views = [view_of_labels(labels_HW, draw(labels_HW, rng)) for _ in range(200)]
        return np.mean([len(set(view.ravel().tolist()) - {IGNORED}) < 2 for view in views])

    assert share_of_one(1.0) > 0.6 > 0.4 > share_of_one(0.9)


def test_batches_are_the_same_however_they_are_made(charts: SemanticDataset) -> None:
    draw = SegmentationDraw((40, 56), photometric=0.5, max_share=0.9)

    def make(batch: int = 4, **share):
        return segmentation_train_loader(charts, draw, Share(batch=batch, seed=3, **share))

    whole = assert_forks_and_resumes(make, start=3, stop=6)
    assert_processes_share(
        make, of_images=lambda batch: (batch.inputs[0].pixels_N3HW, batch.inputs[1]), start=0, stop=4
    )
    assert not torch.equal(whole[0].inputs[1], whole[1].inputs[1])


def test_the_colours_change_and_the_labels_stay(charts: SemanticDataset) -> None:
    plain, changed = (
        next(iter(segmentation_train_loader(charts, SegmentationDraw((64, 64), photometric=p), Share(batch=4))))
        for p in (0.0, 1.0)
    )
    assert torch.equal(plain.inputs[1], changed.inputs[1])
    assert not torch.equal(plain.inputs[0].pixels_N3HW, changed.inputs[0].pixels_N3HW)


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (lambda one: one.path(1).write_bytes(b""), r"1\.png: zero bytes long"),
        (lambda one: one.map_path(1).unlink(), r"1\.png: no such image"),
        (lambda one: write_map(one.map_path(1), np.full((200, 120), 251, np.uint8)), "has index 251"),
        (lambda one: write_map(one.map_path(1), np.zeros((9, 9), np.uint8)), "is 120 x 200 pixels, its annotation"),
    ],
)
def test_what_cannot_be_used_is_replaced_in_training_and_refused_at_test(
    charts: SemanticDataset, break_, reason: str
) -> None:
    break_(charts)
    (batch,) = segmentation_train_loader(charts, SegmentationDraw((64, 64)), Share(batch=4))
    assert len(batch.skipped) >= 1 and charts.image_ids_I[1] not in batch.image_ids
    with pytest.raises(BadSample, match=reason):
        list(segmentation_test_loader(charts, None, Share(batch=2)))


def test_at_test_images_come_as_they_are_with_their_truth(charts: SemanticDataset) -> None:
    batches = list(segmentation_test_loader(charts, None, Share(batch=3)))
    assert [batch.inputs[0].pixels_N3HW.shape for batch in batches] == [(3, 3, 224, 224), (1, 3, 64, 64)]
    place = 0
    for batch in batches:
        (images,) = batch.inputs
        assert batch.image_ids == tuple(charts.image_ids_I[place : place + len(batch)].tolist())
        for n, labels_HW in enumerate(batch.labels):
            height, width = images.sizes_hw[n]
            assert (height, width) == SIZES[place] == batch.original_sizes_hw[n] == labels_HW.shape
            assert np.array_equal(labels_HW, charts.labels(place))
            pixels_HW3 = images.pixels_N3HW[n, :, :height, :width].permute(1, 2, 0)
            assert np.array_equal(pixels_HW3, decode_image(charts.path(place)))
            place += 1


def test_at_test_a_view_resizes_the_images_and_leaves_their_truth(charts: SemanticDataset) -> None:
    view = FixedView(40, 60)
    batches = list(segmentation_test_loader(charts, view, Share(batch=4)))
    assert batches[0].inputs[0].sizes_hw == ((36, 60), (60, 36), (40, 60), (40, 40))
    assert [tuple(labels_HW.shape) for labels_HW in batches[0].labels] == list(SIZES)
    workers = list(segmentation_test_loader(charts, view, Share(batch=4, workers=1)))
    assert_same(batches, workers)
    for one, other in zip(batches[0].labels, workers[0].labels):
        assert torch.equal(one, other)
    assert batches[0].to("cpu").original_sizes_hw == SIZES


def test_at_test_a_batch_is_not_larger_than_was_said(charts: SemanticDataset) -> None:
    """Its canvas has room for upright and lying images."""
    for view in (None, FixedView(40, 60), FixedView(160, 1 << 20)):
        loader = segmentation_test_loader(charts, view, Share(batch=4))
        (batch,) = loader
        taken = batch.inputs[0].pixels_N3HW.numel() + sum(labels_HW.numel() for labels_HW in batch.labels)
        assert 0.5 * loader.reader.batch_bytes(4) < taken <= loader.reader.batch_bytes(4)


def test_at_test_two_processes_read_every_image_once(charts: SemanticDataset) -> None:
    shares = [
        [batch.image_ids for batch in segmentation_test_loader(charts, None, Share(batch=1, rank=rank, world_size=2))]
        for rank in range(2)
    ]
    assert sorted(one for share in shares for (one,) in share) == sorted(charts.image_ids_I.tolist())


def test_images_without_truth_come_without_labels(tmp_path: Path) -> None:
    base = tmp_path / "VOC2012"
    write_picture(base / "JPEGImages" / "a.jpg", 40, 60)
    write_text(base / "ImageSets" / "Segmentation" / "test.txt", "a\n")
    for view, size_hw in ((None, (40, 60)), (FixedView(20, 60), (20, 30))):
        (batch,) = segmentation_test_loader(open_semantic(tmp_path, "voc2012/test"), view, Share(batch=2))
        assert batch.labels == (None,) and batch.original_sizes_hw == ((40, 60),)
        assert batch.inputs[0].sizes_hw == (size_hw,)
    with pytest.raises(DataError, match=r"no SegmentationClass in it"):
        open_semantic(tmp_path, "voc2012/val")


def test_an_image_that_lies_on_its_side_meets_its_map_upright(tmp_path: Path) -> None:
    """EXIF turns the picture; a map of the size that is seen belongs to it, and one of the stored size as well."""
    from PIL import Image

    pixels_HW3 = picture(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    for stem, size_hw in (("seen", (60, 40)), ("stored", (40, 60))):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels_HW3).save(tmp_path / "images" / f"{stem}.jpg", exif=exif)
        write_map(tmp_path / "masks" / f"{stem}.png", np.zeros(size_hw, np.uint8))
    write_text(tmp_path / "classes.txt", "one\ntwo\n")
    (batch,) = segmentation_test_loader(open_semantic(tmp_path, f"maps:{tmp_path}"), None, Share(batch=2))
    assert batch.inputs[0].sizes_hw == ((60, 40), (40, 60))


def test_the_draw_is_keyed_by_seed_iteration_and_image(charts: SemanticDataset) -> None:
    draw = SegmentationDraw((40, 56), (1.0, 2.0))  # larger ones are never decoded shrunken
    batch = next(iter(segmentation_train_loader(charts, draw, Share(batch=4, seed=5, start=7))))
    places = {image_id: place for place, image_id in enumerate(charts.image_ids_I.tolist())}
    for n, image_id in enumerate(batch.image_ids):
        labels_HW = charts.labels(places[image_id])
        view = draw(labels_HW, np.random.default_rng(draw_seed(5, 7, image_id)))
        height, width = view.size_hw
        assert batch.inputs[0].sizes_hw[n] == view.size_hw
        assert np.array_equal(batch.inputs[1][n, :height, :width], view_of_labels(labels_HW, view))
