"""Schedules against torch's own, step by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as peers

from engine.schedule import Constant, Cosine, MultiStep, Plateau, Polynomial, Warmup, create_schedule


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
    ("ours", "theirs"),
    [
        (MultiStep((3, 7), 0.1), lambda o: peers.MultiStepLR(o, [3, 7], 0.1)),
        (Cosine(20), lambda o: peers.CosineAnnealingLR(o, 20)),
        (Cosine(20, final=0.1), lambda o: peers.CosineAnnealingLR(o, 20, eta_min=0.1)),
        (Polynomial(20), lambda o: peers.PolynomialLR(o, 20, 1.0)),
        (Polynomial(20, power=2.0), lambda o: peers.PolynomialLR(o, 20, 2.0)),
        (Warmup(Constant(), 5, start=0.2), lambda o: peers.LinearLR(o, 0.2, total_iters=5)),
        (Warmup(Constant(), 5, start=0.1, kind="constant"), lambda o: peers.ConstantLR(o, 0.1, 5)),
    ],
    ids=str,
)
def test_a_schedule_equals_torchs(ours, theirs):
    assert [ours(step) for step in range(20)] == pytest.approx(torch_factors(theirs, 20), abs=1e-9)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_equals_torchs(mode):
    figures = [1.0, 2.0, 2.0, 2.0, 1.5, 3.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 0.5, 0.5, 4.0]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = peers.ReduceLROnPlateau(optimizer, mode, factor=0.1, patience=2, eps=0.0)
    ours = Plateau("AP", mode=mode, patience=2)
    for figure in figures:
        ours.observe({"AP": figure})
        theirs.step(figure)
        assert ours(0) == pytest.approx(optimizer.param_groups[0]["lr"])


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


def test_words_become_schedules():
    assert create_schedule("steps", iterations=9, milestones=[6, 8]) == MultiStep((6, 8))
    assert create_schedule("cosine", iterations=9, warmup_iterations=2) == Warmup(Cosine(9), 2)
    with pytest.raises(ValueError, match="no schedule 'cosin'; choose one of constant, steps, cosine, linear, plateau"):
        create_schedule("cosin", iterations=9)
    with pytest.raises(ValueError, match="no warm-up 'slow'"):
        create_schedule("cosine", iterations=9, warmup_kind="slow")
