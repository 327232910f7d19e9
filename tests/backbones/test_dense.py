"""Fully-convolutional networks: as the papers make them, of convolutions; and as a naive loop over windows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backbones import BackboneError, create_backbone
from backbones import dense as module
from backbones.dense import Dense, map_side

# Name, side of the training images, side of the last map there.
NETS = [
    ("r18", 96, 3),
    ("r50", 64, 2),
    ("plain18", 64, 2),
    ("vgg11_bn", 64, 2),
    ("vgg11", 288, 9),
    ("cifar_r8", 32, 8),
    ("cifar_plain8", 20, 5),
]


def made(name: str, **options):
    torch.manual_seed(0)
    net = create_backbone(name, num_classes=7, width=0.125 if ":" not in name else 1.0, **options)
    torch.nn.init.normal_(net.get_submodule(net.classifier_name).weight, std=0.5)
    return net.eval()


def pixels(images: int, height: int, width: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=draw)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "side"), [*NETS, ("torchvision:resnet18", 64, 2)])
def test_an_image_of_the_training_size_gives_the_networks_own_logits(name, size, side):
    net = made(name)
    dense = Dense(net, size)
    image = pixels(2, size, size)
    assert dense.window == side and dense.class_map(image).shape == (2, 7, 1, 1)
    close(dense(image), net(image))


@torch.no_grad()
def test_vgg_is_the_paper_s_with_fc6_as_a_7x7_convolution_and_the_others_1x1():
    net = made("vgg11")
    image = pixels(2, 224, 320)
    x = net.last_map(image)
    for place, size in ((0, 7), (3, 1), (6, 1)):
        linear = net.classifier[place]
        weight = linear.weight.view(linear.out_features, -1, size, size)
        x = F.conv2d(x, weight, linear.bias)
        x = F.relu(x) if place < 6 else x
    found = Dense(net, 224).class_map(image)
    assert found.shape == (2, 7, 1, 4)
    close(found, x)


@torch.no_grad()
@pytest.mark.parametrize("name", ["r18", "r50", "torchvision:resnet18"])
def test_a_resnet_is_average_pooling_at_stride_1_and_a_1x1_convolution(name):
    net = made(name)
    image = pixels(1, 96, 160)
    pooled = F.avg_pool2d(net.last_map(image), 2, stride=1)
    close(Dense(net, 64).class_map(image), F.conv2d(pooled, net.fc.weight[:, :, None, None], net.fc.bias))


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "side"), NETS)
def test_the_class_map_is_the_classifier_on_each_window(name, size, side):
    net = made(name)
    image = pixels(2, size + 32, size + 96)
    last_map = net.last_map(image)
    rows, columns = (cells - side + 1 for cells in last_map.shape[2:])
    found = Dense(net, size).class_map(image)
    assert found.shape == (2, 7, rows, columns) and rows * columns > 1
    for row in range(rows):
        for column in range(columns):
            close(found[:, :, row, column], net.classify(last_map[:, :, row : row + side, column : column + side]))
    close(Dense(net, size)(image), found.flatten(2).mean(dim=2))


@torch.no_grad()
def test_little_memory_gives_the_same(monkeypatch):
    dense, image = Dense(made("r18"), 64), pixels(2, 160, 192)
    whole = dense.class_map(image)
    monkeypatch.setattr(module, "WINDOW_VALUES", 1)
    close(dense.class_map(image), whole)


def test_parameters_are_shared_and_modes_stay():
    net = made("vgg11").train()
    net.classifier[2].eval()
    dense = Dense(net, 64)
    assert {p.data_ptr() for p in dense.parameters()} == {p.data_ptr() for p in net.parameters()}
    assert net.training and net.features.training and not net.classifier[2].training
    dense.eval()
    assert not net.classifier[5].training


def test_images_that_are_too_small_are_refused_in_words():
    with pytest.raises(BackboneError, match="r18, trained on 96 px, cannot be slid over images of 128 x 64 px"):
        Dense(made("r18"), 96)(pixels(1, 64, 128))
    with pytest.raises(BackboneError, match="vgg11 cannot see images of 16 px"):
        map_side(create_backbone("vgg11", width=0.125), 16)
