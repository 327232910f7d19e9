"""The deviation of layers' responses equals that of all their outputs, written down one by one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from backbones import create_backbone
from vertebra.evaluation.predict.responses import response_deviations
from vertebra.ground.errors import UserError


@dataclass(frozen=True)
class Batch:
    pixels_N3HW: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        return self.pixels_N3HW, torch.zeros(len(self.pixels_N3HW))

    def to(self, device: torch.device) -> Batch:
        return self


@pytest.fixture
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [Batch(torch.randint(0, 256, (n, 3, 32, 32), generator=generator).float()) for n in (4, 3)]


@pytest.mark.parametrize("name", ["cifar_r8", "cifar_plain8", "vgg11"])
def test_deviations_equal_those_of_the_outputs_kept(name, batches):
    torch.manual_seed(0)
    net = create_backbone(name, num_classes=10, width=0.25)
    for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.weight, 0.5, 2)
    layers = net.three_by_three()
    deviations, images = response_deviations(net, layers, batches)
    assert images == 7
    assert net.training

    kept: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for layer, module in layers.items():
        # A copy: the ReLU after it works in place.
        module.register_forward_hook(
            lambda _module, _inputs, out, layer=layer: kept[layer].append(out.double().clone())
        )
    with torch.no_grad():
        for batch in batches:
            net.eval()(batch.pixels_N3HW)
    for layer, outputs in kept.items():
        expected = torch.cat([output.flatten() for output in outputs]).std(correction=0)
        assert deviations[layer] == pytest.approx(expected.item(), rel=1e-9)


def test_hooks_are_taken_away(batches):
    net = create_backbone("cifar_r8", num_classes=10)
    layers = net.three_by_three()
    response_deviations(net, layers, batches)
    assert not any(module._forward_hooks for module in layers.values())


def test_no_images_a_layer_that_never_runs_and_diverged_weights_are_errors(batches):
    net = create_backbone("cifar_r8", num_classes=10)
    with pytest.raises(UserError, match="no images"):
        response_deviations(net, net.three_by_three(), [])
    with pytest.raises(UserError, match="the layer lost gave nothing"):
        response_deviations(net, {"lost": nn.ReLU()}, batches)
    nn.init.constant_(net.bn1.weight, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        response_deviations(net, net.three_by_three(), batches)
