"""Painting: palettes, textures, the shading of objects, backgrounds and their clutter.

Nothing here knows of classes, so neither colour nor texture can give one away.
Images are float32 RGB, HW3, 0..255, until `develop` makes bytes of them.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]


def random_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    """An RGB colour of any hue, saturation and value (0..1) within the given ranges."""
    hue, chroma, light = rng.uniform(0, 6), rng.uniform(*saturation), rng.uniform(*value)
    ramp = np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return (255 * light * (1 - chroma + chroma * np.clip(ramp, 0, 1))).astype(np.float32)


def contrasting_colour(rng: np.random.Generator, backdrop: Floats, distance: float = 90.0) -> Floats:
    """A vivid colour at least `distance` (RGB, 0..255) from `backdrop`, or the farthest of ten."""
    farthest, best = 0.0, backdrop
    for _ in range(10):
        colour = random_colour(rng, (0.25, 1.0), (0.3, 1.0))
        apart = float(np.linalg.norm(colour - backdrop))
        if apart > farthest:
            farthest, best = apart, colour
        if apart >= distance:
            break
    return best


def smooth_noise(rng: np.random.Generator, height: int, width: int, octaves: tuple[int, ...]) -> Floats:
    """HW in 0..1: random grids of the given sizes, enlarged and summed, the coarse ones strongest."""
    field = np.zeros((height, width), np.float32)
    for cells in octaves:
        grid = rng.random((cells, cells), np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.7
    low, high = float(field.min()), float(field.max())
    return (field - low) / max(high - low, 1e-6)


def _pattern(rng: np.random.Generator, u: Floats, v: Floats, period: float) -> Floats:
    """A texture in 0..1 over coordinates in pixels: even, stripes, checks, dots or grain."""
    kind = rng.integers(5)
    u, v = u * np.float32(2 * np.pi / period), v * np.float32(2 * np.pi / period)
    if kind == 0:
        return np.zeros_like(u)
    if kind == 1:
        return 0.5 + 0.5 * np.tanh(3 * np.sin(u))
    if kind == 2:
        return 0.5 + 0.5 * np.tanh(5 * np.sin(u) * np.sin(v))
    if kind == 3:
        return 0.5 + 0.5 * np.tanh(6 * (np.cos(u) + np.cos(v) - 0.8))
    return smooth_noise(rng, u.shape[0], u.shape[1], octaves=(5, 11, 23))


def _grid(height: int, width: int, angle: float) -> tuple[Floats, Floats]:
    """Pixel coordinates about the middle, in axes turned by `angle`."""
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    x = np.arange(width, dtype=np.float32)[None, :] - width / 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _relief(alpha: Floats, light: Floats) -> Floats:
    """Brightness of a bevelled plate lit from the direction `light` (x y): about 1 in the middle of a face."""
    inside = (alpha >= 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
    bevel = max(2.0, 0.55 * float(depth.max()))
    rise = 1 - np.clip(depth / bevel, 0, 1)
    height = cv2.GaussianBlur(np.sqrt(1 - rise**2), (0, 0), max(0.7, 0.12 * bevel)) * bevel
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)[1:-1, 1:-1]
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)[1:-1, 1:-1]
    return np.clip(1 - 0.28 * (slope_x * light[0] + slope_y * light[1]), 0.55, 1.4)


def paint_object(rng: np.random.Generator, alpha: Floats, angle: float, backdrop: Floats, light: Floats) -> Floats:
    """The colours (HW3) of an object of coverage `alpha`: two tones, a texture that turns with it, and shading."""
    height, width = alpha.shape
    tone = contrasting_colour(rng, backdrop)
    other = contrasting_colour(rng, backdrop) if rng.random() < 0.4 else tone * np.float32(rng.uniform(0.5, 0.8))
    u, v = _grid(height, width, angle)
    texture = _pattern(rng, u, v, period=max(4.0, max(height, width) * rng.uniform(0.12, 0.35)))
    colours = tone + (other - tone) * (texture * np.float32(rng.uniform(0.35, 0.9)))[..., None]
    sheen = 1 + rng.uniform(0.05, 0.25) * (u * light[0] + v * light[1]) / max(height, width)
    return colours * (_relief(alpha, light) * sheen.astype(np.float32))[..., None]


def cast_shadow(image: Floats, alpha: Floats, left: int, top: int, light: Floats) -> None:
    """Darkens `image` in place behind an object at (left, top), away from the light."""
    reach = max(2, round(0.05 * max(alpha.shape)))
    padded = np.pad(alpha, 2 * reach)
    soft = cv2.GaussianBlur(padded, (0, 0), 0.6 * reach)
    left, top = left - 2 * reach - round(light[0] * reach), top - 2 * reach - round(light[1] * reach)
    blend(image, np.zeros(3, np.float32), soft * np.float32(0.45), left, top)


def blend(image: Floats, colours: Floats, alpha: Floats, left: int, top: int) -> None:
    """Lays `colours` (HW3 or one colour) over `image` in place; what falls outside is cut off."""
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(alpha.shape[0], image.shape[0] - top), min(alpha.shape[1], image.shape[1] - left)
    if y0 >= y1 or x0 >= x1:
        return
    weight = alpha[y0:y1, x0:x1, None]
    paint = colours[y0:y1, x0:x1] if colours.ndim == 3 else colours
    part = image[top + y0 : top + y1, left + x0 : left + x1]
    part += weight * (paint - part)


def _stroke(rng: np.random.Generator, kind: int, reach: float) -> NDArray[np.float64]:
    """The corners (K2) of a straight stroke, a curl that tightens, or a zigzag, from about the origin."""
    if kind == 0:
        return np.stack([np.zeros(2), rng.uniform(-reach, reach, 2)])
    if kind == 1:
        turn_K = np.linspace(0, rng.uniform(1.5, 5), 24) + rng.uniform(0, 6)
        return reach * np.linspace(0.6, 0.15, 24)[:, None] * np.stack([np.cos(turn_K), np.sin(turn_K)], 1)
    return np.cumsum(rng.uniform(-0.4, 0.4, (6, 2)) * reach, axis=0)


def _blot(rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    """The corners (K2) of a patch with an irregular rim about the origin."""
    turn_K = np.linspace(0, 2 * np.pi, 9)[:-1]
    return reach * 0.3 * rng.uniform(0.3, 1.0, (8, 1)) * np.stack([np.cos(turn_K), np.sin(turn_K)], 1)


def _clutter(rng: np.random.Generator, image: Floats, backdrop: Floats) -> None:
    """Strokes and blots in place: things with edges that are no class."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(4, 14)):
        layer = np.zeros((height, width), np.uint8)
        start = rng.uniform((0, 0), (width, height))
        kind, reach = int(rng.integers(4)), rng.uniform(0.1, 0.5) * width
        corners_K2 = start + (_stroke(rng, kind, reach) if kind < 3 else _blot(rng, reach))
        fixed_point = [np.round(corners_K2 * 16).astype(np.int32)]
        if kind < 3:
            cv2.polylines(layer, fixed_point, False, 255, int(rng.integers(1, 5)), cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(layer, fixed_point, 255, cv2.LINE_AA, 4)
        colour = backdrop + (random_colour(rng, (0.0, 0.8), (0.1, 1.0)) - backdrop) * np.float32(0.7)
        blur_px, strength = rng.uniform(0.5, 2.0 if kind < 3 else 4.0), np.float32(rng.uniform(0.3, 0.8))
        x, y, columns, rows = cv2.boundingRect(layer)
        margin = int(3 * blur_px) + 1
        part = np.pad(layer[y : y + rows, x : x + columns].astype(np.float32) / 255, margin)
        blend(image, colour, cv2.GaussianBlur(part, (0, 0), blur_px) * strength, x - margin, y - margin)


def paint_background(rng: np.random.Generator, height: int, width: int) -> Floats:
    """HW3: two or three muted colours mixed by noise or a slope, a faint texture, and clutter."""
    dark, bright = (random_colour(rng, (0.0, 0.6), value) for value in ((0.1, 0.55), (0.45, 0.95)))
    u, v = _grid(height, width, rng.uniform(0, 2 * np.pi))
    cloud = smooth_noise(rng, height, width, octaves=(3, 6, 13, 29))
    slope = np.clip(0.5 + u / max(height, width), 0, 1)
    mix = slope + (cloud - slope) * np.float32(rng.uniform(0.2, 1.0))
    image = dark + (bright - dark) * mix[..., None]
    warp = np.float32(rng.uniform(0, 30)) * cloud
    texture = _pattern(rng, u + warp, v, period=rng.uniform(6, 40)) - np.float32(0.5)
    image = image * (1 + np.float32(rng.uniform(0.05, 0.3)) * texture[..., None])
    _clutter(rng, image, image.mean(axis=(0, 1)))
    return image


def develop(rng: np.random.Generator, image: Floats) -> Bytes:
    """Bytes of a finished picture: uneven light, a little blur, sensor noise."""
    height, width = image.shape[:2]
    u, _ = _grid(height, width, rng.uniform(0, 2 * np.pi))
    image = image * (1 + np.float32(rng.uniform(0, 0.25)) * u / max(height, width))[..., None]
    sharp = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7))
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 6))
    return np.clip(np.round(sharp + noise), 0, 255).astype(np.uint8)
