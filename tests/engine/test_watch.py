"""What a watch counts, and for how long; its report is in test_distributed.py."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace

import torch
import torch.distributed as dist

from vertebra.engine import distributed, watch
from vertebra.engine.distributed import World
from vertebra.engine.watch import LONG_PATIENCE_S, PATIENCE_S, Watch

CPU = torch.device("cpu")


def test_a_step_has_ten_minutes_and_what_rank_0_does_alone_has_hours(monkeypatch):
    seen = Watch("rank 0", rank=0, size=2, key="")
    world = World(size=2, watch=seen)
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    world.step(7)
    assert (seen._wait.what, seen._wait.patience_s) == ("iteration 7", PATIENCE_S)
    now[0] = 601.0
    assert seen._wait.is_over
    with world.patient():
        assert seen._wait.patience_s == LONG_PATIENCE_S >= 4 * 3600 and not seen._wait.is_over
        now[0] = 3600.0
    assert seen._wait.what == "iteration 7" and not seen._wait.is_over, "the step has all its time again"
    now[0] = 4201.0
    assert seen._wait.is_over
    world.step(None)
    assert seen._wait is None


def test_gpus_speak_over_nccl_for_ten_minutes_and_objects_go_over_gloo_for_hours(monkeypatch):
    asked = {}
    gloo = SimpleNamespace(_set_default_timeout=lambda timeout: asked.update(gloo=timeout))
    monkeypatch.setattr(os, "environ", {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0"})
    monkeypatch.setattr(dist, "rendezvous", lambda url, timeout: iter([("the store", 3, 8)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: asked.update(options, backend=backend))
    monkeypatch.setattr(dist, "group", SimpleNamespace(WORLD=SimpleNamespace(_get_backend={CPU: gloo}.get)))
    distributed._join(torch.device("cuda", 3))
    assert asked == {
        "backend": "cpu:gloo,cuda:nccl",
        "store": "the store",
        "rank": 3,
        "world_size": 8,
        "device_id": torch.device("cuda", 3),
        "timeout": timedelta(seconds=PATIENCE_S + 60),
        "gloo": timedelta(seconds=LONG_PATIENCE_S),
    }
    assert os.environ == {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_FR_BUFFER_SIZE": "2000"}
