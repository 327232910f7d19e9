"""Compiled steps: the same training under the same names, alone and in two processes; a sentence without a compiler."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.engine.toy import ITERATIONS, batches, job
from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.compiling import compile_forward
from vertebra.ground.errors import UserError


def test_a_small_net_compiles_for_real():
    class Net(nn.Sequential):  # a class of one's own, as all networks are: torch 2.11 leaves its own containers alone
        def forward(self, x_NC: torch.Tensor) -> torch.Tensor:
            return super().forward(x_NC)

    plain = Net(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = copy.deepcopy(plain)
    x_NC = torch.randn(3, 6)
    begin_step = compile_forward(compiled, torch.device("cpu"))
    begin_step()
    torch._dynamo.utils.counters.clear()
    compiled(x_NC).square().sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    plain(x_NC).square().sum().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for one, other in zip(compiled.parameters(), plain.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


def test_without_a_compiler_there_is_a_sentence(monkeypatch, train_toy):
    def fails(*_, **__):
        def trial(*_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return trial

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(UserError, match=r"does not work on this machine \(InvalidCxxCompiler.*\); install a C\+\+"):
        train_toy(compile=True)


@pytest.mark.slow
def test_compiled_training_is_the_same_training(train_toy):
    plain, _ = train_toy(iterations=8, loader=batches(0, 16), accumulate=2)
    compiled, _ = train_toy(iterations=8, loader=batches(0, 16), accumulate=2, compile=True)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for one, other in zip(plain.state_dict().values(), compiled.state_dict().values()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_compiled_processes_equal_one_that_is_not(tmp_path, toy_program):
    done = toy_program(tmp_path / "two", "--plain", "--gpus", 2, "--compile")
    assert done.returncode == 0, done.stderr
    job(tmp_path / "one", plain=True)
    one, two = (load_checkpoint(tmp_path / n / "checkpoints" / f"{ITERATIONS:07}.pt") for n in ("one", "two"))
    assert list(one["model"]) == list(two["model"])
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=1e-4, atol=1e-5)
