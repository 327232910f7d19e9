"""Pictures and videos that somebody names: found, and the very pixels that a test set's loader gives."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch

from tests.data.writers import picture, write_coco, write_picture, write_turned
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.pictures import find_pictures
from vertebra.data.loading.detection import detection_test_loader
from vertebra.data.loading.pictures import open_video, picture_loader, video_batches
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.canvases import FixedView
from vertebra.ground.errors import BadSample, DataError

SIZES_HW = [(60, 80), (75, 50), (700, 900), (48, 200), (64, 64)]  # the third is decoded shrunken


@pytest.fixture
def folder(tmp_path):
    for seed, size_hw in enumerate(SIZES_HW):
        write_picture(tmp_path / "photos" / f"{seed}.jpg", *size_hw, seed=seed)
    return tmp_path / "photos"


def names(found):
    return [path.name for path in (*found.images, *found.videos)]


def write_video(path, frames, size_hw=(48, 64), codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 8, size_hw[::-1])
    assert writer.isOpened()
    for shade in frames:
        writer.write(np.full((*size_hw, 3), (128, 128, shade), np.uint8))
    writer.release()


def test_files_folders_and_patterns_are_found_once_and_in_order(folder, tmp_path):
    write_picture(tmp_path / "more" / "x" / "a.png", 10, 10)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_text("nor this")
    (folder / "clip.AVI").write_text("a video by its name")
    found = find_pictures([str(folder / "3.jpg"), str(folder), f"{tmp_path}/more/**/*", f"{folder}/*.jpg"])
    assert names(found) == ["3.jpg", "0.jpg", "1.jpg", "2.jpg", "4.jpg", "a.png", "clip.AVI"]
    assert names(find_pictures([str(folder / "notes.txt")])) == ["notes.txt"]  # named, so it is tried


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("empty", "empty: no images or videos in this folder$"),
        ("nested", r"nested: no images or videos in this folder; for those in its folders write '.*nested/\*\*/\*'"),
        ("empty/*.jpg", "no image or video has such a name"),
    ],
)
def test_what_leads_to_nothing_is_a_sentence(tmp_path, name, sentence):
    (tmp_path / "empty").mkdir()
    write_picture(tmp_path / "nested" / "x" / "1.jpg", 8, 8)
    with pytest.raises(DataError, match=sentence):
        find_pictures([str(tmp_path / name)])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pictures_are_the_pixels_of_a_test_set(folder, batch_size):
    write_coco(folder, {f"{n}.jpg": size_hw for n, size_hw in enumerate(SIZES_HW)}, [])
    dataset = open_detection(folder, "json:ann.json")
    test_set = detection_test_loader(dataset, FixedView(96, 160), Share(batch=batch_size))
    found = find_pictures([str(folder)])
    pictures = picture_loader(found.images, FixedView(96, 160), batch_size=batch_size)
    assert len(pictures) == len(test_set)
    for batch, test_batch in zip(pictures, test_set):
        (images,), (expected, targets) = batch.inputs, test_batch.inputs
        assert torch.equal(images.pixels_N3HW, expected.pixels_N3HW) and images.sizes_hw == expected.sizes_hw
        assert (batch.image_ids, batch.sizes_hw) == (targets.image_ids, targets.original_sizes_hw)
        for n, original in zip(batch.image_ids, batch.originals):
            read = cv2.imread(str(folder / f"{n - 1}.jpg"), cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(original.numpy(), read)


def test_what_cannot_be_read_is_left_out_and_named(folder):
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    (folder / "2.jpg").write_bytes(b"")
    (folder / "4.jpg").unlink()
    paths = [folder / f"{n}.jpg" for n in range(5)]
    first, second, third = picture_loader(paths, FixedView(96, 160), batch_size=2, originals=False)
    assert first.image_ids == (1,) and len(first.skipped) == 1 and "1.jpg: truncated" in first.skipped[0]
    assert second.image_ids == (4,) and "2.jpg: zero bytes long" in second.skipped[0]
    assert len(third) == 0 and "4.jpg: no such image" in third.skipped[0]
    assert first.originals == () and third.inputs[0].pixels_N3HW.shape[0] == 0


def test_pictures_of_all_kinds_are_read_upright_and_in_rgb(tmp_path):
    pixels_HW3 = picture(40, 60)
    cv2.imwrite(str(tmp_path / "grey.png"), pixels_HW3[..., 0])
    cv2.imwrite(str(tmp_path / "deep.png"), pixels_HW3[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([pixels_HW3[..., ::-1], np.full((40, 60), 9, np.uint8)]))
    write_turned(tmp_path / "turned.jpg", pixels_HW3, 6)  # shown a quarter turn to the right
    found = find_pictures([str(tmp_path)])
    loader = picture_loader(found.images, FixedView(32, 64), batch_size=1)
    batches = {path.name: batch for path, batch in zip(found.images, loader)}
    expected = {"grey.png": np.dstack([pixels_HW3[..., 0]] * 3), "deep.png": pixels_HW3, "clear.png": pixels_HW3}
    for name, expected_HW3 in expected.items():
        assert np.array_equal(batches[name].originals[0].numpy(), expected_HW3), name
    turned_HW3 = batches["turned.jpg"].originals[0].numpy()
    assert batches["turned.jpg"].sizes_hw == ((60, 40),)
    assert np.abs(turned_HW3.astype(int) - np.rot90(pixels_HW3, -1)).mean() < 5


def test_a_videos_frames_come_in_order_as_pictures_do(tmp_path):
    shades = [20, 90, 160, 230, 60]
    write_video(tmp_path / "clip.avi", shades)
    video, view = open_video(tmp_path / "clip.avi"), FixedView(96, 160)
    assert (video.size_hw, video.frames, video.frames_per_s) == ((48, 64), 5, 8)
    batches = list(video_batches(video, view, batch_size=2, first_id=11))
    assert [batch.image_ids for batch in batches] == [(11, 12), (13, 14), (15,)]
    originals = [original for batch in batches for original in batch.originals]
    assert [float(original[..., 0].float().mean()) for original in originals] == pytest.approx(shades, abs=4)
    frame = tmp_path / "frame.png"
    cv2.imwrite(str(frame), originals[3].numpy()[..., ::-1])
    (still,) = picture_loader([frame], view, batch_size=1)
    assert torch.equal(batches[1].inputs[0].pixels_N3HW[1], still.inputs[0].pixels_N3HW[0])


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_a_video_that_does_not_decode_is_named(tmp_path, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(BadSample, match=r"clip\.mp4: (zero bytes|is not a video)"):
        open_video(tmp_path / "clip.mp4")


def test_a_file_that_may_not_be_read_is_named(folder):
    os.chmod(folder / "0.jpg", 0)
    if os.access(folder / "0.jpg", os.R_OK):
        pytest.skip("this user reads everything")
    (batch,) = picture_loader([folder / "0.jpg"], FixedView(96, 160), batch_size=1)
    assert "cannot be read" in batch.skipped[0]
