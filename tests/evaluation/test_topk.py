"""Top-1 and top-5 against a naive count, Wilson's interval against published values."""

from __future__ import annotations

import pytest
import torch

from tests.evaluation.networks import Table, classification_batch
from vertebra.evaluation.metrics.topk import evaluate_topk, wilson_interval
from vertebra.ground.errors import UserError


def test_accuracies_equal_a_naive_count_and_a_repeated_image_counts_once():
    draw = torch.Generator().manual_seed(0)
    logits_IC = torch.randn(50, 12, generator=draw)
    labels = torch.randint(0, 12, (50,), generator=draw).tolist()
    loader = [classification_batch(tuple(range(i, i + 10)), tuple(labels[i : i + 10])) for i in range(0, 50, 10)]
    loader.append(loader[0])
    best_I5 = logits_IC.topk(5, dim=1).indices.tolist()
    figures = evaluate_topk(Table(logits_IC), loader)
    assert figures.images == 50
    assert figures.top1 == 2 * sum(best[0] == label for best, label in zip(best_I5, labels))
    assert figures.top5 == 2 * sum(label in best for best, label in zip(best_I5, labels))
    errors = figures.to_dict()
    assert errors["error1"] == 100 - figures.top1 and errors["error5"] == 100 - figures.top5
    assert figures.top1_interval[0] < figures.top1 < figures.top1_interval[1]


def test_top5_of_fewer_than_five_classes_is_100():
    loader = [classification_batch((0, 1), (1, 1))]
    figures = evaluate_topk(Table(torch.tensor([[0.0, 1.0], [1.0, 0.0]])), loader)
    assert (figures.top1, figures.top5) == (50, 100)


def test_an_empty_split_is_an_error():
    with pytest.raises(UserError, match="no images"):
        evaluate_topk(Table(torch.zeros(1, 2)), [])


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, table I, method 3 (score interval without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_newcombes(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((100 * low, 100 * high), abs=0.006)


def test_a_proportion_is_asked_for():
    with pytest.raises(UserError, match="3 of 2 is not a proportion"):
        wilson_interval(3, 2)
