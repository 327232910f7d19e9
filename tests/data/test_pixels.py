"""Augmentation of pixels: each operation against torchvision's, colour and erasing against a naive hand."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, v2

from vertebra.data.transforms.classification_views import AUGMENTS, ClassificationTransform
from vertebra.data.transforms.pixels import (
    LEVELS,
    OPERATIONS,
    RAND,
    TRIVIAL_WIDE,
    magnitude,
    pca_colour,
    pixel_changes,
    rand_augment,
    random_erasing,
    trivial_augment,
)

TORCHVISION = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "shift_x": "TranslateX", "shift_y": "TranslateY", "rotate": "Rotate",
    "brightness": "Brightness", "saturation": "Color", "contrast": "Contrast", "sharpness": "Sharpness",
    "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip
# Of values that should be whole numbers torchvision's floats fall just below some, and are cut to the next lower one.
SHARE_OFF = {"saturation": 0.08}
WARPS = ("shear_x", "shear_y", "rotate")  # positions between pixels are rounded by OpenCV


def scene(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """Smooth colours, edges and some noise, in part of the range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 220, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    image[height // 3 : height // 2, width // 4 : width // 2] = (200, 40, 90)
    return np.clip(image + rng.integers(-8, 9, image.shape), 5, 240).astype(np.uint8)


def reference(policy, name: str, image: np.ndarray, amount: float) -> np.ndarray:
    """torchvision's operation of that name; it takes shares for the threshold and pixels for translations."""
    if name in ("shift_x", "shift_y"):
        amount *= image.shape[1 if name == "shift_x" else 0]
    if name in ("solarize", "posterize"):
        amount = amount / 255 if name == "solarize" else round(amount)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    moved = policy._apply_image_or_video_transform(
        tensor, TORCHVISION[name], amount, interpolation=InterpolationMode.BILINEAR, fill={}
    )
    return moved.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(120, 160), (65, 64)])
def test_every_operation_is_torchvisions(name: str, shape: tuple[int, int]):
    image, before = scene(*shape), scene(*shape)
    for ranges, policy in ((TRIVIAL_WIDE, v2.TrivialAugmentWide()), (RAND, v2.RandAugment())):
        for level in (0, 7, 19, 30) if name in ranges else ():
            for sign in (1, -1) if OPERATIONS[name].signed else (1,):
                amount = sign * magnitude(ranges[name], level)
                own = OPERATIONS[name].change(image, amount)
                off = np.abs(own.astype(int) - reference(policy, name, image, amount))
                assert own.shape == image.shape and own.dtype == np.uint8
                if name in WARPS:
                    assert off.mean() < 0.3 and (off > 8).mean() < 2e-3, (amount, off.mean(), off.max())
                else:
                    assert off.max() <= 1 and (off > 0).mean() < SHARE_OFF.get(name, 2e-3), (amount, off.max())
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", ["brightness", "posterize", "solarize", "autocontrast", "equalize", "translate_x"])
def test_tables_and_whole_pixels_are_exact(name: str):
    flat = np.full((9, 12, 3), 77, np.uint8)
    two = scene(40, 50)
    two[..., 1] = 130  # a channel without contrast
    for image in (flat, two, scene(50, 40, seed=3)):
        for level in range(0, LEVELS, 3):
            amount = magnitude(TRIVIAL_WIDE[name], level)
            assert np.array_equal(
                OPERATIONS[name].change(image, amount), reference(v2.TrivialAugmentWide(), name, image, amount)
            )


@pytest.mark.parametrize(
    ("ranges", "policy"), [(TRIVIAL_WIDE, v2.TrivialAugmentWide()), (RAND, v2.RandAugment())], ids=["trivial", "rand"]
)
def test_policies_have_torchvisions_operations_signs_and_magnitudes(ranges: dict, policy):
    torchvisions = policy._AUGMENTATION_SPACE
    assert [TORCHVISION[name] for name in ranges] == list(torchvisions)
    for name, ends in ranges.items():
        values, signed = torchvisions[TORCHVISION[name]]
        assert signed == (OPERATIONS[name].signed)
        table = values(LEVELS, 200, 300)
        if table is None:
            continue
        unit = {"shift_x": 300, "shift_y": 200, "solarize": 1 / 255}.get(name, 1)
        own = [magnitude(ends, level) * unit for level in range(LEVELS)]
        if name == "posterize":
            own = [round(value) for value in own]
        np.testing.assert_allclose(own, table.numpy(), rtol=1e-5, atol=1e-6)


class Scripted:
    """In the place of a generator: gives the scripted numbers."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    def integers(self, *_):
        return self.answers.pop(0)

    random = uniform = normal = integers


def test_trivial_augment_draws_level_operation_and_sign():
    image = scene()
    rotate = list(TRIVIAL_WIDE).index("rotate")
    turned = trivial_augment(image, Scripted(20, rotate, 0.2))
    assert np.array_equal(turned, OPERATIONS["rotate"].change(image, -90))
    np.testing.assert_allclose(turned[:, 20:140], np.rot90(image[:, 20:140], -1), atol=1)  # clockwise
    equalize = list(TRIVIAL_WIDE).index("equalize")
    assert np.array_equal(trivial_augment(image, Scripted(4, equalize)), OPERATIONS["equalize"].change(image, 0))


def test_rand_augment_does_two_operations_of_its_magnitude():
    image = scene()
    first, second = list(RAND).index("posterize"), list(RAND).index("shift_x")
    expected = OPERATIONS["shift_x"].change(OPERATIONS["posterize"].change(image, 8 - 4 * 15 / 30), -0.5 * 150 / 331)
    assert np.array_equal(rand_augment(image, Scripted(first, second, 0.1), level=15), expected)


def test_all_operations_come_equally_often(monkeypatch):
    seen: list[str] = []
    for name in TRIVIAL_WIDE:

        def change(_: np.ndarray, amount: float, name: str = name) -> None:
            seen.append(f"{name}{amount < 0}")

        monkeypatch.setitem(OPERATIONS, name, replace(OPERATIONS[name], change=change))
    rng = np.random.default_rng(0)
    for _ in range(5600):
        trivial_augment(None, rng)  # type: ignore[arg-type]
    for name in TRIVIAL_WIDE:
        positive, negative = seen.count(f"{name}False"), seen.count(f"{name}True")
        assert 320 < positive + negative < 480 and (abs(positive - negative) < 90 or not OPERATIONS[name].signed)
        assert negative > 0 or not OPERATIONS[name].signed


@pytest.mark.parametrize("seed", range(5))
def test_pca_colour_is_alexnets(seed: int):
    """Pixel by pixel on the 0..1 scale: the three eigenvectors times their eigenvalues times one draw each."""
    image = scene(7, 9, seed)
    alphas = np.random.default_rng(seed).normal(0, 0.1, 3)
    axes = [(-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203)]
    expected = np.empty_like(image)
    for y in range(7):
        for x in range(9):
            rgb = [value / 255 for value in image[y, x].tolist()]
            for alpha, value, axis in zip(alphas, (0.2175, 0.0188, 0.0045), axes):
                rgb = [channel + alpha * value * along for channel, along in zip(rgb, axis)]
            expected[y, x] = [min(255, max(0, round(channel * 255))) for channel in rgb]
    shifted = pca_colour(image, np.random.default_rng(seed))
    assert np.array_equal(shifted, expected)


def test_pca_shifts_are_of_the_published_size():
    """The first axis is nearly grey: 0.1 * 0.2175 * 255 * 0.58 grey levels a channel."""
    rng, grey = np.random.default_rng(0), np.full((1, 1, 3), 128, np.uint8)
    shifts = np.array([pca_colour(grey, rng)[0, 0].astype(float) - 128 for _ in range(3000)])
    assert shifts.std(0) == pytest.approx([3.2, 3.2, 3.2], abs=0.25) and np.abs(shifts.mean(0)).max() < 0.2


def test_an_erased_rectangle_has_the_networks_colour_and_nothing_else_changes():
    image = scene(90, 110)
    for seed in range(40):
        erased = random_erasing(image, np.random.default_rng(seed), chance=1.0, rgb=(123.675, 116.28, 103.53))
        changed = (erased != image).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        expected = image.copy()
        expected[box] = (124, 116, 104)
        assert np.array_equal(erased, expected)
    assert np.array_equal(image, scene(90, 110))


def test_rectangles_are_as_large_and_as_long_as_torchvisions():
    torch.manual_seed(0)
    torchvisions, blank = v2.RandomErasing(p=1), torch.zeros(3, 200, 300)
    drawn = [torchvisions.make_params([blank]) for _ in range(3000)]
    expected = np.array([(p["h"] * p["w"] / 60_000, np.log(p["h"] / p["w"])) for p in drawn])
    own, white = [], np.full((200, 300, 3), 255, np.uint8)
    for seed in range(3000):
        gone = random_erasing(white, np.random.default_rng(seed), chance=1.0, rgb=(0, 0, 0))[..., 0] == 0
        h, w = int(gone.any(1).sum()), int(gone.any(0).sum())
        own.append((h * w / 60_000, np.log(h / w)))
    for level in (0.02, 0.25, 0.5, 0.75, 0.98):
        np.testing.assert_allclose(np.quantile(own, level, 0), np.quantile(expected, level, 0), atol=0.06)


def test_erasing_happens_as_often_as_asked():
    image = scene(40, 40)
    rng = np.random.default_rng(0)
    share = np.mean([random_erasing(image, rng, chance=0.25, rgb=(0, 0, 0)) is not image for _ in range(2000)])
    assert 0.22 < share < 0.28 and pixel_changes(erase=0.0) == ()


options = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["none", "trivial", "rand"]),
        "policy_magnitude": st.integers(0, 30),
        "colour": st.sampled_from(["none", "pca"]),
        "erase": st.sampled_from([0.0, 0.5, 1.0]),
        "erase_rgb": st.just((124, 116, 104)),
    }
)


@settings(max_examples=150)
@given(
    options=options,
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.integers(8, 48),
    augment=st.sampled_from(AUGMENTS),
    flip=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**40),
)
def test_pictures_stay_sane_under_any_options(options, shape, size: int, augment: str, flip: float, seed: int):
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    kept = image.copy()
    transform = ClassificationTransform(
        size=size, shorter=size + 3, augment=augment, min_scale=0.1, flip=flip, pixel_changes=pixel_changes(**options)
    )
    views = [transform(image, np.random.default_rng(seed)) for _ in range(2)]
    for view in views:
        assert view.shape == (size, size, 3) and view.dtype == np.uint8
        assert view.flags.c_contiguous or not (transform.pixel_changes or flip)
    assert np.array_equal(*views) and np.array_equal(image, kept)
    bare = ClassificationTransform(size=size, shorter=size + 3, augment=augment, min_scale=0.1, flip=flip)
    if not transform.pixel_changes:
        assert np.array_equal(views[0], bare(image, np.random.default_rng(seed)))


def test_real_photographs_too(shared_data: Path):
    """The operations whose tables depend on the picture, on what they are made for."""
    paths = sorted((shared_data / "imagenette" / "val").rglob("*.JPEG"))[::800]
    assert paths
    for path in paths:
        image = cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), (224, 224))
        for name in ("equalize", "autocontrast", "contrast", "saturation", "sharpness"):
            amount = TRIVIAL_WIDE[name][1] * 0.7
            off = np.abs(
                OPERATIONS[name].change(image, amount).astype(int)
                - reference(v2.TrivialAugmentWide(), name, image, amount)
            )
            assert off.max() <= 1 and (off > 0).mean() < SHARE_OFF.get(name, 2e-3)
