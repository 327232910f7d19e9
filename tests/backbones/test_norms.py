"""Frozen stages, constant norms, folding, and statistics over a whole set."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from backbones import create_backbone
from backbones.norms import conv_norm, freeze_norms, recompute_statistics


def small(name="r18"):
    torch.manual_seed(0)
    net = create_backbone(name, num_classes=5, width=0.25)
    for module in net.modules():  # statistics and scales that are not the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net


def images(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


def test_frozen_norms_are_constant_in_training_mode_and_keep_their_names():
    net = small()
    names, expected = list(net.state_dict()), net.eval()(images())
    freeze_norms(net)
    net.train()
    before = copy.deepcopy(dict(net.named_buffers()))
    torch.testing.assert_close(net(images()), expected)
    assert list(net.state_dict()) == names
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_a_folded_norm_gives_the_same_output_and_the_same_gradients():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 9, 9, requires_grad=True)
    wanted = [x, conv.weight, conv.bias, norm.weight, norm.bias]
    found, expected = conv_norm(x, conv, norm, relu=True), norm(conv(x)).relu()
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    of_found = torch.autograd.grad((found * weights).sum(), wanted)
    of_expected = torch.autograd.grad((expected * weights).sum(), wanted)
    for a, b in zip(of_found, of_expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_norm_that_someone_watches_is_not_folded_away():
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5).eval()
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    conv_norm(torch.randn(1, 3, 8, 8), conv, norm)
    assert seen == [(1, 5, 6, 6)]


def test_freezing_up_to_stride_4_fixes_conv1_and_conv2_x_of_a_resnet():
    net = small()
    net.freeze(4)
    net.train()
    frozen = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    trained = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert (frozen, trained) == ({"conv1", "bn1", "layer1"}, {"layer2", "layer3", "layer4", "fc"})
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    maps = net.feature_maps(images())
    changed = {n.split(".")[0] for n, b in net.named_buffers() if not torch.equal(b, before[n])}
    assert changed == {"layer2", "layer3", "layer4"}
    assert not maps["c2"].requires_grad and maps["c3"].requires_grad  # no graph of what is frozen


@pytest.mark.parametrize(("stride", "last"), [(0, None), (2, 2), (4, 7), (8, 14), (16, 21), (32, 28)])
def test_freezing_a_vgg_fixes_what_is_pooled_on_the_way_to_that_stride(stride, last):
    """VGG-16's convolutions end at 2, 7, 14, 21 and 28 in `features`; stride 4: conv1_x and conv2_x."""
    with torch.device("meta"):
        net = create_backbone("vgg16")
    net.freeze(stride)
    frozen = [int(name.split(".")[1]) for name, p in net.named_parameters() if not p.requires_grad]
    assert max(frozen, default=None) == last
    assert all(p.requires_grad for p in net.classifier.parameters())


def test_freezing_reaches_trunks_cut_before_it():
    net = small()
    trunk, _ = net.cut(16)
    net.freeze(4)
    trunk.train()
    assert not trunk.bn1.training and trunk.layer3[0].bn1.training


def record_inputs(net) -> dict[str, list[torch.Tensor]]:
    """The inputs of every norm, kept from now on."""
    inputs: dict[str, list[torch.Tensor]] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda m, x, n=name: inputs.setdefault(n, []).append(x[0].detach()))
    return inputs


def assert_statistics(net, inputs: dict[str, list[torch.Tensor]]) -> None:
    """Every norm has the mean and the variance of these inputs, computed over all of them at once."""
    for name, maps in inputs.items():
        x_CM = torch.cat([m.transpose(0, 1).flatten(1) for m in maps], dim=1).double()
        norm = net.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), x_CM.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), x_CM.var(1, correction=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["r18", "vgg11_bn"])
def test_recomputed_statistics_are_the_mean_and_variance_over_all_images(name):
    """Each layer is normalised with its batch, as in a copy of the network in training mode."""
    net = small(name)
    batches = [images(4, seed=1), images(2, seed=2), images(3, seed=3)]  # of unequal sizes
    naive = copy.deepcopy(net).train()
    inputs = record_inputs(naive)
    for pixels in batches:
        naive(pixels)
    net.train()
    assert recompute_statistics(net, iter(batches)) == 9
    assert net.training and all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert_statistics(net, inputs)


def test_a_last_batch_of_one_image_counts_where_its_map_is_a_single_value():
    net = create_backbone("r18", num_classes=5, width=0.25)  # of 32 px its last maps are 1x1
    batches = [images(4, seed=1)[:, :, :32, :32], images(1, seed=2)[:, :, :32, :32]]
    inputs = record_inputs(net)
    assert recompute_statistics(net, iter(batches)) == 5
    assert inputs["layer4.1.bn2"][-1].shape[2:] == (1, 1)
    assert_statistics(net, inputs)
    assert net.training and all(m.training for m in net.modules())


def test_a_norm_that_has_a_single_value_to_learn_from_says_what_to_do():
    net = small()
    with pytest.raises(ValueError, match=r"one image, of which a map of 1x1 is left; give each process 2 images"):
        net.train()(images(1)[:, :, :32, :32])
    assert net.train()(images(2)[:, :, :32, :32]).isfinite().all()


def test_one_image_alone_gives_finite_statistics():
    net = create_backbone("r18", num_classes=5, width=0.25)
    assert recompute_statistics(net, [images(1)[:, :, :32, :32]]) == 1
    assert all(torch.isfinite(buffer).all() for buffer in net.buffers())


def test_statistics_over_nothing_are_an_error_and_leave_the_network_as_it_was():
    net = small()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="no images at all"):
        recompute_statistics(net, [])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_network_without_norms_reads_no_images():
    def never():
        raise AssertionError("an image was read")
        yield

    assert recompute_statistics(create_backbone("vgg11", width=0.125), never()) == 0


def _statistics_of_a_share(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    net = small()
    shares = [[images(4, seed=1), images(2, seed=2)], [images(3, seed=3)]]
    seen = recompute_statistics(net, shares[rank] if world == 2 else shares[0] + shares[1])
    torch.save((seen, net.state_dict()), f"{folder}/{world}_{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_their_shares_find_the_statistics_of_one_with_all(tmp_path):
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        mp.spawn(_statistics_of_a_share, (world, str(folder)), nprocs=world)
    seen, expected = torch.load(tmp_path / "1" / "1_0.pt")
    for rank in range(2):
        found_seen, found = torch.load(tmp_path / "2" / f"2_{rank}.pt")
        assert found_seen == seen == 9
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
