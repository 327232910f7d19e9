"""Our ResNets and VGGs compute what torchvision's compute from the same state dict, under the same names."""

import pytest
import torch
import torchvision

from backbones import create_backbone
from backbones.chain import PixelNorm

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NAMES = {f"r{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
NAMES |= {f"vgg{depth}{end}": f"vgg{depth}{end}" for depth in (11, 13, 16, 19) for end in ("", "_bn")}


def random_state(net):
    """A state dict of sensible size, made from one short random tensor, as 138M normal draws take seconds."""
    draws = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    state = {}
    for name, like in net.state_dict().items():
        repeats = -(-like.numel() // len(draws))
        values = draws.repeat(repeats)[: like.numel()].view(like.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        elif name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight")):
            state[name] = 1 + 0.2 * values.tanh()
        elif like.ndim == 1:
            state[name] = 0.1 * values
        else:
            state[name] = values * (2 / like[0].numel()) ** 0.5
    return state


@pytest.mark.parametrize("ours_name", NAMES)
def test_logits_equal_torchvisions_from_the_same_state_dict(ours_name):
    with torch.device("meta"):
        ours = create_backbone(ours_name)
        theirs = torchvision.models.get_model(NAMES[ours_name])
    state = random_state(theirs)
    theirs.load_state_dict(state, assign=True)
    ours.load_state_dict(state, assign=True)  # strict: exactly torchvision's names
    ours.pixel_norm = PixelNorm()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        found, expected = ours.eval()(pixels), theirs.eval()((pixels / 255 - MEAN) / STD)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("ours_name", ["r18", "r50", "vgg11_bn"])
def test_training_moves_norm_statistics_and_gradients_as_torchvisions(ours_name):
    """Both in batch statistics, and in double precision, as small batches make fp32's rounding large."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(NAMES[ours_name], num_classes=10).double()
    ours = create_backbone(ours_name, num_classes=10).double()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    x = (pixels.double() - ours.pixel_norm.mean) / ours.pixel_norm.std
    if ours_name.startswith("vgg"):  # without its classifier, whose dropout draws
        ours.feature_maps(pixels)["c5"].square().sum().backward()
        theirs.features(x).square().sum().backward()
    else:
        ours(pixels).square().sum().backward()
        theirs(x).square().sum().backward()
    theirs_parameters, theirs_buffers = dict(theirs.named_parameters()), dict(theirs.named_buffers())
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            expected = theirs_parameters[name].grad
            assert (parameter.grad - expected).norm() <= 1e-5 * expected.norm() + 1e-9, name
            compared += 1
    assert compared > 15
    for name, buffer in ours.named_buffers():
        if not name.startswith("pixel_norm"):
            torch.testing.assert_close(buffer, theirs_buffers[name], msg=name)
