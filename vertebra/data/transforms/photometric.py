"""SSD's photometric distortion (Liu et al. 2016, §2.2, after Howard 2013): brightness, contrast, saturation, hue.

Each happens with a chance of one half, contrast before or after the two of colour at random, in the amounts that
torchvision's and mmdetection's versions have too. Channels are never swapped (in the authors' recipes neither).
"""

from __future__ import annotations

import numpy as np

BRIGHTNESS = 32.0  # grey levels, added
CONTRAST = 0.5  # of 1: a factor 0.5..1.5
SATURATION = 0.5
HUE = 18.0  # degrees

_VALUES = np.arange(256, dtype=np.float32)


def photometric(image_HW3: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A new uint8 RGB image; strength: share of the ranges above, 0..1."""
    done_4 = rng.random(4) < 0.5
    added, contrast, saturation, hue = strength * rng.uniform(-1, 1, 4) * done_4
    contrast_first = bool(rng.random() < 0.5)
    factor = 1 + contrast * CONTRAST
    image_HW3 = light(image_HW3, added * BRIGHTNESS, factor if contrast_first else 1.0)
    image_HW3 = colour(image_HW3, 1 + saturation * SATURATION, hue * HUE)
    return image_HW3 if contrast_first else light(image_HW3, 0.0, factor)


def light(image_HW3: np.ndarray, added: float, factor: float) -> np.ndarray:
    """added: grey levels; factor: on what that gives. Both keep to 0..255."""
    import cv2

    if added == 0 and factor == 1:
        return image_HW3
    return cv2.LUT(image_HW3, _levels(np.clip(_VALUES + np.float32(added), 0, 255) * np.float32(factor)))


def colour(image_HW3: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    """saturation: a factor; degrees: by which hues turn. In 8-bit HSV, as SSD's authors do it, with 256 hues."""
    import cv2

    if saturation == 1 and degrees == 0:
        return image_HW3
    hues = (np.arange(256) + round(degrees * 256 / 360)) % 256
    table = np.stack([hues, _levels(_VALUES * np.float32(saturation)), _VALUES], axis=1).astype(np.uint8)
    hsv_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV_FULL)
    return cv2.cvtColor(cv2.LUT(hsv_HW3, table[None]), cv2.COLOR_HSV2RGB_FULL)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
