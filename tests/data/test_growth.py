"""Progressive size: a function of the iteration that ends at the full size."""

from hypothesis import given
from hypothesis import strategies as st

from vertebra.data.transforms.classification_views import Growth


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
