"""A map of classes drawn on its picture: translucent, with borders, and a legend of the classes that are there.

Legend of shapes: H W the picture, C labels. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import cv2
import numpy as np

from vertebra.evaluation.predict.draw import Label, Pen, draw_label, measured, plain_text
from vertebra.evaluation.predict.segmentation import PictureMap

TINT = 0.5
LEGEND_SHARE = 0.6  # of the picture's height at most
BACKGROUND = "background"  # what bears that name is not tinted


class MapPainter:
    """Draws maps; shown: the labels that are tinted and named. palette: 256 x 3 uint8, colours by label."""

    def __init__(self, names: Mapping[int, str], palette: np.ndarray, shown: Collection[int]) -> None:
        self.names, self.palette = names, palette
        self.shown = sorted(shown)
        self.tinted = [label for label in self.shown if names[label] != BACKGROUND]

    def draw(self, found: PictureMap) -> np.ndarray:
        """The picture with its map, RGB uint8, `enlargement` times as large."""
        assert found.pixels_HW3 is not None
        pen = Pen.of(found.size_hw)
        canvas_HW3, map_HW = (
            cv2.resize(pixels, pen.size_hw[::-1], interpolation=how)
            for pixels, how in ((found.pixels_HW3, cv2.INTER_CUBIC), (found.map_HW, cv2.INTER_NEAREST))
        )
        around = np.ones((pen.line + 1, pen.line + 1), np.uint8)
        border_HW = cv2.dilate(map_HW, around) != cv2.erode(map_HW, around)
        tinted_HW = np.isin(map_HW, self.tinted)
        colours_HW3 = self.palette[map_HW]
        tint_HW3 = cv2.addWeighted(canvas_HW3, 1 - TINT, colours_HW3, TINT, 0)
        np.copyto(canvas_HW3, tint_HW3, where=tinted_HW[..., None])
        np.copyto(canvas_HW3, colours_HW3, where=(tinted_HW & border_HW)[..., None])
        for label in self.legend(found, pen, tinted_HW):
            draw_label(canvas_HW3, label, tuple(self.palette[label.category_id].tolist()))
        return canvas_HW3

    def summary(self) -> str:
        return "drawn"

    def legend(self, found: PictureMap, pen: Pen, tinted_HW: np.ndarray) -> list[Label]:
        """Return the classes with their shares of the picture, the largest first, as far as there is room for them.

        In the corner where they hide the least that is tinted.
        """
        shares = {label: share for label, share in found.shares().items() if label in self.shown}
        rows = [
            measured(plain_text(f"{self.names[label]} {share_text(share)}"), {"category_id": label}, pen)
            for label, share in shares.items()
        ]
        height = max([row.place[3] for row in rows], default=1)
        rows = rows[: max(1, int(LEGEND_SHARE * pen.size_hw[0] / height))]
        width, tall = max([row.place[2] for row in rows], default=1), height * len(rows)
        low, right = max(0, pen.size_hw[0] - tall), pen.size_hw[1] - width
        corners = [(low, 0), (low, right), (0, 0), (0, right)]
        top, left = min(corners, key=lambda at: tinted_HW[at[0] : at[0] + tall, at[1] : at[1] + width].sum())
        return [replace(row, place=(left, top + n * height, width, height)) for n, row in enumerate(rows)]


def share_text(share: float) -> str:
    """'12.3 %', or '< 0.1 %'."""
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
