"""Times and memory of calls, against what the calls are known to take."""

import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from tests.engine.conftest import ROOT
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process's peak be counted anew")
@pytest.mark.parametrize("keeping", ["keeping", "not keeping"])
def test_memory_growth_is_what_was_held_at_once_inside(keeping):
    """Whatever the process held, freed and kept before: it is asked in one with an untidy past."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "engine" / "untidy.py"), keeping]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == 5
    for size_mb, growth_mb in (map(float, line.split()) for line in told):
        assert growth_mb == pytest.approx(size_mb, abs=0.7)


def test_an_error_inside_is_handed_on():
    with pytest.raises(ZeroDivisionError):
        memory_growth(lambda: 1 / 0, CPU)


def test_shared_weights_count_once_and_buffers_count():
    one = nn.Linear(256, 1024, bias=False)
    both = nn.Sequential(one, nn.Linear(256, 1024, bias=False))
    both[1].weight = one.weight
    both.register_buffer("constant", torch.zeros(1 << 18))
    assert weights_mb(both) == 2.0
