"""Mixup and CutMix against torchvision's draws of the same laws; progressive size as a function of the iteration."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from vertebra.data.transforms.classification_views import Growth, Mixing


def draws(mixing: Mixing, count: int = 3000) -> np.ndarray:
    return np.stack([mixing.draw(3, t, height=48, width=64).numpy() for t in range(count)])


def test_mixup_draws_torchvisions_shares():
    torchvisions = torch.distributions.Beta(0.2, 0.2).sample((20_000,)).numpy()
    own = draws(Mixing(mixup=0.2))
    assert (own[:, 1:] == 0).all()
    for level in (0.2, 0.35, 0.5, 0.65, 0.8):
        assert np.quantile(own[:, 0], level) == pytest.approx(np.quantile(torchvisions, level), abs=0.07)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_draws_torchvisions_boxes(alpha: float):
    torch.manual_seed(0)
    cutmix = v2.CutMix(alpha=alpha, num_classes=2)
    boxes = np.array([cutmix.make_params([torch.zeros(2, 3, 48, 64)])["box"] for _ in range(3000)])
    own = draws(Mixing(cutmix=alpha))
    assert (own[:, 0] == 1).all()
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        np.testing.assert_allclose(np.quantile(own[:, 1:], level, 0), np.quantile(boxes, level, 0), atol=2.5)
    assert (own[:, 3:] >= own[:, 1:3]).all() and (own[:, 1:] >= 0).all() and (own[:, 3:] <= [64, 48]).all()


def test_with_both_each_batch_draws_one_of_them():
    cuts = draws(Mixing(mixup=0.2, cutmix=1.0))[:, 1:].any(1)
    assert 0.42 < cuts.mean() < 0.55  # a few boxes are empty
    assert not Mixing() and Mixing(mixup=0.1) and Mixing(cutmix=0.1)


def test_draws_follow_seed_and_iteration():
    mixing = Mixing(mixup=0.2, cutmix=1.0)
    one = mixing.draw(1, 5, height=8, width=8)
    assert torch.equal(one, mixing.draw(1, 5, height=8, width=8)) and one.dtype == torch.float32
    keyed = {tuple(mixing.draw(s, t, height=64, width=64).tolist()) for s in (0, 1) for t in range(5)}
    assert len(keyed) == 10


def test_sides_of_a_usual_training():
    growth = Growth(start=128, size=224, until=0.8, iterations=1000)
    sides = [growth.side(t) for t in range(1000)]
    assert sides == [128] * 267 + [160] * 267 + [192] * 266 + [224] * 200


def test_small_pictures_grow_by_eights_and_the_last_is_exactly_the_size():
    assert {Growth(16, 32, 1.0, 100).side(t) for t in range(101)} == {16, 24, 32}
    growth = Growth(100, 176, 0.5, 100)
    assert [growth.side(t) for t in (0, 49, 50, 99)] == [100, 160, 176, 176]


@given(
    start=st.integers(8, 300),
    more=st.integers(0, 300),
    until=st.floats(0.01, 1),
    iterations=st.integers(1, 10**6),
    share=st.floats(0, 1),
)
def test_sides_rise_from_start_to_size_by_strides(start: int, more: int, until: float, iterations: int, share: float):
    growth = Growth(start, start + more, until, iterations)
    at = int(share * iterations)
    side, after = growth.side(at), growth.side(at + 1)
    assert start <= side <= after <= start + more
    assert side in (start, start + more) or side % (8 if start + more < 64 else 32) == 0
    linear = start + more * min(1, at / (until * iterations))
    assert linear - 32 < side <= linear + 1e-6 or side == start
    assert growth.side(iterations) == start + more
