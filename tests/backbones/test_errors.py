"""The sentence a user gets for a network that there is not, or for what it cannot do."""

import pytest

from backbones import BackboneError, create_backbone
from backbones.blocks import recompute_blocks


def narrow(name):
    return create_backbone(name, width=0.125)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet50", "There is no backbone 'resnet50'; the nearest name is 'r50'"),
        ("r51", "There is no backbone 'r51'; the nearest name is 'r50'"),
        ("vgg-16", "There is no backbone 'vgg-16'; the nearest name is 'vgg16'"),
        ("ResNet101", "There is no backbone 'ResNet101'; the nearest name is 'r101'"),
        ("torchvision:resnet5", "nearest name is 'torchvision:resnet50'"),
        ("torchvision:alexnet", r"torchvision:alexnet gives no maps that are known here \(AlexNet\).*ResNet"),
        ("timm:crossvit_tiny_240", r"timm:crossvit_tiny_240 has maps at strides 12, 17: they are no powers of two"),
        ("timm:lambda_resnet26t", "timm:lambda_resnet26t has convolutions of three dimensions"),
        ("timm:inception_v3", r"timm:inception_v3 gives no maps .*4.2 px a step where 4 are stated"),
    ],
)
def test_a_name_that_cannot_be_built_is_answered_with_one_that_can(name, sentence):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=sentence):
        create_backbone(name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: create_backbone("cifar_r21"), "6n\\+2 layers; the nearest are 20 and 26"),
        (lambda: create_backbone("r50", shortcut="D"), "r50 has no shortcut 'D'; choose A, B or C"),
        (lambda: create_backbone("r50", stride_in="5x5"), "r50 cannot have its stride in '5x5'; choose 1x1 .* or 3x3"),
        (lambda: create_backbone("r18", width=0), "r18 cannot have width 0; choose a factor above 0"),
        (lambda: create_backbone("cifar_r20", dilate_last=True), "cifar_r20 cannot be built with a dilated last stage"),
        (lambda: create_backbone("torchvision:resnet18", width=0.5), "torchvision:resnet18 has no width factor"),
        (lambda: create_backbone("torch:resnet18"), "torchvision:NAME, timm:NAME or FILE.py:FUNCTION"),
        (lambda: create_backbone("cifar_r20").cut(16), r"cifar_r20 cannot be cut at stride 16; .* strides 1, 2, 4"),
        (lambda: narrow("r18").cut(5), r"r18 cannot be cut at stride 5; .* strides 4, 8, 16, 32"),
        (lambda: narrow("vgg11").cut(16, roi_size=14), "needs roi_size 7, as fc6 reads 7x7 maps, not 14"),
        (lambda: narrow("r18").trunk("c6"), r"r18 has no map c6; it has c2 \(stride 4\), c3 \(stride 8\), c4"),
        (lambda: narrow("r18").freeze(3), "r18 cannot be frozen up to stride 3; choose 0, 2, 4"),
        (lambda: recompute_blocks(narrow("vgg11")), "vgg11 cannot compute its activations again"),
        (lambda: create_backbone("torchvision:resnet18").three_by_three(), "comes from outside"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_choice_there_is(change, sentence):
    with pytest.raises(BackboneError, match=sentence):
        change()
