"""Boundary F1 against a loop over pixels, and by hand where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vertebra.evaluation.metrics.boundaries import boundary_f1


def naive(labels: np.ndarray, found: np.ndarray) -> float:
    """The definition, pixel by pixel."""
    height, width = labels.shape
    tolerance = 0.0075 * math.sqrt(height**2 + width**2)

    def outline(values: np.ndarray, label: int) -> list[tuple[int, int]]:
        points = []
        for y in range(height):
            for x in range(width):
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = [values[b, a] for b, a in around if 0 <= b < height and 0 <= a < width]
                if values[y, x] == label and any(value != label for value in inside):
                    points.append((y, x))
        return points

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any((y - b) ** 2 + (x - a) ** 2 <= tolerance**2 for b, a in others) for y, x in points]
        return sum(near) / len(near) if near else 1.0

    scores = []
    for label in range(255):
        seen = [
            (y, x)
            for y in range(height)
            for x in range(width)
            if labels[y, x] != 255 and label in (labels[y, x], found[y, x])
        ]
        if not seen:
            continue
        true, given = outline(labels, label), outline(found, label)
        precision = share([(y, x) for y, x in given if labels[y, x] != 255], true)
        recall = share(true, given)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return 100 * sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size_hw", [(40, 30), (200, 310)])  # a tolerance below a pixel, and of 2.8 pixels
def test_it_is_that_of_a_loop(seed: int, size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (4, 5)).astype(np.uint8)

    def drawn(shift: int) -> np.ndarray:
        rows, columns = (np.linspace(0, count - 1e-6, side).astype(int) for count, side in zip((4, 5), size_hw))
        return np.roll(coarse[rows][:, columns], shift, axis=1)

    labels, found = drawn(0), drawn(seed + 1)
    found[5:12, 3:9] = 5
    labels[rng.random(size_hw) < 0.01] = 255
    assert boundary_f1(labels, found) == pytest.approx(naive(labels, found))


def test_figures_that_one_knows() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[30:60, 30:60] = 1
    assert boundary_f1(labels, labels) == 100
    near, far = np.roll(labels, 1, axis=1), np.roll(labels, 30, axis=1)  # the tolerance is 1.06 pixels
    assert boundary_f1(labels, near) == 100 > boundary_f1(labels, far)
    assert boundary_f1(labels, np.zeros_like(labels)) == 0, "no outline of either class is found"
    whole = np.full((9, 9), 3, np.uint8)
    assert boundary_f1(whole, whole) == 100, "a class without an outline is found by having none"
    assert math.isnan(boundary_f1(np.full((9, 9), 255, np.uint8), whole))
    ringed = labels.copy()
    ringed[25:65, 25:65] = 255
    ringed[30:60, 30:60] = 1
    assert boundary_f1(ringed, np.roll(labels, 1, axis=0)) > 40, "an outline within the ignored ring is not punished"
