"""The images of each iteration: pure functions of seed and iteration, for any number of processes.

Legend: I images, B images of a global batch (over all processes). A group is a set of images that share a
canvas; every batch of training is of one group.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vertebra.data.loading.repeats import RepeatingStream, Stream, occurrences
from vertebra.ground.errors import BadSample, DataError

NO_IMAGE = -1  # in the place of an image's id, keys what is drawn for a whole batch
RETRIES = 10  # other images tried in the place of a bad one before the loader gives up
_MASK = (1 << 64) - 1
_Sample = TypeVar("_Sample")


def draw_seed(seed: int, iteration: int, image_id: int, repetition: int = 0) -> int:
    """The key of all random draws for one view of one image in one iteration, 0 .. 2**63 - 1."""
    key = [seed & _MASK, iteration & _MASK, image_id & _MASK]
    state = np.random.SeedSequence([*key, repetition] if repetition else key)
    return int(state.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class Share:
    """The images that one process reads, and when.

    batch: images of a global batch, over all `world_size` processes, of which this is number `rank`. parts: pieces in
    which each process gets its images of a training's batch, one after the other. seed: of all draws. workers:
    processes that read ahead; 0: none. start, stop: iterations start <= t < stop of a training (None: one epoch).
    limit: only that many images, evenly spaced.
    """

    batch: int
    rank: int = 0
    world_size: int = 1
    seed: int = 0
    workers: int = 0
    parts: int = 1
    start: int = 0
    stop: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Request:
    """An order to a worker: the images of the global batch of `iteration` from place `first` on.

    group: of the images, for detection the number of their canvas. repetitions: for each index, the number of its view
    in the batch; empty: all 0.
    """

    iteration: int
    indices: tuple[int, ...]
    group: int
    repetitions: tuple[int, ...] = ()
    first: int = 0


class TrainPlan:
    """Batch of iteration t, without an end.

    Every group is an endless stream of its own epochs' permutations, cut into batches; a batch that an epoch
    leaves incomplete is filled from the next. The batches that an epoch completes come in a random order,
    keyed by (seed, epoch) as the permutations are. So all images are seen equally often, even those of a
    group smaller than a batch.

    repeats: views of each image that follow one another in the stream (repeated augmentation, Hoffer et al. 2020; a
    batch has them all where `repeats` divides it). An epoch is as long as ever, and draws 1/repeats of the images.
    Within a batch all first views come before all second ones, so that neighbours are different images and
    processes have different views of the same.
    factors_I: instead, how often each image comes in an epoch, at least once; see vertebra.data.loading.repeats.
    """

    def __init__(
        self, groups_I: np.ndarray, global_batch: int, seed: int, repeats: int = 1, factors_I: np.ndarray | None = None
    ) -> None:
        self.groups_I = np.asarray(groups_I)
        self.global_batch = global_batch
        self.repeats, self.repeats_rare = repeats, factors_I is not None
        self.seed = seed & _MASK
        present = np.unique(self.groups_I)
        self.members = {int(group): np.flatnonzero(self.groups_I == group) for group in present}
        self._streams = {
            group: Stream(members, self.seed, group)
            if factors_I is None
            else RepeatingStream(members, self.seed, group, factors_I[members])
            for group, members in self.members.items()
        }
        self._completed = functools.lru_cache(maxsize=4)(self._complete)

    def batch(self, iteration: int) -> tuple[int, np.ndarray]:
        """The group of global batch `iteration`, and its B indices."""
        group, number = self._numbered(iteration)
        places_B = np.arange(number * self.global_batch, (number + 1) * self.global_batch)
        drawn_B = places_B[np.argsort(places_B % self.repeats, kind="stable")] // self.repeats
        return group, self._streams[group].images(drawn_B)

    def repetitions(self, iteration: int) -> np.ndarray:
        """Return the number of the view of each image of global batch `iteration`: 0, 1, ..."""
        if self.repeats_rare:
            return occurrences(self.batch(iteration)[1])
        first = self._numbered(iteration)[1] * self.global_batch
        return np.sort(np.arange(first, first + self.global_batch) % self.repeats)

    def _numbered(self, iteration: int) -> tuple[int, int]:
        """Group of global batch `iteration` and its number in that group's stream."""
        # an upper bound: that many epochs complete more batches; less than one a group is left over
        upper = (iteration + 1 + len(self.members)) * self.global_batch // len(self.groups_I) + 2
        epoch = bisect_right(range(upper), iteration, key=self._batches_before) - 1
        return self._completed(epoch)[iteration - self._batches_before(epoch)]

    def _batches_before(self, epoch: int) -> int:
        return sum(stream.before(epoch) // self.global_batch for stream in self._streams.values())

    def _complete(self, epoch: int) -> list[tuple[int, int]]:
        """(group, number of the batch in its stream) of the batches that this epoch completes, shuffled."""
        done = [
            (group, number)
            for group, stream in self._streams.items()
            for number in range(
                stream.before(epoch) // self.global_batch, stream.before(epoch + 1) // self.global_batch
            )
        ]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(done))
        return [done[i] for i in order]


def one_group(count: int, share: Share, repeats: int = 1) -> TrainPlan:
    """The plan of images that all have one size."""
    return TrainPlan(np.zeros(count, np.int64), share.batch, share.seed, repeats)


class TrainRequests(Sequence[Request]):
    """One process's requests for iterations start <= t < stop, `parts` each: its equal share of the plan's batches.

    Which images are in a batch, and how they are drawn, does not depend on processes and parts. Raises DataError where
    a batch does not divide among them.
    """

    def __init__(self, plan: TrainPlan, share: Share) -> None:
        if share.batch % (share.world_size * share.parts):
            in_parts = f" in {share.parts} parts each" if share.parts > 1 else ""
            raise DataError(
                f"a global batch of {share.batch} images does not divide among {share.world_size} processes{in_parts}; "
                "make it a multiple"
            )
        stop = share.start + -(-len(plan.groups_I) // share.batch) if share.stop is None else share.stop
        self.plan, self.parts = plan, share.parts
        self.iterations = range(share.start, max(share.start, stop))
        self.at_once = share.batch // (share.world_size * share.parts)
        self.first = share.rank * share.parts * self.at_once

    def __len__(self) -> int:
        return len(self.iterations) * self.parts

    def __getitem__(self, place):  # type: ignore[override]
        iteration = self.iterations[place // self.parts]
        first = self.first + place % self.parts * self.at_once
        here = slice(first, first + self.at_once)
        group, indices_B = self.plan.batch(iteration)
        repeated = self.plan.repeats > 1 or self.plan.repeats_rare
        repetitions_B = self.plan.repetitions(iteration) if repeated else np.empty(0, int)
        return Request(iteration, tuple(indices_B[here].tolist()), group, tuple(repetitions_B[here].tolist()), first)

    def __iter__(self) -> Iterator[Request]:
        return (self[place] for place in range(len(self)))


def sequential_requests(count: int, share: Share) -> list[Request]:
    """Every one of `count` images once over all processes, in order, all of group 0.

    The processes take whole batches in turn. So a batch is the same for any number of processes, and with it the
    canvas of an image and its detections.
    """
    firsts = range(0, count, share.batch)
    return [
        Request(iteration, tuple(range(firsts[iteration], min(firsts[iteration] + share.batch, count))), 0)
        for iteration in range(share.rank, len(firsts), share.world_size)
    ]


def choose_images(count: int, share: Share, where: object) -> np.ndarray:
    """Indices of the images that are used, of all `count` in the data set `where`. Raises DataError without any."""
    chosen_I = evenly(count, share.limit)
    need_images(chosen_I, where)
    return chosen_I


def need_images(chosen_I: Sized, where: object) -> None:
    if not len(chosen_I):
        raise DataError(where, "no images to load", "check the data set and the limit")


def evenly(count: int, limit: int | None) -> np.ndarray:
    """Indices of `limit` of `count` images, evenly spaced, so that data sorted by class keep all classes."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit) * count // limit


def try_samples(
    sample: Callable[[int], _Sample], wanted: int, request: Request, plan: TrainPlan | None, skipped: list[str]
) -> _Sample:
    """Return sample(wanted) or, with a plan, if that image is bad, the sample of another of its group.

    skipped: gets "path: reason" of each bad image. The substitutes are drawn from (seed, iteration, wanted), so they
    too are the same on every run. Raises BadSample without a plan, DataError after RETRIES bad substitutes.
    """
    if plan is None:
        return sample(wanted)
    rng = None
    for _ in range(RETRIES + 1):
        try:
            return sample(wanted)
        except BadSample as error:
            skipped.append(f"{error.where}: {error.reason}")
            if rng is None:
                rng = np.random.default_rng([plan.seed, request.iteration, wanted])
            wanted = int(rng.choice(plan.members[request.group]))
    raise DataError(
        f"{RETRIES + 1} images in a row cannot be used, the last being {skipped[-1]}; "
        "`python tools/prepare_data.py check` lists all that is wrong"
    )
