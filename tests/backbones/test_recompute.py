"""Blocks that compute their maps again: the same training, in less memory."""

import copy

import pytest
import torch
import torch.nn.functional as F

from backbones import create_backbone
from backbones.blocks import Block, recompute_blocks
from backbones.norms import freeze_norms


def trained(net, *, steps: int = 2, precision: str = "fp32"):
    """Outputs and gradients of the last of a few steps on given images."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = net(pixels)
        F.cross_entropy(logits, torch.arange(4)).backward()
        gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        optimizer.step()
    return logits, gradients


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["cifar_r14", "cifar_plain8", "r18", "r50"])
def test_training_is_the_same_to_the_bit_and_statistics_move_once(name, precision):
    torch.manual_seed(0)
    net = create_backbone(name, num_classes=5, width=0.5)
    other = copy.deepcopy(net)
    recompute_blocks(other)
    (logits, gradients), (other_logits, other_gradients) = (trained(n, precision=precision) for n in (net, other))
    assert torch.equal(logits, other_logits)
    assert gradients.keys() == other_gradients.keys()
    assert all(torch.equal(gradients[key], other_gradients[key]) for key in gradients)
    state, other_state = net.state_dict(), other.state_dict()
    assert list(state) == list(other_state) and all(torch.equal(state[key], other_state[key]) for key in state)
    assert other.bn1.num_batches_tracked == 2 and other.bn1.momentum == 0.1


def test_frozen_stages_and_norms_stay_frozen():
    torch.manual_seed(0)
    net = create_backbone("r18", num_classes=5, width=0.25)
    net.freeze(8)
    freeze_norms(net)
    other = copy.deepcopy(net)
    recompute_blocks(other)
    (_, gradients), (_, other_gradients) = trained(net), trained(other)
    assert gradients.keys() == other_gradients.keys() and "layer2.0.conv1.weight" not in gradients
    assert all(torch.equal(gradients[key], other_gradients[key]) for key in gradients)


def test_a_block_keeps_its_input_alone():
    def kept_bytes(recomputes: bool) -> int:
        net = create_backbone("cifar_r20", num_classes=5)
        if recomputes:
            recompute_blocks(net)
        kept: dict[int, int] = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = net(torch.zeros(16, 3, 32, 32))
        assert output.requires_grad
        blocks = sum(isinstance(block, Block) for block in net.modules())
        assert blocks == 9
        return sum(kept.values())

    assert kept_bytes(True) < 0.5 * kept_bytes(False)
