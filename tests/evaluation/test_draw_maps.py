"""Maps of classes drawn on pictures: what is tinted, what is not, and what the legend says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vertebra.data.datasets.maps import palette
from vertebra.evaluation.predict.draw import Pen
from vertebra.evaluation.predict.draw_maps import TINT, MapPainter, share_text
from vertebra.evaluation.predict.segmentation import PictureMap, write_map

NAMES = {0: "background", 1: "cat", 2: "spotted hyena"}
COLOURS = palette({2: (0, 0, 0)})


def found(map_HW):
    rng = np.random.default_rng(0)
    return PictureMap(1, map_HW, rng.integers(90, 110, (*map_HW.shape, 3), np.uint8))


def halves(height=420, width=600):
    """Background on the left, cat at the upper right, hyena at the lower right."""
    map_HW = np.zeros((height, width), np.uint8)
    map_HW[: height // 2, width // 2 :], map_HW[height // 2 :, width // 2 :] = 1, 2
    return map_HW


def test_classes_are_tinted_within_solid_borders_and_the_background_is_not():
    one = found(halves())
    drawn_HW3 = MapPainter(NAMES, COLOURS, NAMES).draw(one)
    assert drawn_HW3.shape == one.pixels_HW3.shape
    middle = (slice(100, 150), slice(400, 500))
    expected_HW3 = (1 - TINT) * one.pixels_HW3[middle] + TINT * COLOURS[1]
    assert np.abs(drawn_HW3[middle] - expected_HW3).max() <= 0.5
    assert np.array_equal(drawn_HW3[50:350, 200:299], one.pixels_HW3[50:350, 200:299])
    assert (drawn_HW3[100:150, 300] == COLOURS[1]).all() and (drawn_HW3[210, 400:500] == 0).all()


def test_only_the_classes_that_are_asked_for_are_tinted_and_named():
    one = found(halves())
    painter = MapPainter(NAMES, COLOURS, {2})
    drawn_HW3 = painter.draw(one)
    assert np.array_equal(drawn_HW3[:205, 310:], one.pixels_HW3[:205, 310:])
    assert (drawn_HW3[220:, 310:] != one.pixels_HW3[220:, 310:]).any(axis=2).all()
    (row,) = painter.legend(one, Pen.of((420, 600)), one.map_HW == 2)
    assert row.text == "spotted hyena 25.0 %"


def test_the_legend_lies_where_nothing_is_tinted_the_largest_class_first():
    one = found(halves())
    rows = MapPainter(NAMES, COLOURS, NAMES).legend(one, Pen.of((420, 600)), one.map_HW > 0)
    assert [row.text for row in rows] == ["background 50.0 %", "cat 25.0 %", "spotted hyena 25.0 %"]
    assert all(row.place[0] == 0 and row.place[0] + row.place[2] < 300 for row in rows)
    assert [row.place[1] for row in rows] == sorted(row.place[1] for row in rows)
    assert rows[-1].place[1] + rows[-1].place[3] == 420


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 900), (900, 3), (64, 64), (37, 501)])
def test_any_picture_can_be_drawn_and_many_classes_leave_it_room(size_hw):
    names = {label: f"class {label}" for label in range(150)}
    map_HW = (np.arange(size_hw[0] * size_hw[1]) % 150).astype(np.uint8).reshape(size_hw)
    painter, pen = MapPainter(names, palette(), names), Pen.of(size_hw)
    rows = painter.legend(found(map_HW), pen, np.ones(pen.size_hw, bool))
    assert painter.draw(found(map_HW)).shape == (*pen.size_hw, 3)
    assert len(rows) == 1 or sum(row.place[3] for row in rows) <= 0.6 * pen.size_hw[0]


@pytest.mark.parametrize(("share", "text"), [(1, "100.0 %"), (0.1234, "12.3 %"), (0.0005, "0.1 %"), (1e-4, "< 0.1 %")])
def test_shares_in_words(share, text):
    assert share_text(share) == text


def test_a_map_that_is_stopped_while_it_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "maps" / "a.png"
    write_map(path, halves(), COLOURS)
    before, save = path.read_bytes(), Image.Image.save

    def stopped(image, file, *args):
        save(image, file, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_map(path, halves(600, 420), COLOURS)
    assert [path] == [*path.parent.iterdir()] and path.read_bytes() == before
