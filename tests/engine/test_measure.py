"""Times and memory of calls, against what the calls are known to take."""

import time

import pytest
import torch
from torch import nn

from vertebra.engine.measure import memory_growth, timed_calls, weights_mb

CPU = torch.device("cpu")


def test_calls_are_timed_after_a_warm_up():
    done = []

    def call():
        time.sleep(0.05 if not done else 0.01)
        done.append(None)

    times_s = timed_calls(call, CPU, enough=4, warmup=1)
    assert len(done) == 5 and len(times_s) == 4
    assert all(seconds >= 0.01 for seconds in times_s) and min(times_s) < 0.05


@pytest.mark.parametrize(("fewest", "within_s", "made"), [(2, 0.0, 2), (3, 0.05, 3), (1, 1e9, 6), (None, 0.0, 6)])
def test_slow_calls_are_fewer_but_never_less_than_the_fewest(fewest, within_s, made):
    times_s = timed_calls(lambda: time.sleep(0.02), CPU, enough=6, fewest=fewest, within_s=within_s, warmup=0)
    assert len(times_s) == made


def test_memory_growth_is_what_was_held_at_once_inside():
    before = [torch.ones(1 << 18) for _ in range(3)]

    def call():
        for _ in range(3):  # freed in between, so not added up
            half, other = torch.ones(1 << 19), torch.ones(1 << 19)
            half.add_(other).view(-1)[::2].mul_(2)  # in place, views: nothing new
            before[0].add_(1)
            del half, other

    assert memory_growth(call, CPU) == 4.0


@torch.inference_mode()
def test_memory_growth_of_a_network_is_its_two_largest_neighbouring_maps():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 1, 1)).eval()
    pixels = torch.zeros(1, 3, 256, 256)
    assert memory_growth(lambda: net(pixels), CPU) == 2 * 16 * 256 * 256 * 4 / 2**20


def test_an_error_inside_is_handed_on():
    with pytest.raises(ZeroDivisionError):
        memory_growth(lambda: 1 / 0, CPU)


def test_shared_weights_count_once_and_buffers_count():
    one = nn.Linear(256, 1024, bias=False)
    both = nn.Sequential(one, nn.Linear(256, 1024, bias=False))
    both[1].weight = one.weight
    both.register_buffer("constant", torch.zeros(1 << 18))
    assert weights_mb(both) == 2.0
