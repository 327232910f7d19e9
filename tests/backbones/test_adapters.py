"""Networks of torchvision and timm under our contract; the sentences for those that cannot be cut."""

import builtins
import importlib

import pytest
import torch
import torchvision
from torch import nn

from backbones import create_backbone

TORCHVISION = (
    "resnet50",
    "densenet121",
    "convnext_tiny",
    "regnet_y_400mf",
    "efficientnet_b0",
    "mobilenet_v3_large",
)
MORE_TORCHVISION = ("mobilenet_v2", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_v2_s", "resnext50_32x4d")
TIMM = ("resnet18", "convnext_atto", "regnety_004", "mobilenetv3_large_100")
MORE_TIMM = ("resnet26d", "efficientnet_b0", "densenet121", "darknet53")


def pixels(count=1, side=64):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def check_contract(name, reference):
    """Logits, maps, cut and names against the outside network itself."""
    net = create_backbone(name, num_classes=7).eval()
    assert list(net.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(net.state_dict())
    images = pixels()
    with torch.no_grad():
        logits = net(images)
        expected = reference.eval()(net.pixel_norm(images))
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
        maps = net.feature_maps(images)
        assert list(maps) == ["c2", "c3", "c4", "c5"]
        for key, spec in net.feature_specs.items():
            assert maps[key].shape == (1, spec.channels, 64 // spec.stride, 64 // spec.stride)
        trunk, head = net.cut(16)
        at_cut = trunk(images)
        torch.testing.assert_close(at_cut, maps["c4"])
        torch.testing.assert_close(net.get_submodule(net.classifier_name)(head(at_cut)), logits)
    below, above = dict(trunk.named_parameters()), dict(head.named_parameters())
    whole = dict(net.named_parameters())
    assert all(whole[key] is value for key, value in {**below, **above}.items())
    rest = {key for key in whole if not key.startswith(f"{net.classifier_name}.")}
    assert rest == below.keys() | above.keys()
    assert head.roi_size == 14 and head.in_channels == trunk.out_channels


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_keep_the_contract(name):
    check_contract(f"torchvision:{name}", torchvision.models.get_model(name, num_classes=7))


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_TORCHVISION)
def test_more_of_torchvisions_networks_keep_the_contract(name):
    check_contract(f"torchvision:{name}", torchvision.models.get_model(name, num_classes=7))


@pytest.mark.parametrize("name", TIMM)
def test_timms_networks_keep_the_contract(name):
    timm = pytest.importorskip("timm")
    check_contract(f"timm:{name}", timm.create_model(name, num_classes=7))


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_TIMM)
def test_more_of_timms_networks_keep_the_contract(name):
    timm = pytest.importorskip("timm")
    check_contract(f"timm:{name}", timm.create_model(name, num_classes=7))


def test_our_r50_and_torchvisions_are_the_same_network():
    wrapped, native = create_backbone("torchvision:resnet50").eval(), create_backbone("r50").eval()
    native.load_state_dict(wrapped.state_dict())
    images = pixels()
    with torch.no_grad():
        found, expected = native(images), wrapped(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert native.feature_specs == wrapped.feature_specs
    assert native.identity()["pixel_mean"] == wrapped.identity()["pixel_mean"]


def test_an_outside_network_can_be_frozen_and_trained_above():
    net = create_backbone("torchvision:mobilenet_v3_large", num_classes=3)
    net.freeze(4)
    net.train()
    assert not net.feature_maps(pixels(2))["c2"].requires_grad
    net(pixels(2)).sum().backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in net.named_parameters() if p.requires_grad}
    norms = [m for m in net.features[1].modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


@pytest.mark.parametrize("name", ["torchvision:regnet_y_400mf", "timm:regnety_004"])
def test_outside_networks_build_on_the_meta_device(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        net = create_backbone(name)
    assert all(parameter.is_meta for parameter in net.parameters())


def test_without_timm_the_sentence_says_how_to_install_it(monkeypatch):
    def no_timm(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", no_timm)
    with pytest.raises(ValueError, match="pip install timm"):
        create_backbone("timm:resnet18")


def test_our_own_networks_need_neither_library(monkeypatch):
    real = builtins.__import__

    def guarded(name, *rest, **named):
        assert name.partition(".")[0] not in ("torchvision", "timm"), name
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", guarded)
    create_backbone("r18", width=0.25)
