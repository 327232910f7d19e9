"""Decoding: every kind of image becomes the same RGB pixels, and every damaged file is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.writers import picture, write_turned
from vertebra.data.datasets.folders import is_image
from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.loading.decode import BOUND, decode_image, shrink_factor, stored_size
from vertebra.ground.errors import BadSample, DataError

HEIGHT, WIDTH = 40, 64


@pytest.fixture
def rgb() -> np.ndarray:
    return picture(HEIGHT, WIDTH)


def save(pixels: np.ndarray, path: Path, mode: str = "RGB", **options: object) -> Path:
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def test_colours_come_out_red_green_blue(tmp_path: Path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert decode_image(save(red, tmp_path / "red.png"))[0, 0].tolist() == [255, 0, 0]
    assert decode_image(save(red, tmp_path / "red.png"), shrink=2)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_jpeg_of_any_colour_space_gives_rgb(tmp_path: Path, rgb: np.ndarray, mode: str):
    decoded = decode_image(save(rgb, tmp_path / "image.jpg", mode, quality=98))
    expected = np.asarray(Image.fromarray(rgb).convert(mode).convert("RGB"), np.float32)
    assert decoded.shape == (HEIGHT, WIDTH, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded - expected).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_a_png_of_any_mode_gives_rgb(tmp_path: Path, rgb: np.ndarray, mode: str):
    path = save(rgb, tmp_path / "image.png", mode)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(decode_image(path), expected)


def test_sixteen_bits_become_eight(tmp_path: Path):
    deep = (np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 25).reshape(HEIGHT, WIDTH)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    decoded = decode_image(tmp_path / "deep.png")
    assert decoded.dtype == np.uint8
    assert np.abs(decoded[..., 0].astype(int) - deep // 256).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_in_sixteen_are_refused_and_dark_pictures_are_not(tmp_path: Path, suffix: str, channels: int):
    path = tmp_path / f"deep{suffix}"
    deep = np.linspace(0, 4095, HEIGHT * WIDTH * channels, dtype=np.uint16).reshape(HEIGHT, WIDTH, channels)
    cv2.imwrite(str(path), deep)
    with pytest.raises(BadSample, match=rf"deep\{suffix}: has 16-bit values up to 4095, as of a 12-bit .*; stretch"):
        decode_image(path)
    cv2.imwrite(str(path), deep * 16)
    assert decode_image(path).max() == 255
    for black in (deep * 0, (deep >> 8).astype(np.uint8)):
        cv2.imwrite(str(path), black)
        assert decode_image(path).max() < 16


@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".avif"])
def test_every_kind_of_image_is_read_and_none_beyond_the_bound(
    tmp_path: Path, rgb: np.ndarray, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    if suffix == ".avif" and not cv2.haveImageWriter("a.avif"):
        pytest.skip("OpenCV was built without AVIF")
    content = cv2.imencode(suffix.replace("jfif", "jpg"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    path = tmp_path / f"image{suffix}"
    content.tofile(path)
    monkeypatch.setenv(BOUND, str(HEIGHT * WIDTH))
    assert is_image(path.name) and np.abs(decode_image(path).astype(int) - rgb).mean() < 6
    assert image_sizes([path])[0].tolist() == [[HEIGHT, WIDTH]]
    monkeypatch.setenv(BOUND, str(HEIGHT * WIDTH - 1))
    sentence = f"is {WIDTH} x {HEIGHT} pixels, more than the {HEIGHT * WIDTH - 1} of {BOUND}"
    with pytest.raises(BadSample, match=rf"image\{suffix}: {sentence}; remove it, or set {BOUND} in the environment"):
        decode_image(path)
    assert image_sizes([path])[1][0].reason == sentence
    monkeypatch.setenv(BOUND, "many")
    for read in (decode_image, lambda path: image_sizes([path])):
        with pytest.raises(DataError, match=f"{BOUND}: is 'many'; give the most pixels"):
            read(path)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path):
    """40,000 x 40,000 pixels, 4.8 GB in RGB, in 200 kB."""
    path = tmp_path / "bomb.png"
    Image.new("1", (40_000, 40_000)).save(path)
    with pytest.raises(BadSample, match=rf"bomb\.png: is 40000 x 40000 pixels, more than the {1 << 28} of {BOUND}"):
        decode_image(path)
    assert "is 40000 x 40000 pixels" in image_sizes([path])[1][0].reason


def test_exif_rotation_is_applied_unless_annotations_were_made_on_the_stored_pixels(tmp_path: Path, rgb: np.ndarray):
    path = tmp_path / "turned.jpg"
    write_turned(path, rgb, 6)  # shown a quarter turn clockwise
    assert stored_size(path.read_bytes()) == (HEIGHT, WIDTH)
    for size_hw in (None, (WIDTH, HEIGHT)):
        shown = decode_image(path, size_hw=size_hw)
        assert shown.shape == (WIDTH, HEIGHT, 3)
        assert np.abs(shown.astype(int) - np.rot90(rgb, -1)).mean() < 3
    stored = decode_image(path, size_hw=(HEIGHT, WIDTH))
    assert np.abs(stored.astype(int) - rgb).mean() < 3


def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path, rgb: np.ndarray):
    path = save(rgb, tmp_path / "image.jpg")
    with pytest.raises(BadSample, match=r"image\.jpg: is 64 x 40 pixels, its annotation says 99 x 40; correct"):
        decode_image(path, size_hw=(40, 99))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named_and_never_half_grey(tmp_path: Path, suffix: str, part: float):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = save(noise, path).read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadSample, match=rf"cut\{suffix}: .+; replace it, or remove it from the data set"):
        decode_image(path)


def test_a_thumbnails_end_is_not_taken_for_the_images_end(tmp_path: Path, rgb: np.ndarray):
    thumbnail = save(rgb[:16, :16], tmp_path / "thumb.jpg").read_bytes()
    content = save(rgb, tmp_path / "image.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = content[:2] + segment + content[2:]
    (tmp_path / "image.jpg").write_bytes(whole)
    assert decode_image(tmp_path / "image.jpg").shape == (HEIGHT, WIDTH, 3)
    assert stored_size(whole) == (HEIGHT, WIDTH)
    (tmp_path / "image.jpg").write_bytes(whole[:-30])
    with pytest.raises(BadSample, match="truncated"):
        decode_image(tmp_path / "image.jpg")


def test_a_progressive_jpeg_and_junk_after_the_end_are_fine(tmp_path: Path, rgb: np.ndarray):
    path = tmp_path / "image.jpg"
    Image.fromarray(rgb).save(path, quality=98, progressive=True)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert np.abs(decode_image(path).astype(int) - rgb).mean() < 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "zero bytes long; replace it"),
        (b"hello", "is not an image that OpenCV can decode; replace it"),
        (None, "no such image; restore it, or remove it from the data set"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes | None, sentence: str):
    if content is not None:
        (tmp_path / "no.jpg").write_bytes(content)
    with pytest.raises(BadSample, match=rf"no\.jpg: {sentence}"):
        decode_image(tmp_path / "no.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_shrunken_decoding_gives_the_same_picture_smaller(tmp_path: Path, suffix: str, shrink: int):
    rgb = picture(203, 301)
    path = save(rgb, tmp_path / f"image{suffix}")
    small = decode_image(path, size_hw=(203, 301), shrink=shrink)
    assert abs(small.shape[0] - 203 / shrink) <= 1 and abs(small.shape[1] - 301 / shrink) <= 1
    expected = cv2.resize(rgb, small.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - expected).mean() < 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_shrunken_decoding_averages_and_does_not_pick(tmp_path: Path, suffix: str):
    """Noise of deviation s has s / 8 left where each pixel is the mean of 64."""
    noise = np.random.default_rng(0).normal(128, 37, (160, 160, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    cv2.imwrite(str(path := tmp_path / f"noise{suffix}"), noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert decode_image(path, shrink=8).std() == pytest.approx(37 / 8, rel=0.15)


def test_the_shrink_factor_never_loses_wanted_pixels():
    assert [shrink_factor((800, 1600), (w, 2 * w)) for w in (800, 401, 400, 200, 100, 10)] == [1, 1, 2, 4, 8, 8]
