"""The plan of batches: what an iteration holds depends on nothing but seed and iteration."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.loading.sampling import (
    RETRIES,
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    draw_seed,
    evenly,
    sequential_requests,
    try_samples,
)
from vertebra.data.transforms.canvases import choose_canvases, default_canvases, resized
from vertebra.ground.errors import BadSample, DataError


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    batch=st.integers(1, 12),
    seed=st.integers(0, 2**40),
)
def test_every_image_is_seen_equally_often_and_batches_never_mix_groups(counts: list[int], batch: int, seed: int):
    groups_I = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    plan = TrainPlan(groups_I, batch, seed)
    iterations = sum(counts)  # that many batches are `batch` epochs: every group comes out even
    seen = np.zeros(len(groups_I), int)
    for iteration in range(iterations):
        group, indices_B = plan.batch(iteration)
        assert len(indices_B) == batch and (groups_I[indices_B] == group).all()
        np.add.at(seen, indices_B, 1)
    assert (seen == batch).all()


def test_an_epoch_of_one_group_is_a_permutation_and_its_rest_goes_into_the_next():
    plan = TrainPlan(np.zeros(10, int), 4, seed=3)
    stream = np.sort(np.concatenate([plan.batch(t)[1] for t in range(5)]))
    assert stream.tolist() == sorted(list(range(10)) * 2)
    first_epoch = np.concatenate([plan.batch(t)[1] for t in range(2)])
    assert len(set(first_epoch.tolist())) == 8


def test_seeds_and_epochs_give_other_orders():
    def order(seed: int, epoch: int) -> list[int]:
        plan = TrainPlan(np.zeros(12, int), 4, seed)
        return np.concatenate([plan.batch(3 * epoch + t)[1] for t in range(3)]).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_far_iteration_is_reached_without_walking_there():
    plan = TrainPlan(np.repeat([0, 1, 2], [900, 99, 1]), 16, seed=0)
    group, indices_B = plan.batch(10**7)
    assert (plan.groups_I[indices_B] == group).all()


@pytest.mark.parametrize(("world_size", "parts"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2), (4, 2)])
def test_processes_and_accumulated_parts_share_each_global_batch(world_size: int, parts: int):
    plan = TrainPlan(np.repeat([0, 1], [20, 13]), 8, seed=5)
    share = Share(batch=8, world_size=world_size, parts=parts, start=3, stop=9)
    ranks = [list(TrainRequests(plan, replace(share, rank=rank))) for rank in range(world_size)]
    assert {len(requests) for requests in ranks} == {6 * parts}
    for step in range(6):
        requests = [request for rank in ranks for request in rank[step * parts : (step + 1) * parts]]
        assert {request.iteration for request in requests} == {3 + step}
        assert [i for request in requests for i in request.indices] == plan.batch(3 + step)[1].tolist()
        assert [request.first for request in requests] == list(range(0, 8, 8 // (world_size * parts)))
        assert len({request.group for request in requests}) == 1


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_at_test_every_image_comes_once_in_order_and_batches_do_not_depend_on_the_processes(
    count: int, world_size: int
):
    alone = sequential_requests(count, Share(batch=4))
    batches = {request.iteration: list(request.indices) for request in alone}
    shared: dict[int, list[int]] = {}
    for rank in range(world_size):
        requests = sequential_requests(count, Share(batch=4, rank=rank, world_size=world_size))
        indices = [i for request in requests for i in request.indices]
        assert indices == sorted(indices) and all(request.indices for request in requests)
        for request in requests:
            shared.setdefault(request.iteration, []).extend(request.indices)
    assert shared == batches and [i for batch in batches.values() for i in batch] == list(range(count))


def test_draw_seeds_differ_by_each_part_of_the_key():
    keys = {draw_seed(s, t, i) for s in range(4) for t in range(4) for i in (0, 1, 2, -5, 2**60)}
    assert len(keys) == 80 and all(0 <= key < 2**63 for key in keys)


def test_a_limit_takes_images_evenly():
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(10, None).tolist() == evenly(10, 99).tolist() == list(range(10))


def test_a_bad_sample_is_replaced_by_another_of_its_group_the_same_on_every_run():
    plan = TrainPlan(np.repeat([0, 1], [6, 6]), 4, seed=0)

    def sample(place: int) -> int:
        if place in (7, 8):
            raise BadSample(f"{place}.jpg", "zero bytes long", "replace it")
        return place

    results = []
    for _ in range(2):
        skipped: list[str] = []
        results.append((try_samples(sample, 7, Request(5, (7,), 1), plan, skipped), tuple(skipped)))
    assert results[0] == results[1]
    place, skipped_once = results[0]
    assert plan.groups_I[place] == 1 and place not in (7, 8) and skipped_once[0] == "7.jpg: zero bytes long"


def test_bad_samples_are_errors_at_test_and_when_there_is_nothing_else():
    def sample(place: int) -> int:
        raise BadSample(f"{place}.jpg", "zero bytes long", "replace it")

    with pytest.raises(BadSample, match=r"3.jpg: zero bytes long; replace it"):
        try_samples(sample, 3, Request(0, (3,), 0), None, [])
    plan = TrainPlan(np.zeros(5, int), 2, seed=0)
    skipped: list[str] = []
    with pytest.raises(DataError, match=r"11 images in a row cannot be used, the last being \d.jpg: zero bytes"):
        try_samples(sample, 3, Request(0, (3,), 0), plan, skipped)
    assert len(skipped) == RETRIES + 1


sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@given(size=sizes, shorter=st.integers(16, 900), stretch=st.floats(1, 3))
def test_an_images_canvas_holds_it_at_its_full_size(size: tuple[int, int], shorter: int, stretch: float):
    longer = int(shorter * stretch)
    canvases = default_canvases(shorter, longer)
    canvas = canvases[int(choose_canvases(np.array([size]), shorter, longer, canvases)[0])]
    height, width = resized(size, shorter, longer, canvas)
    scale = min(shorter / min(size), longer / max(size))
    assert 1 <= height <= canvas[0] and 1 <= width <= canvas[1]
    assert abs(height - max(1, size[0] * scale)) <= 1 and abs(width - max(1, size[1] * scale)) <= 1
    assert all(side % 32 == 0 for canvas in canvases for side in canvas)


def test_the_usual_photographs_fill_their_canvases():
    canvases = default_canvases(600, 1000)
    chosen = choose_canvases(
        np.array([(375, 500), (500, 375), (333, 500), (400, 400), (200, 900)]), 600, 1000, canvases
    )
    assert [canvases[c] for c in chosen] == [(608, 800), (800, 608), (608, 928), (608, 608), (608, 1024)]


def test_a_given_canvas_bounds_the_image():
    canvases = ((224, 224), (224, 320))
    chosen = choose_canvases(np.array([(300, 300), (300, 450), (300, 900)]), 224, 400, canvases)
    assert chosen.tolist() == [0, 1, 1]
    assert resized((300, 450), 224, 400, (224, 320)) == (214, 320)
    assert resized((300, 900), 224, 400, (224, 320)) == (107, 320)
