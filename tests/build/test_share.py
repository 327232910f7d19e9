"""A step's batch among the processes that there are, which may be others than those that began the run."""

from __future__ import annotations

import pytest

from vertebra.build.training import parts_of_batch
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import Solver


@pytest.mark.parametrize(
    ("batch", "accumulate", "begun", "processes", "parts"),
    [
        (16, 1, 8, 8, 1),
        (16, 1, 8, 4, 2),  # two images at once, as before
        (16, 1, 8, 1, 8),
        (16, 1, 4, 8, 1),
        (16, 2, 4, 8, 2),
        (12, 1, 4, 3, 2),  # three at once before, four would be too many
        (12, 2, 2, 4, 3),
        (256, 1, 16, 8, 2),
    ],
)
def test_fewer_processes_take_their_images_in_more_parts(batch, accumulate, begun, processes, parts):
    solver = Solver(batch_size=batch, accumulate=accumulate)
    assert parts_of_batch(solver, processes, begun) == parts
    assert batch % (processes * parts) == 0 and batch // (processes * parts) <= batch // (begun * accumulate)


@pytest.mark.parametrize(
    ("accumulate", "begun", "processes", "would"), [(1, 8, 3, "1, 2, 4, 8, 16"), (2, 16, 16, "1, 2, 4, 8")]
)
def test_a_batch_that_does_not_divide_is_refused_with_what_would_do(accumulate, begun, processes, would):
    with pytest.raises(
        RecipeError, match=f"does not divide by {processes} processes .*; start {would} processes, or a"
    ):
        parts_of_batch(Solver(batch_size=16, accumulate=accumulate), processes, begun)
