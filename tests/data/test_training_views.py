"""The classification loader's training options: repeated views, growing pictures, mixing; keyed like all draws."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.batches import assert_forks_and_resumes, assert_processes_share, assert_same
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.classification import classification_train_loader
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.sampling import Share, TrainPlan, TrainRequests, draw_seed
from vertebra.data.transforms.classification_views import ClassificationTransform, Growth, Mixing
from vertebra.data.transforms.pixels import pixel_changes

TRANSFORM = ClassificationTransform(
    size=48,
    shorter=52,
    augment="crop",
    flip=0.5,
    pixel_changes=pixel_changes(policy="trivial", colour="pca", erase=0.5, erase_rgb=(124, 116, 104)),
)
GROWTH, MIXING = Growth(16, 48, 0.8, 10), Mixing(mixup=0.2, cutmix=1.0)


def loader(dataset: ClassificationDataset, *, repeats: int = 3, cache_mb: int = 1, **share: int) -> Loader:
    """Everything at once."""
    return classification_train_loader(
        dataset,
        TRANSFORM,
        Share(**{"batch": 6, "stop": 10, "seed": 7, **share}),
        repeats=repeats,
        growth=GROWTH,
        mixing=MIXING,
        cache_mb=cache_mb,
    )


def test_nothing_depends_on_workers_cache_or_where_the_loader_starts(folders):
    whole = assert_forks_and_resumes(partial(loader, folders), start=4, stop=10)
    assert len({batch.inputs[2] for batch in whole}) == 10
    assert_same(whole, loader(folders, cache_mb=0))


@pytest.mark.parametrize("repeats", [1, 3, 4])
def test_two_processes_together_have_what_one_has_and_mix_by_the_same_draw(folders, repeats: int):
    make = partial(loader, folders, repeats=repeats)
    assert_processes_share(make, of_images=lambda batch: batch.inputs[:2])
    for batches in zip(make(), *(make(rank=rank, world_size=2) for rank in range(2)), strict=True):
        assert len({tuple(batch.inputs[2].tolist()) for batch in batches}) == 1


def test_pictures_grow_to_their_size_and_boxes_stay_in_them(folders):
    sides = []
    for batch in loader(folders):
        pixels_N3HW, _, mixing_5 = batch.inputs
        side = GROWTH.side(batch.iteration)
        assert pixels_N3HW.shape == (6, 3, side, side) and pixels_N3HW.dtype == torch.uint8
        assert pixels_N3HW.is_contiguous(memory_format=torch.channels_last)
        assert (mixing_5[1:] <= side).all()
        sides.append(side)
    assert sides == [16, 16, 24, 24, 32, 32, 40, 40, 48, 48]


def test_a_batch_has_different_views_of_each_image_it_draws(folders):
    transform, share = replace(TRANSFORM, pixel_changes=()), Share(batch=6, stop=10, seed=7)
    for batch in classification_train_loader(folders, transform, share, repeats=3):
        views = np.array(batch.image_ids).reshape(3, 2)  # first views, second, third
        assert (views == views[0]).all() and views[0, 0] != views[0, 1]
        pixels_N3HW = batch.inputs[0]
        for first in range(2):
            same_image = pixels_N3HW[first::2]
            assert len({view.numpy().tobytes() for view in same_image}) == 3


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    batch=st.integers(1, 12),
    repeats=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_repeated_views_fill_the_stream_and_all_images_come_equally_often(
    counts: list[int], batch: int, repeats: int, seed: int
):
    """As a sampler that repeats each image of a permutation at once, except that no epoch's rest is thrown away."""
    groups_I = np.repeat(np.arange(len(counts)), counts)
    plan = TrainPlan(groups_I, batch, seed, repeats)
    seen = np.zeros((len(groups_I), repeats), int)
    for iteration in range(sum(counts) * repeats):
        group, indices_B = plan.batch(iteration)
        repetitions_B = plan.repetitions(iteration)
        assert len(indices_B) == len(repetitions_B) == batch and (groups_I[indices_B] == group).all()
        assert (np.diff(repetitions_B) >= 0).all()
        np.add.at(seen, (indices_B, repetitions_B), 1)
        if batch % repeats == 0:
            first = indices_B[: batch // repeats]
            assert np.array_equal(indices_B, np.tile(first, repeats))
            assert np.array_equal(repetitions_B, np.repeat(np.arange(repeats), batch // repeats))
    assert (seen == batch).all()


def test_an_epoch_is_as_long_as_ever_and_draws_fewer_images(folders):
    assert len(classification_train_loader(folders, TRANSFORM, Share(batch=6), repeats=3)) == 3
    plan = TrainPlan(np.zeros(400, int), 20, seed=1, repeats=4)
    epoch = np.concatenate([plan.batch(t)[1] for t in range(20)])
    images, times = np.unique(epoch, return_counts=True)
    assert len(images) == 100 and (times == 4).all()
    four = np.concatenate([plan.batch(t)[1] for t in range(80)])
    assert (np.unique(four, return_counts=True)[1] == 4).all() and len(np.unique(four)) == 400


def test_without_repetition_requests_and_draws_are_what_they_have_always_been():
    assert draw_seed(7, 3, 5) == draw_seed(7, 3, 5, 0) == 8633791053928439926
    assert len({draw_seed(7, 3, 5, repetition) for repetition in range(4)}) == 4
    plan = TrainPlan(np.zeros(10, int), 4, seed=3)
    share = Share(batch=4, rank=1, world_size=2, stop=5)
    requests = TrainRequests(plan, share)
    assert all(request.repetitions == () for request in requests)
    repeated = TrainRequests(TrainPlan(np.zeros(10, int), 4, 3, repeats=2), share)
    assert all(request.repetitions == (1, 1) for request in repeated)
