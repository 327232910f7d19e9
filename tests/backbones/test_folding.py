"""Folded weights are kept where no gradient passes, and made anew after every change of what they are made of."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones import norms
from backbones.norms import conv_norm, freeze_norms
from tests.backbones.test_norms import images, small
from vertebra.engine.measure import memory_growth

IN_BF16 = torch.autocast("cpu", torch.bfloat16)


class Folds(TorchDispatchMode):
    """Counts the norms that are folded: each needs a reciprocal root."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.rsqrt.default
        return func(*args, **(kwargs or {}))


def pair() -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 1, bias=True), nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 3, 3))
    return conv, norm.eval()


def test_the_second_call_folds_nothing_and_says_the_same():
    net = small().eval()
    with torch.no_grad():
        with Folds() as first:
            expected = net(images())
        with Folds() as second:
            found = net(images())
        assert (first.count, second.count) == (20, 0) and torch.equal(found, expected)
        with Folds() as in_bf16, IN_BF16:
            net(images())
        assert in_bf16.count == 20


def test_the_memory_of_what_is_kept_is_measured_and_can_be_given_back():
    net = small().eval()
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        net(images(1))
        warm_mb = memory_growth(lambda: net(images(1)), torch.device("cpu"))
        norms.forget_folded()
        cold_mb = memory_growth(lambda: net(images(1)), torch.device("cpu"))
    assert cold_mb - warm_mb > 0.9 * sum(conv.weight.nbytes for conv in convolutions) / 2**20


def step(conv: nn.Conv2d, norm: nn.BatchNorm2d, make: Any) -> None:
    for parameter in (*conv.parameters(), *norm.parameters()):
        parameter.grad = torch.ones_like(parameter)
    make([*conv.parameters(), *norm.parameters()]).step()


def lend(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """As an average of the weights is lent to a model."""
    torch._foreach_copy_([one.detach() for one in conv.parameters()], [2 * one for one in conv.parameters()])


def load(conv: nn.Conv2d, norm: nn.BatchNorm2d, **options: Any) -> None:
    norm.load_state_dict({name: value * 2 for name, value in norm.state_dict().items()}, **options)


@pytest.mark.parametrize(
    "change",
    [
        lambda conv, norm: conv.weight.mul_(2),
        lambda conv, norm: conv.bias.add_(1),
        lambda conv, norm: norm.weight.mul_(2),
        lambda conv, norm: norm.bias.add_(1),
        lambda conv, norm: norm.running_mean.add_(1),
        lambda conv, norm: norm.running_var.mul_(2),
        lambda conv, norm: setattr(norm, "eps", 0.5),
        lambda conv, norm: setattr(conv, "weight", nn.Parameter(conv.weight * 2)),
        lambda conv, norm: setattr(conv.weight, "data", conv.weight * 2),
        lambda conv, norm: (norm.train()(torch.randn(8, 4, 3, 3)), norm.eval()),
        lambda conv, norm: (conv_norm(torch.randn(8, 3, 3, 3), conv, norm.train()), norm.eval()),
        lambda conv, norm: step(conv, norm, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True)),
        lambda conv, norm: step(conv, norm, lambda p: torch.optim.AdamW(p, lr=0.1, fused=True)),
        lambda conv, norm: step(conv, norm, lambda p: torch.optim.SGD(p, lr=0.1)),
        lend,
        load,
        lambda conv, norm: load(conv, norm, assign=True),
    ],
)
def test_every_change_is_seen(change):
    conv, norm = pair()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        before = conv_norm(x, conv, norm)
        change(conv, norm)
        found, expected = conv_norm(x, conv, norm), conv_norm(x, *copy.deepcopy((conv, norm)))
    assert torch.equal(found, expected) and not torch.equal(found, before)


def test_no_new_tensor_is_taken_for_one_that_is_gone():
    """Allocators give the address of what was freed to the next of its size, which may have been changed as often."""
    conv, norm = nn.Conv2d(256, 256, 3, bias=False), nn.BatchNorm2d(256).eval()
    x = torch.randn(1, 256, 3, 3)
    with torch.no_grad():
        for factor in range(1, 20):
            conv.weight = None
            conv.weight = nn.Parameter(torch.full((256, 256, 3, 3), float(factor)))
            assert torch.equal(conv_norm(x, conv, norm), conv._conv_forward(x, *norms._fold(conv, norm)))


@pytest.mark.parametrize("context", [nullcontext(), IN_BF16], ids=["fp32", "bf16"])
def test_it_is_what_folding_anew_gives_in_every_format(context):
    conv, norm = pair()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        for one in (nullcontext(), IN_BF16, context):
            with one:
                found = conv_norm(x, conv, norm)
        with context:
            assert torch.equal(found, conv._conv_forward(x, *norms._fold(conv, norm)))
        conv.double(), norm.double()
        assert conv_norm(x.double(), conv, norm).dtype == torch.float64


def test_frozen_layers_are_folded_once_in_training_and_trained_ones_pass_gradients():
    net = small()
    freeze_norms(net)
    net.freeze(4)  # conv1 and the four layers of conv2_x
    net.train()
    with torch.inference_mode():
        net(images())  # what this keeps must serve in training
    for _ in range(2):
        with Folds() as folds:
            net(images()).sum().backward()
        assert folds.count == 15
    assert net.get_submodule("layer2.0.conv1").weight.grad.abs().sum() > 0


def test_copies_and_files_hold_nothing_of_it_and_it_goes_with_its_network():
    net = small().eval()
    names = list(net.state_dict())
    size = len(pickle.dumps(net))
    with torch.no_grad():
        net(images())
    assert list(net.state_dict()) == names and len(pickle.dumps(net)) == size
    kept = weakref.ref(norms._KEPT[net.get_submodule("layer1.0.conv1")][1][0])
    assert kept() is not None
    with Folds() as folds, torch.no_grad():
        copy.deepcopy(net)(images())
    assert folds.count == 20
    del net
    gc.collect()
    assert kept() is None


def test_tensors_without_storage_or_count_are_folded_in_every_call():
    with torch.inference_mode():
        conv, norm = pair()
        conv_norm(torch.randn(1, 3, 4, 4), conv, norm)
    assert conv not in norms._KEPT
    with torch.device("meta"), torch.no_grad():
        assert small().eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_norms_can_be_folded_for_good():
    net = small().eval()
    with torch.no_grad():
        wanted = net(images())
        norms.fold_for_good(net, images())
        names = list(net.state_dict())
        assert not any("running" in name or "bn" in name for name in names) and "conv1.bias" in names
        assert (net(images()) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
