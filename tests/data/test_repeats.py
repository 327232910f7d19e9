"""Repeat-factor sampling: factors by a naive loop, frequencies, and a plan that is a function of the iteration."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.writers import records, write_voc
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.loading.detection import TruthPolicy, detection_train_loader
from vertebra.data.loading.repeats import RepeatingStream, Stream, occurrences, repeat_factors
from vertebra.data.loading.sampling import Share, TrainPlan, TrainRequests
from vertebra.data.transforms.detection_views import ViewDraw

VIEWS = ViewDraw((48,), 96, 0.5)


@pytest.fixture
def rare(tmp_path):
    """16 images: dogs in twelve, cats in four, a bird in one that also has a dog, none in two; one cat is difficult."""
    kinds = {0: ["bird", "dog"], 1: ["cat", "cat"], 2: ["cat", "dog"], 3: ["cat"], 4: ["cat*"], 14: [], 15: []}
    images = {
        f"{n:06}": [
            (name.rstrip("*"), 5 + 3 * k, 10, 30 + k, 40, int(name.endswith("*")))
            for k, name in enumerate(kinds.get(n, ["dog"]))
        ]
        for n in range(16)
    }
    write_voc(tmp_path / "VOCdevkit", images)
    return open_detection(tmp_path, "voc2007/trainval")


def naive_factors(records, threshold: float, counts) -> list[float]:
    images_of = Counter(label for record in records for label in {int(i) for i in record.labels_G[counts(record)]})
    factors = []
    for record in records:
        factor = 1.0
        for label in record.labels_G[counts(record)].tolist():
            factor = max(factor, math.sqrt(threshold / (images_of[label] / len(records))))
        factors.append(factor)
    return factors


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.5, 1.0])
def test_factors_are_those_of_a_naive_loop(rare, threshold: float):
    everything = np.ones(len(rare.labels_K), bool)
    factors = repeat_factors(rare, np.arange(16), everything, threshold)
    images = records(rare)
    np.testing.assert_allclose(factors, naive_factors(images, threshold, lambda r: np.ones(len(r.labels_G), bool)))
    easy = repeat_factors(rare, np.arange(16), ~rare.difficult_K, threshold)
    np.testing.assert_allclose(easy, naive_factors(images, threshold, lambda r: ~r.difficult_G))
    chosen = np.array([0, 1, 5, 14])
    few = repeat_factors(rare, chosen, everything, threshold)
    np.testing.assert_allclose(
        few, naive_factors([images[i] for i in chosen], threshold, lambda r: np.ones(len(r.labels_G), bool))
    )


def test_factors_by_hand(rare):
    factors = repeat_factors(rare, np.arange(16), np.ones(len(rare.labels_K), bool), 0.5)
    assert factors[0] == pytest.approx(math.sqrt(8)) and factors[1] == pytest.approx(math.sqrt(2))
    assert factors[5] == 1 and factors[14] == 1  # dogs are in more than half; nothing is in the last


@settings(max_examples=30)
@given(seed=st.integers(0, 2**30), count=st.integers(1, 12))
def test_each_epoch_has_the_whole_part_of_every_factor_and_at_most_one_more(seed: int, count: int):
    factors_G = np.random.default_rng(seed).uniform(1, 4, count)
    stream = RepeatingStream(np.arange(count) + 10, seed, 2, factors_G)
    for epoch in (0, 1, 7):
        images = stream.images(np.arange(stream.before(epoch), stream.before(epoch + 1)))
        times_G = np.array([(images == member).sum() for member in stream.members_G])
        assert times_G.sum() == len(images)
        assert (times_G >= np.floor(factors_G)).all() and (times_G <= np.floor(factors_G) + 1).all()


def test_images_come_as_often_as_their_factors_ask():
    factors_I = np.array([1, 1.25, 2.5, 3.9, 1, 1.5, 1.0, 2.0])
    plan = TrainPlan(np.array([0, 0, 0, 1, 1, 1, 1, 0]), 5, seed=3, factors_I=factors_I)
    iterations = 3000
    seen_I = np.zeros(8)
    for iteration in range(iterations):
        group, indices_B = plan.batch(iteration)
        assert len(indices_B) == 5 and (plan.groups_I[indices_B] == group).all()
        np.add.at(seen_I, indices_B, 1)
    expected_I = iterations * 5 * factors_I / factors_I.sum()
    assert np.abs(seen_I / expected_I - 1).max() < 0.03
    assert abs(seen_I[6] - seen_I[4]) <= 5 * 2  # of whole factors in one group: equal, but for the epochs at the ends


def test_factors_of_one_are_the_plan_without_them():
    groups_I = np.repeat([0, 1, 2], [9, 5, 1])
    plain, ones = TrainPlan(groups_I, 4, 3), TrainPlan(groups_I, 4, 3, factors_I=np.ones(15))
    lengths = [[plan._batches_before(epoch) for epoch in range(9)] for plan in (plain, ones)]
    assert lengths[0] == lengths[1]
    stream = RepeatingStream(np.arange(9), 3, 0, np.ones(9))
    for epoch in range(3):
        assert sorted(stream.images(np.arange(9) + 9 * epoch).tolist()) == list(range(9))
        assert sorted(Stream(np.arange(9), 3, 0).images(np.arange(9) + 9 * epoch).tolist()) == list(range(9))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_each_batch_and_a_resumed_plan_goes_on_as_the_first_would(world_size: int):
    factors_I = np.random.default_rng(0).uniform(1, 3, 33)
    groups_I = np.repeat([0, 1], [20, 13])
    whole = TrainPlan(groups_I, 8, 5, factors_I=factors_I)
    batches = [(*whole.batch(t), whole.repetitions(t)) for t in range(40)]
    resumed = TrainPlan(groups_I, 8, 5, factors_I=factors_I)
    ranks = [
        TrainRequests(resumed, Share(batch=8, rank=r, world_size=world_size, start=31, stop=40))
        for r in range(world_size)
    ]
    for (group, indices_B, repetitions_B), *parts in zip(batches[31:], *ranks, strict=True):
        assert [i for part in parts for i in part.indices] == indices_B.tolist()
        assert [i for part in parts for i in part.repetitions] == repetitions_B.tolist()
        assert {part.group for part in parts} == {group}


@given(images=st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_occurrences_count_what_came_before(images: list[int]):
    assert occurrences(np.array(images)).tolist() == [images[:place].count(i) for place, i in enumerate(images)]


def test_images_of_rare_classes_come_more_often_in_other_views(rare):
    share = Share(batch=8, stop=60, seed=7)
    loader = detection_train_loader(rare, VIEWS, TruthPolicy(), share, repeat_threshold=1.0)
    times, together = Counter(), 0
    for batch in loader:
        times.update(batch.image_ids)
        seeds = batch.inputs[1].draw_seeds_N.tolist()
        assert len(set(seeds)) == 8  # an image that comes twice in a batch has two views
        together += len(batch.image_ids) - len(set(batch.image_ids))
    assert together > 10
    assert times[0] / times[5] == pytest.approx(4 / math.sqrt(16 / 11), rel=0.15)
    assert times[1] / times[14] == pytest.approx(2, rel=0.2)
    seen = detection_train_loader(rare, VIEWS, TruthPolicy(), share)
    assert len(set(Counter(i for batch in seen for i in batch.image_ids).values())) == 1


def test_difficult_objects_that_are_dropped_ask_for_nothing(rare):
    policy, share = TruthPolicy(difficult="drop"), Share(batch=8, stop=1, seed=7)
    loader = detection_train_loader(rare, VIEWS, policy, share, repeat_threshold=1.0, keep_empty=False)
    plan = loader.reader.plan
    assert len(plan.groups_I) == 13
    assert plan._streams[int(plan.groups_I[0])].factors_G[1] == pytest.approx(math.sqrt(13 / 3))
