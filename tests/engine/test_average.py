"""The weights' moving average, against torch's own and a naive loop, and in a run that is broken off."""

from __future__ import annotations

import json

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.engine.conftest import same
from tests.engine.toy import ToyNet, batches
from vertebra.engine import rng
from vertebra.engine.average import WeightAverage
from vertebra.engine.loop import train
from vertebra.engine.optim import sgd
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Constant


def steps(model: ToyNet, count: int):
    """Trains step by step, giving the number of each."""
    optimizer = sgd(model, lr=0.5)
    for number, batch in enumerate(batches(0, count), start=1):
        model(*batch.inputs)["loss_cls"].backward()
        optimizer.step()
        optimizer.zero_grad()
        yield number


def test_the_average_equals_torchs_on_the_same_updates():
    model = ToyNet()
    averager = WeightAverage(model, 0.9)
    peer = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    peer.update_parameters(model)  # torch's first update copies
    for number in steps(model, 8):
        averager.update(1000 + number)  # far into a training, where the decay has its whole value
        peer.update_parameters(model)
    averages = averager.state_dict()
    assert {"conv.weight", "norm.running_mean", "norm.running_var"} <= averages.keys()
    expected = peer.module.state_dict()
    for name, tensor in averages.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7)
        assert not torch.allclose(tensor, model.state_dict()[name], rtol=1e-3), name


def test_early_on_the_average_forgets_faster():
    model = ToyNet(norm=False)
    average = WeightAverage(model, 0.5)
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}
    for number in steps(model, 12):
        average.update(number)
        decay = min(0.5, (1 + number) / (10 + number))
        now = model.state_dict()
        expected = {name: decay * old + (1 - decay) * now[name].double() for name, old in expected.items()}
    for name, tensor in average.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_what_is_lent_is_given_back_to_the_bit():
    model = ToyNet()
    average = WeightAverage(model, 0.9)
    for number in steps(model, 3):
        average.update(number)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError), average.lent():
        lent = model.state_dict()
        assert all(torch.equal(lent[name], tensor) for name, tensor in average.state_dict().items())
        raise RuntimeError
    assert same(dict(model.state_dict()), own)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_outside_0_and_1_is_a_sentence(decay):
    with pytest.raises(ValueError, match="decay lies between 0 and 1"):
        WeightAverage(ToyNet(), decay)


def run_with_average(path, *, iterations: int, resume: bool = False) -> dict:
    """A run with an average up to `iterations`; its last state, without the time it took."""
    rng.seed_all(0)
    model = ToyNet()
    average = WeightAverage(model, 0.8)
    run = RunDirectory.open(path, {}, resume=resume, tensorboard=False)
    state = run.latest_state()
    start = state["iteration"] if state else 0
    train(
        model=model, optimizer=sgd(model, lr=0.1), schedule=Constant(), run=run, iterations=iterations,
        loader=batches(start, iterations), average=average, state=state, log_period=3, best="ema_size", eval_period=4,
        evaluate=lambda _: {"size": float(model.fc.weight.abs().sum())},
    )  # fmt: skip
    state = run.checkpoints.latest()
    state["record"].pop("seconds")
    return state


def test_a_run_resumed_ends_with_the_same_average_to_the_bit(tmp_path):
    whole = run_with_average(tmp_path / "whole", iterations=8)
    run_with_average(tmp_path / "part", iterations=4)
    parts = run_with_average(tmp_path / "part", iterations=8, resume=True)
    assert whole["watch"].pop("iterations") == parts["watch"].pop("iterations") + 4  # the first half was said to be all
    assert same(whole, parts)


def test_the_average_is_evaluated_beside_the_weights_and_can_choose_the_best(tmp_path):
    state = run_with_average(tmp_path / "run", iterations=8)
    raw, averaged = (state[kind]["fc.weight"].abs().sum().item() for kind in ("model", "average"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "size" in line][-1]
    assert last == {"iteration": 8, "size": pytest.approx(raw), "ema_size": pytest.approx(averaged)}
    assert raw != averaged and state["record"]["best"] == max(line["ema_size"] for line in lines if "size" in line)
