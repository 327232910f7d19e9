"""Segmentations: compressed RLE is read before pycocotools trusts it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle

from vertebra.data.datasets.masks import run_lengths, segmentation_fault


@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_run_lengths_are_those_that_pycocotools_encoded(height: int, width: int, share: float, seed: int):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    lengths = run_lengths(code["counts"])
    flat = np.concatenate([[False], mask.T.reshape(-1), [False]])  # column by column
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    assert lengths.cumsum()[: len(changes)].tolist() == changes.tolist() and lengths.sum() == height * width
    assert segmentation_fault({"size": [height, width], "counts": code["counts"].decode()}, (height, width)) == ""


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("52", "an RLE of 7 pixels in an image of"),
        ("", "cut short"),
        ("abc", "cut short"),
        ("o", "cut short"),
        ("5 2", "characters of another kind"),
        ("o" * 40 + "1", "impossible lengths"),
        ([50, -10, 60], "lengths below 0"),
        ([40, 50], "an RLE of 90 pixels"),
        (7, "encode"),
    ],
)
def test_a_damaged_rle_is_a_fault(counts, reason: str):
    assert reason in segmentation_fault({"size": [10, 10], "counts": counts}, (10, 10))
