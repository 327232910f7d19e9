"""The sentence a user gets for a network that there is not, or for what it cannot do."""

import pytest

from backbones import BackboneError, create_backbone


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet50", "r50"), ("r51", "r50"), ("vgg-16", "vgg16"), ("ResNet101", "r101")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"There is no backbone '{name}'; the nearest name is '{nearest}'"):
        create_backbone(name)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "cifar_r21"}, "6n\\+2 layers; the nearest are 20 and 26"),
        ({"name": "r50", "shortcut": "D"}, "r50 has no shortcut 'D': A, B or C is meant"),
        ({"name": "r50", "stride_in": "5x5"}, "r50 cannot have its stride in '5x5': 1x1 .* or 3x3"),
        ({"name": "r18", "width": 0}, "r18 cannot have width 0: a factor above 0 is meant"),
        ({"name": "cifar_r20", "dilate_last": True}, "cifar_r20 cannot be built with a dilated last stage"),
    ],
)
def test_options_that_make_no_network_are_named(options, sentence):
    with pytest.raises(BackboneError, match=sentence):
        create_backbone(**options)


def test_a_cut_where_there_is_no_map_names_the_strides_there_are():
    with pytest.raises(BackboneError, match=r"cifar_r20 cannot be cut at stride 16; .* strides 1, 2, 4"):
        create_backbone("cifar_r20").cut(16)
    with pytest.raises(BackboneError, match=r"r18 cannot be cut at stride 5; .* strides 4, 8, 16, 32"):
        create_backbone("r18", width=0.125).cut(5)


def test_vggs_region_size_is_fixed():
    with pytest.raises(BackboneError, match="needs roi_size 7, as fc6 reads 7x7 maps; 14 was asked for"):
        create_backbone("vgg11", width=0.125).cut(16, roi_size=14)


def test_a_stride_that_is_none_cannot_be_frozen_to():
    with pytest.raises(BackboneError, match="r18 cannot be frozen up to stride 3: 0, 2, 4"):
        create_backbone("r18", width=0.125).freeze(3)
