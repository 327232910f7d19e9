"""Shortcuts, strides and dilation of the ResNets; the CIFAR nets."""

import pytest
import torch

from backbones import create_backbone
from backbones.blocks import BasicBlock, Block
from backbones.cost import count_parameters


def small(name, **options):
    torch.manual_seed(0)
    return create_backbone(name, num_classes=5, **{"width": 0.25, **options})


def projections(net):
    return sum(block.downsample is not None for block in net.modules() if isinstance(block, Block))


def test_option_a_has_no_projections_b_one_where_channels_grow_and_c_one_in_each_block():
    assert [projections(small("r34", shortcut=option)) for option in "ABC"] == [0, 3, 16]
    assert [projections(small("r50", shortcut=option)) for option in "ABC"] == [0, 4, 16]


def test_option_a_has_exactly_the_plain_nets_parameters():
    assert count_parameters(small("r34", shortcut="A")) == count_parameters(small("plain34"))
    assert small("r34", shortcut="A").state_dict().keys() == small("plain34").state_dict().keys()


def test_option_a_adds_the_strided_input_and_zeros_in_the_new_channels():
    block = BasicBlock(4, 6, 2, "A", "3x3").eval()
    torch.nn.init.zeros_(block.bn2.weight)  # the residual is 0: what comes out is the shortcut
    x = torch.rand(2, 4, 8, 8)
    y = block(x)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert y[:, 4:].abs().max() == 0


def test_a_plain_block_adds_nothing():
    block = BasicBlock(4, 4, 1, None, "3x3").eval()
    torch.nn.init.zeros_(block.bn2.weight)
    assert block(torch.rand(2, 4, 8, 8)).abs().max() == 0


@pytest.mark.parametrize("name", ["cifar_r20", "r18"])
def test_gradients_keep_the_order_of_memory_through_shortcuts_and_pooling(name):
    net = small(name, shortcut="A")
    strides = {}

    def watch(block, inputs, output):
        output.register_hook(lambda gradient: strides.update({block: gradient}))

    for block in net.modules():
        if isinstance(block, Block):
            block.register_forward_hook(watch)
    net(torch.rand(4, 3, 64, 64)).sum().backward()
    assert len(strides) > 7
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in strides.values())


def test_the_stride_is_in_the_1x1_or_in_the_3x3():
    paper, torchvision = small("r50", stride_in="1x1"), small("r50", stride_in="3x3")
    assert (paper.layer2[0].conv1.stride, paper.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert (torchvision.layer2[0].conv1.stride, torchvision.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    assert count_parameters(paper) == count_parameters(torchvision)


def test_with_the_last_norm_at_zero_each_block_starts_as_its_shortcut():
    net = small("r18", zero_init_last=True).eval()
    x = torch.rand(2, 16, 8, 8)
    torch.testing.assert_close(net.layer1(x), x)


def test_a_dilated_last_stage_keeps_stride_16_and_the_same_weights():
    net, dilated = small("r50").eval(), small("r50", dilate_last=True).eval()
    dilated.load_state_dict(net.state_dict())
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert dilated.feature_specs["c5"].stride == 16
    found, expected = dilated.feature_maps(images)["c5"], net.feature_maps(images)["c5"]
    assert found.shape[2:] == (4, 4) and expected.shape[2:] == (2, 2)
    assert dilated.cut(16).trunk(images).shape[1] == net.feature_specs["c4"].channels
    dilated.freeze(16)
    assert all(parameter.requires_grad for parameter in dilated.layer4.parameters())


def test_width_scales_channels_in_multiples_of_eight():
    assert [spec.channels for spec in small("r18", width=0.5).feature_specs.values()] == [32, 64, 128, 256]
    assert small("vgg11", width=0.3).classifier[0].out_features % 8 == 0


@pytest.mark.parametrize("depth", [8, 20, 26, 110])
def test_cifar_nets_have_6n_plus_2_layers(depth):
    with torch.device("meta"):
        net = create_backbone(f"cifar_r{depth}", num_classes=10)
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth
    assert [spec.channels for spec in net.feature_specs.values()] == [16, 32, 64]


def test_a_cifar_net_and_its_plain_counterpart_have_the_same_parameters():
    residual, plain = create_backbone("cifar_r20"), create_backbone("cifar_plain20")
    assert residual.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(residual.state_dict())
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert not torch.allclose(residual(images), plain(images))


def test_a_cifar_net_is_cut_after_its_blocks_of_a_resolution():
    net = create_backbone("cifar_r20", num_classes=10).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for stride, key in ((1, "c0"), (2, "c1"), (4, "c2")):
        trunk, head = net.cut(stride)
        torch.testing.assert_close(trunk(images), net.feature_maps(images)[key])
        torch.testing.assert_close(net.fc(head(trunk(images))), net(images))
        assert head.roi_size == 32 // stride


def test_cifar_nets_use_option_a_whatever_the_recipe_says_of_resnets():
    assert create_backbone("cifar_r20", shortcut="B").identity()["shortcut"] == "A"
