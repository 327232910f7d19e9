"""A network from a user's own file: it is a backbone as any other, or a sentence says what it lacks."""

import pytest
import torch

from backbones import BackboneError, create_backbone

MINE = """
from torch import nn
from backbones.adapters import Family, OutsideNet
from layers import layer

class Mine(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = layer(3, 8)
        self.stages = nn.Sequential(*(layer(8 * 2**i, 16 * 2**i) for i in range(4)))
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x):
        return self.fc(self.stages(self.stem(x)).mean((2, 3)))

def make(num_classes):
    return OutsideNet("mine", Mine(num_classes), Family("stem stages.*", ":pool", "fc"), num_classes)

def partly(num_classes):
    return OutsideNet("mine", Mine(num_classes), Family("stages.*", ":pool", "fc"), num_classes)

def bare(num_classes):
    return Mine(num_classes)

def broken(num_classes):
    return Mine(num_classes + "1")
"""
LAYERS = """
from torch import nn

def layer(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "layers.py").write_text(LAYERS)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_a_network_of_ones_own_gives_logits_maps_and_a_cut(mine):
    torch.manual_seed(0)
    backbone = create_backbone(f"{mine}:make", num_classes=5).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    own = [part for name, part in backbone.named_children() if name in ("stem", "stages", "fc")]
    expected = own[2](own[1](own[0](backbone.pixel_norm(pixels))).mean((2, 3)))
    torch.testing.assert_close(backbone(pixels), expected)
    assert {key: spec.channels for key, spec in backbone.feature_specs.items()} == {
        "c2": 16,
        "c3": 32,
        "c4": 64,
        "c5": 128,
    }
    trunk, head = backbone.cut(16)
    assert trunk(pixels).shape == (2, 64, 4, 4) and head.out_channels == 128


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("{}:mak", "has no function 'mak'; write --backbone .*mine.py:FUNCTION"),
        ("{}:bare", "makes a Mine, not a Backbone: return backbones.adapters.OutsideNet"),
        ("{}:partly", "mine is no chain of the steps 'stages.*'"),
        ("{}:broken", "cannot be made: TypeError"),
        ("absent.py:make", "there is no file .*absent.py"),
        ("{}", "There is no backbone"),
    ],
)
def test_what_is_wrong_with_ones_own_file_is_said(mine, name, sentence):
    with pytest.raises(BackboneError, match=sentence):
        create_backbone(name.format(mine))
