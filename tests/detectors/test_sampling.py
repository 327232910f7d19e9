"""Draws are keyed, fair, and of a fixed number."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.boxes import take
from detectors.matching import Matches
from detectors.sampling import Sampler, keyed_draws

SEEDS = torch.tensor([3, 2**40 + 17, -5, 2**63 - 1])


def some_matches(positive_share: float, negative_share: float, *, images: int = 4, boxes: int = 500) -> Matches:
    share = torch.rand(images, boxes, generator=torch.Generator().manual_seed(0))
    positive = share < positive_share
    negative = (share >= positive_share) & (share < positive_share + negative_share)
    return Matches(positive, negative, torch.zeros(images, boxes, dtype=torch.int64), share)


def mix_in_plain_python(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) % 2**32
    x = ((x ^ (x >> 15)) * 0x735A2D97) % 2**32
    return x ^ (x >> 15)


@settings(max_examples=30)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 9))
def test_the_hash_is_that_of_plain_integers_without_overflow(seed: int, stream: int) -> None:
    unsigned = seed % 2**64
    low = mix_in_plain_python((unsigned % 2**32) ^ stream)
    high = mix_in_plain_python((((unsigned >> 32) ^ low) + 0x9E3779B9) % 2**32)
    expected = [(mix_in_plain_python(mix_in_plain_python(i ^ low) ^ high) << 24) | i for i in range(20)]
    assert keyed_draws(torch.tensor([seed]), stream, 20)[0].tolist() == expected


def test_draws_are_distinct_and_depend_on_the_key_the_stream_and_nothing_else() -> None:
    draws = keyed_draws(SEEDS, 1, 1000)
    assert len(set(draws.flatten().tolist())) == draws.numel()
    assert torch.equal(draws[2:3], keyed_draws(SEEDS[2:3], 1, 1000))
    assert torch.equal(draws[:, :10], keyed_draws(SEEDS, 1, 10))
    assert not (draws == keyed_draws(SEEDS, 2, 1000)).any()


def test_draws_of_neighbouring_keys_are_uniform_and_unrelated() -> None:
    draws = (keyed_draws(torch.arange(200), 1, 1000) >> 24).double() / 2**32
    assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / draws.numel()) ** 0.5
    counts = torch.histc(draws, bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 40 < chi_square < 180  # 99 degrees of freedom: 99 +- 14
    centred = draws - 0.5
    neighbours = (centred[1:] * centred[:-1]).mean() * 12
    assert abs(neighbours) < 5 / draws.numel() ** 0.5
    # No box is favoured over all images, and two images do not have the same numbers in another order.
    assert (draws.mean(dim=0) - 0.5).abs().max() < 5 * (1 / 12 / 200) ** 0.5
    assert len(set(draws[:2].flatten().tolist())) == 2000


def test_a_quarter_is_positive_when_there_are_enough() -> None:
    matches = some_matches(0.5, 0.4)
    samples = Sampler(count=64, positive_fraction=0.25, stream=1)(matches, SEEDS)
    assert samples.index_NS.shape == (4, 64)
    assert samples.valid_NS.all()
    assert samples.positive_NS.sum(dim=1).tolist() == [16] * 4
    assert torch.equal(take(matches.positive_NA, samples.index_NS), samples.positive_NS)
    assert take(matches.negative_NA, samples.index_NS)[~samples.positive_NS].all()
    for row in samples.index_NS:
        assert len(set(row.tolist())) == 64


def test_negatives_make_up_for_missing_positives_but_not_the_other_way() -> None:
    sampler = Sampler(count=64, positive_fraction=0.5, stream=1)
    few_positives = some_matches(0.02, 0.9)
    samples = sampler(few_positives, SEEDS)
    assert samples.valid_NS.all()
    assert torch.equal(samples.positive_NS.sum(dim=1), few_positives.positive_NA.sum(dim=1))
    few_negatives = some_matches(0.5, 0.02)
    samples = sampler(few_negatives, SEEDS)
    assert samples.positive_NS.sum(dim=1).tolist() == [32] * 4
    assert torch.equal(samples.valid_NS.sum(dim=1), 32 + few_negatives.negative_NA.sum(dim=1))
    assert not (samples.positive_NS & ~samples.valid_NS).any()


def test_nothing_to_draw_and_fewer_boxes_than_slots_are_no_special_cases() -> None:
    sampler = Sampler(count=64, positive_fraction=0.5, stream=1)
    assert not sampler(some_matches(0, 0), SEEDS).valid_NS.any()
    samples = sampler(some_matches(0.5, 0.5, boxes=10), SEEDS)
    assert samples.index_NS.shape == (4, 10)
    assert samples.valid_NS.all()


def test_the_draw_of_an_image_does_not_depend_on_its_batch() -> None:
    matches = some_matches(0.1, 0.8)
    sampler = Sampler(count=64, positive_fraction=0.5, stream=1)
    together = sampler(matches, SEEDS)
    for n in range(4):
        one = slice(n, n + 1)
        alone = Matches(matches.positive_NA[one], matches.negative_NA[one], matches.truth_NA[one], matches.iou_NA[one])
        assert torch.equal(sampler(alone, SEEDS[one]).index_NS, together.index_NS[one])
