"""Changes to the pixels of a view of which its geometry knows nothing: policies, colour, erasing, distortion.

Most are callables (image_HW3, rng) -> image_HW3 on contiguous uint8 RGB, and never writes into its input, which may
be a cached image. The operations are those of AutoAugment's family as torchvision defines them, in bilinear
interpolation with black beyond the border; where they are tables of 256 values they are applied as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

PixelChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]

LEVELS = 31  # magnitudes are the 31 evenly spaced values of an operation's range

# Eigenvalues and eigenvectors (columns) of the RGB pixels of ImageNet on the 0..1 scale, as they have been handed down
# since Torch's ResNet training of 2015.
PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])
PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
PCA_SPREAD = 0.1  # Krizhevsky et al. 2012, §4.1

ERASED_AREA = (0.02, 0.33)  # Zhong et al. 2017, as torchvision draws it
ERASED_RATIO = (0.3, 3.3)

# SSD's ranges: grey levels added, factors 0.5..1.5 of contrast and saturation, degrees of hue.
PHOTOMETRIC_LEVELS, PHOTOMETRIC_FACTOR, PHOTOMETRIC_DEGREES = 32.0, 0.5, 18.0

# OpenCV rounds to the nearest integer, torchvision cuts: the difference, less what floats are wrong by.
_CUT = -0.4999
_LUMA = np.array([[0.2989, 0.587, 0.114, _CUT]])
_BLUR = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_VALUES = np.arange(256, dtype=np.float32)


def pixel_changes(
    *,
    policy: str = "none",
    policy_magnitude: int = 9,
    colour: str = "none",
    erase: float = 0.0,
    erase_rgb: Sequence[float] = (0, 0, 0),
) -> tuple[PixelChange, ...]:
    """Return the changes of a view after its crop and mirroring, in order; none by default.

    policy: "trivial" or "rand", the latter at level `policy_magnitude` of 0..30. colour: "pca". erase: a chance;
    erase_rgb: what is filled in, the colour that the network takes for zero.
    """
    steps: list[PixelChange] = []
    if policy == "trivial":
        steps.append(trivial_augment)
    if policy == "rand":
        steps.append(partial(rand_augment, level=policy_magnitude))
    if colour == "pca":
        steps.append(pca_colour)
    if erase > 0:
        steps.append(partial(random_erasing, chance=erase, rgb=erase_rgb))
    return tuple(steps)


def pca_colour(image_HW3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """AlexNet's shift of all pixels along the colours' principal axes (Krizhevsky et al. 2012, §4.1)."""
    shift_3 = 255 * PCA_VECTORS @ (PCA_VALUES * rng.normal(0, PCA_SPREAD, 3))
    return cv2.transform(image_HW3, np.column_stack([np.eye(3), shift_3]))  # rounded and clipped


def random_erasing(
    image_HW3: np.ndarray, rng: np.random.Generator, *, chance: float, rgb: Sequence[float]
) -> np.ndarray:
    """Zhong et al. 2017: with a chance, a rectangle of 2..33 % of the area and of ratio 0.3..3.3 is filled.

    rgb: the fill, 0..255, rounded.
    """
    if rng.random() >= chance:
        return image_HW3
    height, width = image_HW3.shape[:2]
    for _ in range(10):  # of long rectangles some do not fit
        area = rng.uniform(*ERASED_AREA) * height * width
        ratio = math.exp(rng.uniform(*np.log(ERASED_RATIO)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            box, fill = (int(left), int(top), w, h), tuple(map(round, rgb))
            return cv2.rectangle(image_HW3.copy(), box, fill, thickness=cv2.FILLED) if w and h else image_HW3
    return image_HW3


def trivial_augment(image_HW3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One operation of any strength (Müller & Hutter 2021, the wide ranges)."""
    return _any_operation(image_HW3, rng, TRIVIAL_WIDE, int(rng.integers(LEVELS)))


def rand_augment(image_HW3: np.ndarray, rng: np.random.Generator, *, level: int) -> np.ndarray:
    """Two operations, one after the other, of one strength (Cubuk et al. 2019). level: 0..30."""
    for _ in range(2):
        image_HW3 = _any_operation(image_HW3, rng, RAND, level)
    return image_HW3


def _any_operation(
    image_HW3: np.ndarray, rng: np.random.Generator, ranges: Mapping[str, tuple[float, float]], level: int
) -> np.ndarray:
    name = tuple(ranges)[rng.integers(len(ranges))]
    amount = magnitude(ranges[name], level)
    operation = OPERATIONS[name]
    if operation.signed and rng.random() < 0.5:
        amount = -amount
    return operation.change(image_HW3, amount)


def magnitude(ends: tuple[float, float], level: int) -> float:
    """The value at `level` of 0..30 of a range from its weakest end to its strongest."""
    return ends[0] + (ends[1] - ends[0]) * level / (LEVELS - 1)


def shear_x(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """Each row moved left by `amount` times its distance from the top edge."""
    return _warp(image_HW3, [[1, amount, amount / 2], [0, 1, 0]])


def shear_y(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """Each column moved up by `amount` times its distance from the left edge."""
    return _warp(image_HW3, [[1, 0, 0], [amount, 1, amount / 2]])


def translate(image_HW3: np.ndarray, pixels: float, axis: int) -> np.ndarray:
    """Down (axis 0) or to the right (axis 1), by whole pixels."""
    moved, shift, side = np.zeros_like(image_HW3), int(pixels), image_HW3.shape[axis]
    there, here = moved.swapaxes(0, axis), image_HW3.swapaxes(0, axis)
    there[max(0, shift) : max(0, side + shift)] = here[max(0, -shift) : max(0, side - shift)]
    return moved


def shift(image_HW3: np.ndarray, share: float, axis: int) -> np.ndarray:
    """Down or to the right, by a share of the image's side."""
    return translate(image_HW3, share * image_HW3.shape[axis], axis)


def rotate(image_HW3: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise about the centre."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = ((side - 1) / 2 for side in image_HW3.shape[:2])
    return _warp(image_HW3, [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]])


def brightness(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """From black (-1) to twice as bright (1)."""
    return _look_up(image_HW3, _VALUES * np.float32(1 + amount))


def saturation(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """From grey (-1) to twice as colourful (1)."""
    return _blend(image_HW3, cv2.cvtColor(_grey(image_HW3), cv2.COLOR_GRAY2RGB), amount)


def contrast(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """From the mean grey (-1) to twice the contrast (1)."""
    mean = np.float32(cv2.mean(_grey(image_HW3))[0])
    return _look_up(image_HW3, _VALUES * np.float32(1 + amount) + mean * np.float32(-amount))


def sharpness(image_HW3: np.ndarray, amount: float) -> np.ndarray:
    """From blurred (-1) to sharpened (1); the border's pixels stay."""
    if min(image_HW3.shape[:2]) <= 2:
        return image_HW3
    sharpened = image_HW3.copy()
    sharpened[1:-1, 1:-1] = _blend(image_HW3, cv2.filter2D(image_HW3, -1, _BLUR), amount)[1:-1, 1:-1]
    return sharpened


def posterize(image_HW3: np.ndarray, bits: float) -> np.ndarray:
    """Only the highest bits of each value."""
    return image_HW3 & np.uint8(256 - (1 << (8 - round(bits))))


def solarize(image_HW3: np.ndarray, threshold: float) -> np.ndarray:
    """Values from the threshold on are inverted."""
    return _look_up(image_HW3, np.where(np.float32(threshold) <= _VALUES, 255 - _VALUES, _VALUES))


def autocontrast(image_HW3: np.ndarray, _: float) -> np.ndarray:
    """Each channel stretched to 0..255."""
    table_K3 = np.repeat(_VALUES[:, None], 3, axis=1)
    for channel, plane_HW in enumerate(cv2.split(image_HW3)):
        low, high = np.float32(plane_HW.min()), np.float32(plane_HW.max())
        if low < high:
            table_K3[:, channel] = (_VALUES - low) / ((high - low) * np.float32(1 / 255))
    return _look_up(image_HW3, table_K3)


def equalize(image_HW3: np.ndarray, _: float) -> np.ndarray:
    """Each channel's values spread evenly, in whole steps as PIL does it."""
    table_K3 = np.repeat(_VALUES[:, None], 3, axis=1)
    for channel in range(3):
        counts_K = cv2.calcHist([image_HW3], [channel], None, [256], [0, 256]).reshape(-1).astype(np.int64)
        step = (counts_K.sum() - counts_K[np.flatnonzero(counts_K)[-1]]) // 255
        if step:
            below_K = np.concatenate([[0], np.cumsum(counts_K)[:-1]])
            table_K3[:, channel] = (below_K + step // 2) // step
    return _look_up(image_HW3, table_K3)


@dataclass(frozen=True)
class Operation:
    """A change, and its weakest and strongest magnitude in TrivialAugment and in RandAugment; None: it has none there.

    signed: the magnitude may as well be negative.
    """

    change: Callable[[np.ndarray, float], np.ndarray]
    trivial: tuple[float, float] | None = (0, 0)
    rand: tuple[float, float] | None = (0, 0)
    signed: bool = False


OPERATIONS = {
    "identity": Operation(lambda image_HW3, _: image_HW3),
    "shear_x": Operation(shear_x, (0, 0.99), (0, 0.3), signed=True),
    "shear_y": Operation(shear_y, (0, 0.99), (0, 0.3), signed=True),
    "translate_x": Operation(partial(translate, axis=1), (0, 32), None, signed=True),
    "translate_y": Operation(partial(translate, axis=0), (0, 32), None, signed=True),
    "shift_x": Operation(partial(shift, axis=1), None, (0, 150 / 331), signed=True),
    "shift_y": Operation(partial(shift, axis=0), None, (0, 150 / 331), signed=True),
    "rotate": Operation(rotate, (0, 135), (0, 30), signed=True),
    "brightness": Operation(brightness, (0, 0.99), (0, 0.9), signed=True),
    "saturation": Operation(saturation, (0, 0.99), (0, 0.9), signed=True),
    "contrast": Operation(contrast, (0, 0.99), (0, 0.9), signed=True),
    "sharpness": Operation(sharpness, (0, 0.99), (0, 0.9), signed=True),
    "posterize": Operation(posterize, (8, 2), (8, 4)),
    "solarize": Operation(solarize, (255, 0), (255, 0)),
    "autocontrast": Operation(autocontrast),
    "equalize": Operation(equalize),
}
TRIVIAL_WIDE = {name: one.trivial for name, one in OPERATIONS.items() if one.trivial is not None}
RAND = {name: one.rand for name, one in OPERATIONS.items() if one.rand is not None}


def photometric(image_HW3: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """SSD's distortion (Liu et al. 2016, §2.2, after Howard 2013); strength: share of the ranges above, 0..1.

    Brightness, contrast, saturation and hue change with a chance of one half each, contrast before or after the two of
    colour at random, in the amounts that torchvision's and mmdetection's versions have too. Channels are never swapped
    (in the authors' recipes neither).
    """
    done_4 = rng.random(4) < 0.5
    added, contrast, saturation, hue = strength * rng.uniform(-1, 1, 4) * done_4
    contrast_first = bool(rng.random() < 0.5)
    factor = 1 + contrast * PHOTOMETRIC_FACTOR
    image_HW3 = light(image_HW3, added * PHOTOMETRIC_LEVELS, factor if contrast_first else 1.0)
    image_HW3 = colour(image_HW3, 1 + saturation * PHOTOMETRIC_FACTOR, hue * PHOTOMETRIC_DEGREES)
    return image_HW3 if contrast_first else light(image_HW3, 0.0, factor)


def light(image_HW3: np.ndarray, added: float, factor: float) -> np.ndarray:
    """added: grey levels; factor: on what that gives. Both keep to 0..255."""
    if added == 0 and factor == 1:
        return image_HW3
    return cv2.LUT(image_HW3, _levels(np.clip(_VALUES + np.float32(added), 0, 255) * np.float32(factor)))


def colour(image_HW3: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    """saturation: a factor; degrees: by which hues turn. In 8-bit HSV, as SSD's authors do it, with 256 hues."""
    if saturation == 1 and degrees == 0:
        return image_HW3
    hues = (np.arange(256) + round(degrees * 256 / 360)) % 256
    table = np.stack([hues, _levels(_VALUES * np.float32(saturation)), _VALUES], axis=1).astype(np.uint8)
    hsv_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV_FULL)
    return cv2.cvtColor(cv2.LUT(hsv_HW3, table[None]), cv2.COLOR_HSV2RGB_FULL)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _warp(image_HW3: np.ndarray, from_output: list[list[float]]) -> np.ndarray:
    """from_output: 2 x 3, where in the image (x, y of pixels' centres) an output pixel comes from."""
    height, width = image_HW3.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image_HW3, np.array(from_output, np.float64), (width, height), flags=flags)


def _look_up(image_HW3: np.ndarray, table: np.ndarray) -> np.ndarray:
    """table: new values of 0..255, for all channels (256) or for each (256 x 3); clipped and cut to integers."""
    values = np.clip(table, 0, 255).astype(np.uint8)
    return cv2.LUT(image_HW3, values if values.ndim == 1 else values[None])


def _blend(image_HW3: np.ndarray, other_HW3: np.ndarray, amount: float) -> np.ndarray:
    """(1 + amount) of the image less `amount` of the other."""
    return cv2.addWeighted(image_HW3, 1 + amount, other_HW3, -amount, _CUT)


def _grey(image_HW3: np.ndarray) -> np.ndarray:
    """grey_HW, uint8."""
    return cv2.transform(image_HW3, _LUMA)
