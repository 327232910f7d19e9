"""SSD's photometric distortion against a naive loop in floats and against torchvision."""

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tests.data.test_pixels import scene
from tests.data.writers import picture
from vertebra.data.transforms.pixels import colour, light, photometric


def naive_colour(pixel: list[int], saturation: float, degrees: float) -> list[float]:
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
    return [255 * value for value in colorsys.hsv_to_rgb((h + degrees / 360) % 1, min(1, s * saturation), v)]


@pytest.mark.parametrize(("saturation", "degrees"), [(0.5, 0), (1.5, 0), (1, 18), (1, -18), (0.8, 7), (1.3, -11)])
def test_hue_and_saturation_are_those_of_hsv(saturation: float, degrees: float):
    """Within what 256 hues and saturations can tell: a hue is 1.4 degrees, of which the rounding may take a half."""
    image = scene(30, 40)
    expected = [[naive_colour(pixel, saturation, degrees) for pixel in row] for row in image.tolist()]
    off = np.abs(colour(image, saturation, degrees) - np.array(expected))
    assert off.mean() < 1 and off.max() < 8
    assert np.abs(image - np.array(expected)).mean() > 3


def test_grey_stays_grey_and_black_black():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    assert np.array_equal(colour(grey, 1.5, 18), grey)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("added", [-32.0, 0.0, 20.0])
def test_light_is_a_sum_and_a_product_that_keep_to_the_range(added: float, factor: float):
    image = scene(20, 30)
    expected = [min(255, round(min(255, max(0, value + added)) * factor)) for value in image.reshape(-1).tolist()]
    assert light(image, added, factor).reshape(-1).tolist() == expected


def test_a_factor_is_torchvisions_brightness():
    image = scene()
    torchvisions = (
        v2.functional.adjust_brightness(torch.from_numpy(image).permute(2, 0, 1), 1.3).permute(1, 2, 0).numpy()
    )
    assert np.abs(light(image, 0, 1.3).astype(int) - torchvisions).max() <= 1


class Scripted:
    """In the place of a generator: which of the four happen, by how much, and which comes first."""

    def __init__(self, happens: list[float], amounts: list[float], order: float) -> None:
        self.answers = [np.array(happens), order]
        self.amounts = np.array(amounts)

    def random(self, *_):
        return self.answers.pop(0)

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        assert (low, high, count) == (-1, 1, 4)
        return self.amounts


def test_each_change_happens_by_its_own_draw_in_the_drawn_order():
    image = scene()

    def distorted(happens: list[float], order: float, strength: float = 1.0) -> np.ndarray:
        return photometric(image, strength, Scripted(happens, [0.5, -1.0, 1.0, -0.5], order))  # type: ignore[arg-type]

    for order in (0.1, 0.9):
        assert np.array_equal(distorted([0.9] * 4, order), image)
        assert np.array_equal(distorted([0.1, 0.9, 0.9, 0.9], order), light(image, 16, 1))
        assert np.array_equal(distorted([0.9, 0.1, 0.9, 0.9], order), light(image, 0, 0.5))
        assert np.array_equal(distorted([0.9, 0.9, 0.1, 0.9], order), colour(image, 1.5, 0))
        assert np.array_equal(distorted([0.9, 0.9, 0.9, 0.1], order, 0.5), colour(image, 1, -4.5))
    assert np.array_equal(distorted([0.1] * 4, 0.1), colour(light(image, 16, 0.5), 1.5, -9))
    assert np.array_equal(distorted([0.1] * 4, 0.9), light(colour(light(image, 16, 1), 1.5, -9), 0, 0.5))


def test_one_image_in_sixteen_stays_as_it_is_and_none_is_written_to():
    image = picture(8, 8)
    kept, rng = image.copy(), np.random.default_rng(0)
    same = np.mean([np.array_equal(photometric(image, 1.0, rng), image) for _ in range(3000)])
    assert 0.045 < same < 0.085 and np.array_equal(image, kept)


def test_a_part_of_an_image_is_changed_as_its_copy_is():
    image = scene()
    part = image[10:70, 20:90]
    for seed in range(10):
        one, other = (photometric(x, 1.0, np.random.default_rng(seed)) for x in (part, part.copy()))
        assert np.array_equal(one, other)
