"""Segmentations: compressed RLE is read before pycocotools trusts it."""

import pytest

from vertebra.data.datasets.masks import segmentation_fault


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("52", "an RLE of 7 pixels in an image of"),
        ("", "an RLE of 0 pixels"),
        ("abc", "cut short"),
        ("o", "cut short"),
        ("5 2", "cut short or damaged"),
        ("o" * 40 + "1", "cut short or damaged"),
        ([50, -10, 60], "cut short or damaged"),
        ([40, 50], "an RLE of 90 pixels"),
        (7, "neither a text nor a list"),
    ],
)
def test_a_damaged_rle_is_a_fault(counts, reason: str):
    assert reason in segmentation_fault({"size": [10, 10], "counts": counts}, (10, 10))
