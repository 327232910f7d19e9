"""Optimisers: which parameters decay, and that fusing changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.engine.toy import ToyNet, batches
from vertebra.engine.optim import adamw, fill_momentum, parameter_groups, set_learning_rate, sgd


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is q for q in parameters)}


def test_everything_decays_unless_norms_and_biases_are_spared():
    model = ToyNet()
    (group,) = parameter_groups(model, lr=0.1, weight_decay=0.1)
    assert len(group["params"]) == len(list(model.parameters()))
    decayed, spared = parameter_groups(model, lr=0.1, weight_decay=0.1, decay_norms=False)
    assert names_of(model, decayed["params"]) == {"conv.weight", "squeeze.weight", "fc.weight"}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {"norm.weight", "norm.bias", "conv.bias"} <= names_of(model, spared["params"])


def test_frozen_parameters_are_left_out_and_shared_ones_come_once():
    model = ToyNet()
    model.conv.requires_grad_(False)
    model.add_module("again", model.fc)
    (group,) = parameter_groups(model, lr=0.1, weight_decay=0.1)
    assert names_of(model, group["params"]).isdisjoint({"conv.weight", "conv.bias"})
    assert len({id(p) for p in group["params"]}) == len(group["params"]) == 6


def test_a_wholly_frozen_model_is_a_sentence():
    with pytest.raises(ValueError, match="Nothing is left to train"):
        sgd(ToyNet().requires_grad_(False), lr=0.1)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_torchs_plain_loop(nesterov):
    own, other = ToyNet(dropout=0.0), ToyNet(dropout=0.0)
    other.load_state_dict(own.state_dict())
    fused = sgd(own, lr=0.1, nesterov=nesterov)
    fill_momentum(fused)
    plain = torch.optim.SGD(other.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=nesterov, foreach=False)
    for batch in batches(0, 4):
        for model, optimizer in ((own, fused), (other, plain)):
            model(*batch.inputs)["loss_cls"].backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(own.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_is_a_factor_on_each_groups_base():
    optimizer = adamw(ToyNet(), lr=0.2)
    optimizer.param_groups[1]["initial_lr"] = 0.4
    assert set_learning_rate(optimizer, 0.5) == pytest.approx(0.1)
    assert set_learning_rate(optimizer, 0.1) == pytest.approx(0.02)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.04)


def test_a_first_step_that_is_skipped_leaves_momentum_at_zero():
    model = ToyNet()
    optimizer = sgd(model, lr=0.1)
    fill_momentum(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    before = [p.clone() for p in model.parameters()]
    optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())
