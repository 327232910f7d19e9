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


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_torchvisions_from_the_same_state_dict(name):
    with torch.device("meta"):
        model = create_backbone(name)
        reference = torchvision.models.get_model(NAMES[name])
    state = random_state(reference)
    reference.load_state_dict(state, assign=True)
    model.load_state_dict(state, assign=True)  # strict: exactly torchvision's names
    model.pixel_norm = PixelNorm()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        found, expected = model.eval()(pixels), reference.eval()((pixels / 255 - MEAN) / STD)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["r18", "r50", "vgg11_bn"])
def test_training_moves_norm_statistics_and_gradients_as_torchvisions(name):
    """Both in batch statistics, and in double precision, as small batches make fp32's rounding large."""
    torch.manual_seed(0)
    reference = torchvision.models.get_model(NAMES[name], num_classes=10).double()
    model = create_backbone(name, num_classes=10).double()
    model.load_state_dict(reference.state_dict())
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    x = (pixels.double() - model.pixel_norm.mean) / model.pixel_norm.std
    if name.startswith("vgg"):  # without its classifier, whose dropout draws
        model.feature_maps(pixels)["c5"].square().sum().backward()
        reference.features(x).square().sum().backward()
    else:
        model(pixels).square().sum().backward()
        reference(x).square().sum().backward()
    reference_parameters, reference_buffers = dict(reference.named_parameters()), dict(reference.named_buffers())
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            expected = reference_parameters[name].grad
            assert (parameter.grad - expected).norm() <= 1e-5 * expected.norm() + 1e-9, name
            compared += 1
    assert compared > 15
    for name, buffer in model.named_buffers():
        if not name.startswith("pixel_norm"):
            torch.testing.assert_close(buffer, reference_buffers[name], msg=name)
