"""Run lengths against pycocotools, which writes and decodes them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle

from vertebra.ground.rle import Patch, compress, decode, encode, pixels, run_lengths, to_json


def random_masks(seed: int, count: int) -> list[np.ndarray]:
    """From empty to full, from single pixels to long runs."""
    random = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        height, width = random.integers(1, 120, 2)
        grain, share = random.integers(1, 30), random.choice([0, 0.02, 0.5, 0.98, 1])
        coarse = random.random((height // grain + 1, width // grain + 1)) < share
        masks.append(np.kron(coarse, np.ones((grain, grain), bool))[:height, :width])
    return masks


def test_the_runs_of_pycocotools_cover_the_image():
    masks = random_masks(0, 300)
    codes = [rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]
    assert pixels(codes).tolist() == [mask.size for mask in masks]
    assert pixels([code.decode() for code in codes]).tolist() == [mask.size for mask in masks]
    assert pixels([]).tolist() == []


def test_runs_of_any_sum_are_told():
    """Written by pycocotools from run lengths that fit no image."""
    random = np.random.default_rng(1)
    runs = [random.integers(0, 10 ** random.integers(1, 6), random.integers(1, 40)).tolist() for _ in range(200)]
    codes = [rle.frPyObjects({"size": [1, 1], "counts": one}, 1, 1)["counts"] for one in runs]
    assert pixels(codes).tolist() == [sum(one) for one in runs]
    assert pixels(["", "\x00", "\u00e9", "o" * 30, "04", "oo", "N"]).tolist() == [0, -1, -1, -1, 4, -1, -1]


@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_run_lengths_are_those_that_pycocotools_encoded(height: int, width: int, share: float, seed: int):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    lengths, _, _ = run_lengths([code["counts"]])
    flat = np.concatenate([[False], mask.T.reshape(-1), [False]])  # column by column
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    assert lengths.cumsum()[: len(changes)].tolist() == changes.tolist() and lengths.sum() == height * width


def test_what_has_no_fault_is_encoded():
    square = [[10, 10, 50, 10, 50, 50, 10, 50]]
    (expected,) = rle.frPyObjects(square, 100, 100)
    runs = [1010, 8990]
    assert encode(square, (100, 100))["counts"] == expected["counts"]
    assert rle.area(encode({"size": [100, 100], "counts": runs}, (100, 100))) == 8990


def test_a_mask_goes_through_json_and_back():
    value = to_json(compress([2, 3, 7], (3, 4)), (3, 4))
    assert value == {"size": [3, 4], "counts": "237"}
    assert on(decode([value])[0], 3, 4).T.reshape(-1).tolist() == [0] * 2 + [1] * 3 + [0] * 7


def on(patch: Patch, height: int, width: int) -> np.ndarray:
    mask_HW = np.zeros((height, width), np.uint8)
    rows, columns = patch.bits_HW.shape
    mask_HW[patch.top : patch.top + rows, patch.left : patch.left + columns] = patch.bits_HW
    return mask_HW


def test_patches_are_pycocotools_masks_and_no_larger():
    masks = random_masks(2, 300)
    codes = [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert decode([]) == []
    for mask, code, patch in zip(masks, codes, decode(codes), strict=True):
        assert np.array_equal(on(patch, *mask.shape), rle.decode(code)) and np.array_equal(rle.decode(code), mask)
        assert patch.bits_HW.shape == tuple(int(side) for side in rle.toBbox(code)[[3, 2]])


def test_runs_without_length_change_nothing():
    """Other writers than pycocotools begin or end masks with them, or put them between two runs of one value."""
    for runs in ([0, 0, 2, 3, 7], [2, 3, 7, 0], [2, 1, 0, 2, 7], [0, 0, 12, 0], [0, 12], [1, 0, 11]):
        value = {"size": [3, 4], "counts": compress(runs, (3, 4))}
        assert on(decode([value])[0], 3, 4).tolist() == rle.decode(value).tolist()


@given(top=st.integers(-3, 9), left=st.integers(-3, 9), height=st.integers(1, 12), width=st.integers(1, 12))
def test_a_cut_patch_is_the_mask_of_the_part(top: int, left: int, height: int, width: int):
    mask_HW = np.zeros((8, 9), np.uint8)
    mask_HW[2:6, 3:8] = np.arange(20).reshape(4, 5) % 3 > 0
    (patch,) = decode([rle.encode(np.asfortranarray(mask_HW))])
    padded_hw = np.zeros((40, 40), np.uint8)
    padded_hw[10:18, 10:19] = mask_HW
    part_hw = padded_hw[10 + top : 10 + top + height, 10 + left : 10 + left + width]
    assert np.array_equal(on(patch.cut(top, left, height, width), height, width), part_hw)
