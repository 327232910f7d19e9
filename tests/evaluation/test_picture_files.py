"""Drawings as files: names, pictures, videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vertebra.evaluation.predict import pictures
from vertebra.evaluation.predict.pictures import VideoFile, drawing_names, encode_picture
from vertebra.ground.errors import UserError


def test_no_two_drawings_have_one_name():
    images = [Path(name) for name in ("a/1.jpg", "b/1.jpg", "c/1.JPG", "1_2.jpg", "1.png", "1.tiff", "d/1.bmp")]
    videos = [Path(name) for name in ("a/clip.mp4", "clip.avi", "clip_2.mov")]
    names = drawing_names(images, videos)
    assert names[:2] == ["1.jpg", "1_2.jpg"] and names[4] == "1.png" and names[7] == "clip.mp4"
    # With either of a video's suffixes, and on file systems that do not tell capitals.
    written = [name.lower() for name in names[:7]]
    written += [Path(name).stem.lower() + suffix for name in names[7:] for suffix in (".mp4", ".avi")]
    assert len(set(written)) == len(written) == 13


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_pictures_are_written_in_rgb(suffix):
    pixels_HW3 = np.full((40, 60, 3), (250, 120, 10), np.uint8)
    content = encode_picture(pixels_HW3, suffix)
    read_HW3 = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(read_HW3.astype(int) - pixels_HW3).max() <= (0 if suffix == ".png" else 4)


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("size_hw", [(48, 64), (49, 65)])
def test_a_video_keeps_its_frames_and_its_pace(tmp_path, size_hw):
    shades = (30, 120, 220)
    with VideoFile(tmp_path / "clip.mp4", size_hw, 12.5) as file:
        for shade in shades:
            file.add(np.full((*size_hw, 3), (shade, 128, 128), np.uint8))
        assert not (tmp_path / "clip.mp4").exists()
    frames, rate = frames_of(tmp_path / "clip.mp4")
    assert rate == 12.5 and [frame.shape[:2] for frame in frames] == [(48, 64)] * 3
    assert [frame[..., 0].mean() for frame in frames] == pytest.approx(shades, abs=6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_interrupted_video_keeps_what_it_has(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoFile(tmp_path / "clip.mp4", (48, 64), 10) as file:
        file.add(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "clip.mp4")[0]) == 1


def test_without_a_codec_the_next_one_is_used_and_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pictures, "CODECS", (("none", ".mp4"), ("MJPG", ".avi")))
    with VideoFile(tmp_path / "clip.mp4", (48, 64), 10) as file:
        file.add(np.zeros((48, 64, 3), np.uint8))
    assert file.path == tmp_path / "clip.avi" and len(frames_of(file.path)[0]) == 1
    assert "no none codec" in caplog.text and "clip.avi" in caplog.text


def test_without_any_codec_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "CODECS", (("none", ".mp4"),))
    with pytest.raises(UserError, match="no codec to write a video with"):
        VideoFile(tmp_path / "clip.mp4", (48, 64), 10)
    assert not list(tmp_path.iterdir())
