"""Parameters and multiply-adds against the papers' and torchvision's published figures."""

import pytest
import torch
from torch import nn

from backbones import create_backbone
from backbones.cost import count_flops, count_parameters, image_flops

PARAMETERS = {
    "r18": 11_689_512,
    "r34": 21_797_672,
    "r50": 25_557_032,
    "r101": 44_549_160,
    "r152": 60_192_808,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg16_bn": 138_365_992,
}
FLOPS = {"r18": 1.8e9, "r34": 3.6e9, "r50": 3.8e9, "r101": 7.6e9, "r152": 11.3e9}
FLOPS |= {"vgg16": 15.3e9, "vgg19": 19.6e9}
CIFAR_PARAMETERS = {20: 0.27e6, 32: 0.46e6, 44: 0.66e6, 56: 0.85e6, 110: 1.7e6, 1202: 19.4e6}


def on_meta(name, **options):
    with torch.device("meta"):
        return create_backbone(name, **options)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_torchvisions(name):
    assert count_parameters(on_meta(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", FLOPS)
def test_flops_are_within_three_per_cent_of_the_papers(name):
    assert image_flops(on_meta(name, stride_in="1x1")) == pytest.approx(FLOPS[name], rel=0.03)


@pytest.mark.parametrize("depth", CIFAR_PARAMETERS)
def test_cifar_parameter_counts_round_to_the_papers(depth):
    found = count_parameters(on_meta(f"cifar_r{depth}", num_classes=10))
    assert found == pytest.approx(CIFAR_PARAMETERS[depth], rel=0.02)


def test_flops_of_layers_worked_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 6, 4))
    assert count_flops(net, torch.zeros(2, 3, 5, 6)) == 2 * (5 * 6 * 8 * 3 * 9 + 8 * 5 * 6 * 4)


def test_flops_do_not_depend_on_mode_or_on_frozen_norms():
    net = create_backbone("r18", width=0.25)
    trained = image_flops(net, 64, 64)
    assert image_flops(net.eval(), 64, 64) == trained


def test_flops_of_trunk_and_head_add_up_to_those_of_the_uncut_network():
    net = on_meta("r50")
    trunk, head = net.cut(16)
    pixels = torch.zeros(1, 3, 224, 224, device="meta")
    classifier = net.fc.in_features * net.fc.out_features
    regions = torch.zeros(1, head.in_channels, head.roi_size, head.roi_size, device="meta")
    assert count_flops(trunk, pixels) + count_flops(head, regions) + classifier == image_flops(net)


def test_parameters_that_are_frozen_can_be_left_out():
    net = create_backbone("r18", width=0.25)
    total = count_parameters(net)
    net.freeze(4)
    frozen = count_parameters(net.conv1) + count_parameters(net.bn1) + count_parameters(net.layer1)
    assert count_parameters(net, trained_only=True) == total - frozen


def test_products_without_weights_are_no_layers():
    class Pooled(torch.nn.Linear):
        def forward(self, x_RCD, weights_RBC):  # pooling written as a product of two batches of matrices
            return super().forward(weights_RBC @ x_RCD)

    assert count_flops(Pooled(8, 4), torch.zeros(3, 5, 8), torch.zeros(3, 2, 5)) == 3 * 2 * 8 * 4
