"""Deeper VGGs that start from a shallower one (Simonyan & Zisserman 2014, §3.1)."""

import pytest
import torch
import torchvision

from backbones import create_backbone
from backbones.base import BackboneError
from backbones.vgg import shallow_layers

NARROW = {"num_classes": 5, "width": 0.125}

# By hand, from torchvision's layouts: conv1_1, conv2_1, conv3_1, conv3_2 of VGG-11 in deeper nets' `features`.
PLACES = {"vgg11": (0, 3, 6, 8), "vgg13": (0, 5, 10, 12), "vgg16": (0, 5, 10, 12), "vgg19": (0, 5, 10, 12)}
PLACES_BN = {"vgg11": (0, 4, 8, 11), "vgg13": (0, 7, 14, 17), "vgg16": (0, 7, 14, 17), "vgg19": (0, 7, 14, 17)}


@pytest.mark.parametrize("deep", ["vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize("kind", ["", "_bn"])
def test_the_first_four_convolutions_and_the_fully_connected_layers_are_taken_over(deep, kind):
    shallow = create_backbone(f"vgg11{kind}", **NARROW).state_dict()
    net = create_backbone(f"{deep}{kind}", **NARROW)
    taken, name = shallow_layers(net, shallow, origin="a.safetensors")
    places = PLACES_BN if kind else PLACES
    expected = {"classifier.0": "classifier.0", "classifier.3": "classifier.3", "classifier.6": "classifier.6"}
    for old, new in zip(places["vgg11"], places[deep]):
        expected |= {f"features.{new + step}": f"features.{old + step}" for step in range(2 if kind else 1)}
    assert name == f"vgg11{kind}" and {key.rpartition(".")[0] for key in taken} == set(expected)
    for key, tensor in taken.items():
        layer, _, parameter = key.rpartition(".")
        assert torch.equal(tensor, shallow[f"{expected[layer]}.{parameter}"])
        assert tensor.shape == net.state_dict()[key].shape


def test_torchvisions_channels_agree_at_full_width():
    with torch.device("meta"):
        shallow, deep = torchvision.models.vgg11().state_dict(), torchvision.models.vgg19().state_dict()
        taken, _ = shallow_layers(create_backbone("vgg19"), shallow, origin="vgg11.pth")
    assert len(taken) == 14 and all(tensor.shape == deep[name].shape for name, tensor in taken.items())


def test_a_classifier_of_other_classes_stays_new():
    shallow = create_backbone("vgg11", num_classes=7, width=0.125).state_dict()
    taken, _ = shallow_layers(create_backbone("vgg16", **NARROW), shallow, origin="a")
    assert "classifier.3.weight" in taken and "classifier.6.weight" not in taken


@pytest.mark.parametrize(
    ("deep", "given", "sentence"),
    [
        ("r18", "vgg11", "r18 cannot start from a shallower net: only VGGs do"),
        ("vgg16", "vgg16", "a.pth holds no weights from which vgg16 could start: give those of vgg11 or vgg13"),
        ("vgg16", "vgg11_bn", "holds no weights from which vgg16 could start"),
        ("vgg16_bn", "vgg11", "give those of vgg11_bn or vgg13_bn"),
        ("vgg11", "vgg11", "vgg11 could start: there is no shallower VGG"),
        ("vgg16", "r18", "holds no weights from which vgg16 could start"),
    ],
)
def test_what_cannot_be_a_beginning_is_a_sentence(deep, given, sentence):
    state = create_backbone(given, **NARROW).state_dict()
    with pytest.raises(BackboneError, match=sentence):
        shallow_layers(create_backbone(deep, **NARROW), state, origin="a.pth")
