"""What every backbone promises: pixels in, logits out, named maps, and a cut that changes nothing."""

import copy
import json
import pickle

import pytest
import torch
import torch.nn.functional as F

from backbones import create_backbone, list_backbones

SMALL = {
    "r18": {"width": 0.25},
    "r50": {"width": 0.25},
    "plain18": {"width": 0.25},
    "vgg11": {"width": 0.125},
    "vgg16_bn": {"width": 0.125},
}
CIFAR = ("cifar_r20", "cifar_plain20")


def pixels(count=2, height=64, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def small(name, **options):
    torch.manual_seed(0)
    return create_backbone(name, num_classes=5, **{**SMALL.get(name, {}), **options})


@pytest.mark.parametrize("name", list_backbones())
def test_every_listed_name_builds_and_runs_on_the_meta_device(name):
    with torch.device("meta"):
        net = create_backbone(name, num_classes=7)
        side = 32 if name.startswith("cifar") else 224
        assert net(torch.zeros(2, 3, side, side, dtype=torch.uint8)).shape == (2, 7)
    assert net.name == name and net.identity()["name"] == name


@pytest.mark.parametrize("name", [*SMALL, *CIFAR])
def test_feature_maps_are_what_their_specs_say(name):
    net = small(name).eval()
    maps = net.feature_maps(pixels())
    assert list(maps) == list(net.feature_specs)
    for key, spec in net.feature_specs.items():
        assert key == f"c{spec.stride.bit_length() - 1}"
        assert maps[key].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
        assert maps[key].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SMALL)
def test_maps_have_strides_4_to_32(name):
    assert [spec.stride for spec in small(name).feature_specs.values()] == [4, 8, 16, 32]


def test_vggs_maps_are_the_last_of_conv3_conv4_conv5_and_pool5():
    """Against the layers one by one: torchvision's vgg16_bn pools at 6, 13, 23, 33 and 43."""
    net = small("vgg16_bn").eval()
    x = net.pixel_norm(pixels())
    expected = {"c2": net.features[:23](x), "c3": net.features[:33](x), "c4": net.features[:43](x)}
    expected["c5"] = net.features(x)
    for key, found in net.feature_maps(pixels()).items():
        torch.testing.assert_close(found, expected[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("name", ["r18", "r50", "plain18"])
def test_head_after_trunk_on_the_whole_map_is_the_uncut_network(name, stride):
    net = small(name).eval()
    trunk, head = net.cut(stride)
    found = net.fc(head(trunk(pixels())))
    torch.testing.assert_close(found, net(pixels()), rtol=1e-4, atol=1e-5)
    assert (trunk.stride, trunk.out_channels) == (stride, head.in_channels)


def test_vggs_head_takes_conv5_3_pooled_to_7x7_in_the_place_of_pool5():
    net = small("vgg16_bn").eval()
    trunk, head = net.cut(16)
    images = pixels(1, 224, 224)
    found = net.classifier[6](head(F.max_pool2d(trunk(images), 2)))
    torch.testing.assert_close(found, net(images), rtol=1e-4, atol=1e-5)


def test_roi_sizes_are_what_the_map_measures_on_a_224_image_and_vggs_is_fixed():
    assert [small("r50").cut(stride).head.roi_size for stride in (4, 8, 16, 32)] == [56, 28, 14, 7]
    assert small("r50").cut(16, roi_size=7).head.roi_size == 7
    assert small("vgg16_bn").cut(16).head.roi_size == 7
    for stride in (4, 8, 16, 32):
        trunk, head = small("vgg11").cut(stride)
        regions = torch.randn(3, trunk.out_channels, head.roi_size, head.roi_size)
        assert head(regions).shape == (3, head.out_channels)


@pytest.mark.parametrize("name", SMALL)
def test_a_cut_shares_parameters_and_keeps_the_uncut_names(name):
    net = small(name)
    trunk, head = net.cut(16)
    whole, below, above = (dict(part.named_parameters()) for part in (net, trunk, head))
    assert not below.keys() & above.keys()
    assert all(whole[key] is value for key, value in {**below, **above}.items())
    rest = {key for key in whole if not key.startswith(f"{net.classifier_name}.")}
    assert rest == below.keys() | above.keys()


def test_a_cut_is_in_the_mode_of_its_backbone():
    assert all(part.training for part in small("vgg11").cut(16))
    assert not any(module.training for part in small("vgg11").eval().cut(16) for module in part.modules())


def test_vggs_head_drops_out_in_training_only():
    _, head = small("vgg11").cut(16)
    regions = torch.randn(4, head.in_channels, 7, 7)
    head.train()
    assert not torch.equal(head(regions), head(regions))
    head.eval()
    assert torch.equal(head(regions), head(regions))


def test_pixels_beyond_an_images_size_are_zero_after_normalisation():
    net = small("r18").eval()
    sizes = torch.tensor([[64, 96], [10, 20]])
    x = net.pixel_norm(pixels(), sizes)
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x[1, :, :10, :20], net.pixel_norm(pixels())[1, :, :10, :20])
    assert x[1, :, 10:].abs().max() == 0 and x[1, :, :, 20:].abs().max() == 0
    assert torch.equal(x[0], net.pixel_norm(pixels())[0])


def test_what_the_padding_holds_changes_no_map():
    net = small("r18").eval()
    sizes = torch.tensor([[40, 33], [64, 96]])
    noisy = pixels()
    noisy[0, :, 40:] = 255
    noisy[0, :, :, 33:] = 7
    for clean, other in zip(net.feature_maps(pixels(), sizes).values(), net.feature_maps(noisy, sizes).values()):
        assert torch.equal(clean, other)
    assert torch.equal(net.cut(16).trunk(pixels(), sizes), net.cut(16).trunk(noisy, sizes))


def test_float_pixels_are_not_changed_in_place():
    images = pixels().float().contiguous(memory_format=torch.channels_last)
    before = images.clone()
    small("r18").eval().feature_maps(images, torch.tensor([[5, 5], [6, 6]]))
    assert torch.equal(images, before)


def test_uint8_and_float_pixels_give_the_same_logits():
    net = small("r18").eval()
    assert torch.equal(net(pixels()), net(pixels().float()))


def test_identity_can_be_written_as_json_and_tells_what_was_built():
    identity = small("r50", stride_in="1x1", shortcut="C").identity()
    assert json.loads(json.dumps(identity)) == identity
    assert (identity["stride_in"], identity["shortcut"], identity["width"]) == ("1x1", "C", 0.25)
    assert identity["channel_order"] == "RGB"
    assert identity["pixel_mean"] == [123.675, 116.28, 103.53]
    assert small("vgg11", stride_in="1x1").identity()["stride_in"] is None
    assert small("r18").identity()["stride_in"] is None  # a basic block has no 1x1


@pytest.mark.parametrize("name", ["r18", "vgg11", "cifar_r20"])
def test_copies_and_pickles_of_a_cut_are_complete(name):
    stride = 2 if name == "cifar_r20" else 16
    cut = small(name).eval().cut(stride)
    trunk, head = copy.deepcopy(cut.trunk), pickle.loads(pickle.dumps(cut.head))
    images = pixels(2, 32 * 7, 32 * 7) if name == "vgg11" else pixels()
    regions = torch.randn(2, head.in_channels, head.roi_size, head.roi_size)
    assert torch.equal(trunk(images), cut.trunk(images))
    assert torch.equal(head(regions), cut.head(regions))


def test_logits_are_float32_under_autocast_and_maps_stay_channels_last():
    net = small("r18")
    with torch.autocast("cpu", torch.bfloat16):
        assert net(pixels()).dtype == torch.float32
        maps = net.feature_maps(pixels())
    assert all(m.dtype == torch.bfloat16 for m in maps.values())
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps.values())
    assert all(b.dtype == torch.float32 for n, b in net.named_buffers() if "running" in n)


@pytest.mark.parametrize("name", ["r50", "plain18", "vgg11"])
def test_signals_keep_their_size_through_a_freshly_made_network(name):
    """He initialisation: neither vanishing nor exploding from the first map to the last."""
    net = small(name, **({"width": 0.5} if name == "vgg11" else {}))
    scales = [m.std().item() for m in net.feature_maps(pixels(4, 64, 64)).values()]
    assert all(0.1 < scale < 10 for scale in scales), scales


def test_weights_are_kept_in_channels_last():
    for name in SMALL:
        for parameter in small(name).parameters():
            assert parameter.ndim != 4 or parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [*SMALL, *CIFAR])
def test_a_run_in_two_parts_is_the_whole_run(name):
    net = small(name).eval()
    x = net.pixel_norm(pixels())
    whole, maps = net.run(x, keep=net.feature_specs)
    assert torch.equal(whole, net.last_map(pixels())) and list(maps) == list(net.feature_specs)
    for place in range(len(net.chain) + 1):
        below, first = net.run(x, last=place, keep=net.feature_specs)
        above, second = net.run(below, first=place, keep=net.feature_specs)
        assert torch.equal(above, whole) and list({**first, **second}) == list(maps)


def test_an_exchanged_module_is_the_one_that_runs():
    net = small("r18").eval()
    net.conv1 = torch.nn.Conv2d(3, net.conv1.out_channels, 7, stride=2, padding=3)
    torch.nn.init.zeros_(net.conv1.weight)
    torch.nn.init.zeros_(net.conv1.bias)
    stem, _ = net.run(net.pixel_norm(pixels()), last=1)
    assert stem.shape[2:] == (32, 48) and not stem.any()
