"""Schedules against torch's own, step by step."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch.optim import lr_scheduler as peers

from tests.engine.conftest import same
from tests.engine.toy import ToyNet, batches
from vertebra.engine.schedule import (
    OBSERVE_PERIOD,
    Constant,
    Cosine,
    Linear,
    MultiStep,
    Plateau,
    Warmup,
    WarmupUntilError,
)


def torch_factors(make_scheduler, steps: int) -> list[float]:
    """What one of torch's schedulers does to a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make_scheduler(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize(
    ("schedule", "peer"),
    [
        (MultiStep((3, 7), 0.1), lambda o: peers.MultiStepLR(o, [3, 7], 0.1)),
        (Cosine(20), lambda o: peers.CosineAnnealingLR(o, 20)),
        (Linear(20), lambda o: peers.PolynomialLR(o, 20, 1.0)),
        (Warmup(Constant(), 5, start=0.2), lambda o: peers.LinearLR(o, 0.2, total_iters=5)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_schedule_equals_torchs(schedule, peer):
    assert [schedule(step) for step in range(20)] == pytest.approx(torch_factors(peer, 20), abs=1e-9)


@pytest.mark.parametrize("patience", [0, 2, 5])
def test_plateau_equals_torchs_on_random_figures(patience):
    draw = random.Random(patience)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = peers.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=patience, eps=0.0)
    schedule = Plateau("AP", gamma=0.5, patience=patience)
    for step in range(60):  # rising towards 70, with noise and repetitions
        figure = round(70 - 70 / (1 + step) + draw.gauss(0, 2), 1)
        schedule.observe({"AP": figure})
        peer.step(figure)
        assert schedule(0) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule(0) < 0.6, "it never fell"


def test_a_plateau_under_a_warmup_is_followed_and_saved():
    schedule = Warmup(Plateau("AP", patience=0), 2)
    schedule.observe({"AP": 1.0})
    schedule.observe({"AP": 1.0})
    again = Warmup(Plateau("AP", patience=0), 2)
    again.load_state_dict(schedule.state_dict())
    assert schedule(5) == again(5) == pytest.approx(0.1)


def test_a_plateau_that_follows_no_figure_of_the_evaluation_is_a_sentence():
    with pytest.raises(ValueError, match="follows 'AP', but the evaluation gives top1, top5; name one of these"):
        Plateau("AP").observe({"top1": 1.0, "top5": 2.0})


def test_a_warmup_until_an_error_ends_once_and_for_good():
    schedule = WarmupUntilError(MultiStep((100,)), error=80.0, start=0.1)
    assert schedule(0) == pytest.approx(0.1) and schedule.is_warming_up(0)
    schedule.observe_training({"top1": 20.0})  # an error of 80 is not below 80
    assert schedule(50) == pytest.approx(0.1) and schedule(100) == pytest.approx(0.01)
    schedule.observe_training({"top1": 20.1})
    assert schedule(51) == 1.0 and not schedule.is_warming_up(51)
    schedule.observe_training({"top1": 0.0})
    assert schedule(52) == 1.0 and schedule(100) == pytest.approx(0.1)
    again = WarmupUntilError(MultiStep((100,)), error=80.0, start=0.1)
    again.load_state_dict(schedule.state_dict())
    assert again == schedule


def test_a_warmup_until_an_error_that_nobody_tells_is_a_sentence():
    with pytest.raises(ValueError, match="follows the training's top1, but the model gives loss_cls; give it a length"):
        WarmupUntilError(Constant(), 80.0).observe_training({"loss_cls": 1.0})


class Improving(ToyNet):
    """Right in a share of its answers that grows by 1 % an iteration."""

    def __init__(self) -> None:
        super().__init__(norm=False, dropout=0.0)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, pixels, labels):
        self.steps += 1
        return {**super().forward(pixels, labels), "top1": self.steps.clone()}


def rates(run) -> dict[int, float]:
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return {line["iteration"]: line["lr"] for line in lines}


@pytest.mark.parametrize("log_period", [1, 7, 1000])
def test_the_loop_ends_the_warmup_at_the_same_step_however_often_it_logs(train_toy, run, log_period):
    schedule = WarmupUntilError(Constant(), error=40.0)
    # The mean of iterations 1..50 is 25.5, of 51..100 it is 75.5 % right, an error of 24.5.
    train_toy(model=Improving(), iterations=2 * OBSERVE_PERIOD + 3, schedule=schedule, log_period=log_period)
    lr = rates(run)
    assert all(rate == pytest.approx(0.01 if at <= 2 * OBSERVE_PERIOD else 0.1) for at, rate in lr.items()) and lr


def test_a_warmup_that_was_broken_off_goes_on_to_the_bit(train_toy, run, tmp_path):
    from vertebra.engine.rundir import RunDirectory

    def go(place, until, *, start=0, state=None):
        schedule = WarmupUntilError(Constant(), error=40.0)
        options = {"schedule": schedule, "loader": batches(start, until), "run": place, "state": state}
        train_toy(model=Improving(), iterations=until, checkpoint_period=30, **options)
        return place.checkpoints.latest()

    whole = go(run, 110)
    part = RunDirectory.open(tmp_path / "part", {}, tensorboard=False)
    state = go(part, 90)  # in the midst of the second window
    parts = go(part, 110, start=90, state=state)
    for one in (whole, parts):
        one["record"].pop("seconds")
        one["watch"].pop("iterations")  # the first part had another length
    assert rates(run)[100] < rates(run)[102] and same(whole, parts)
