"""Our segmenters are torchvision's: the same weights give the same scores."""

import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50

from backbones import create_backbone
from backbones.structures import ImageBatch
from segmenters.heads import HEADS, FullyConvolutional
from segmenters.segmenter import Segmenter


def ours(head, classes=21):
    backbone = create_backbone("r50", output_stride=8)
    maps = backbone.maps(["c5", "c4"])
    make = HEADS[head][1]
    auxiliary = FullyConvolutional(maps.specs[1:], classes)
    return Segmenter(maps, make(maps.specs[:1], classes), [0], auxiliary=auxiliary, auxiliary_maps=[1])


def take(module, state, prefix):
    """Load the peer's tensors below a prefix, in their order."""
    theirs = [tensor for name, tensor in state.items() if name.startswith(prefix)]
    own = module.state_dict()
    assert len(own) == len(theirs)
    module.load_state_dict(dict(zip(own, theirs)))


@pytest.mark.parametrize(("head", "make"), [("fcn", fcn_resnet50), ("deeplabv3", deeplabv3_resnet50)])
def test_scores_and_auxiliary_scores_are_torchvisions(head, make):
    torch.manual_seed(0)
    peer = make(weights=None, weights_backbone=None, aux_loss=True).eval()
    for module in peer.modules():  # norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    model = ours(head).eval()
    state = peer.state_dict()
    take(
        model.trunk,
        {name: tensor for name, tensor in state.items() if not name.startswith("backbone.fc.")},
        "backbone.",
    )
    take(model.head, state, "classifier.")
    take(model.auxiliary, state, "aux_classifier.")
    pixels = torch.randint(0, 256, (2, 3, 65, 97), dtype=torch.uint8)
    batch = ImageBatch(pixels, torch.tensor([[65, 97]] * 2), ((65, 97),) * 2)
    with torch.no_grad():
        norm = model.trunk.pixel_norm(pixels)
        wanted = peer(norm)
        found = model(batch)
        maps = model.trunk(pixels, batch.sizes_hw_N2)
        other = torch.nn.functional.interpolate(model.auxiliary([maps[1]]), size=(65, 97), mode="bilinear")
    assert maps[0].shape[2:] == (9, 13)  # stride 8, dilated as with replace_stride_with_dilation
    for mine, theirs in ((found, wanted["out"]), (other, wanted["aux"])):
        assert (mine - theirs).abs().max() < 1e-5 * theirs.abs().max()
