"""Networks that are called whole: their maps, in images of any size, and what a detector holds of them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from backbones import BackboneError, create_backbone
from vertebra.build.detector import file_state, make_detector
from vertebra.build.training import build_optimizer
from vertebra.recipes.schema import Solver
from vertebra.recipes.schema_detection import DetectionRecipe, Detector

timm = pytest.importorskip("timm")

SIMPLE = [("c4", 16)]
FOUR = [("c2", 4), ("c3", 8), ("c4", 16), ("c5", 32)]
# The smallest of each kind: its maps, and the side of its tiles.
KINDS = {
    "test_vit": (SIMPLE, None),
    "vit_tiny_patch16_224": (SIMPLE, None),
    "vit_tiny_patch16_dinov3_qkvb": (SIMPLE, None),
    "deit_tiny_distilled_patch16_224": (SIMPLE, None),
    "test_mambaout": (FOUR, None),
    "swin_tiny_patch4_window7_224": (FOUR, None),
    "pvt_v2_b0": (FOUR, None),
    "hrnet_w18_small": (FOUR, None),
    "dla46x_c": (FOUR, None),
    "coat_tiny": (FOUR, 224),
    "test_coatnet": (FOUR, 160),
    "levit_128s": ([("c4", 16), ("c5", 32), ("c6", 64)], 224),
    "efficientvim_m1": ([("c4", 16), ("c5", 32), ("c6", 64)], None),
}
QUICK = ("test_vit", "test_mambaout", "test_coatnet", "levit_128s")
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in KINDS]


def pixels(count=1, height=64, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def make(name):
    torch.manual_seed(0)
    return create_backbone(f"timm:{name}", num_classes=5).eval()


@pytest.mark.parametrize("name", EACH)
def test_logits_names_and_maps_are_the_networks_own(name):
    """Against the network as its library makes it for images of its own size."""
    net, reference = make(name), timm.create_model(name, num_classes=5).eval()
    assert list(net.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(net.state_dict())
    images = pixels(2, net.native_px, net.native_px)
    expected_specs, tile = KINDS[name]
    assert [(key, spec.stride) for key, spec in net.feature_specs.items()] == expected_specs
    assert net.reading.tile == tile
    with torch.no_grad():
        normalised = net.pixel_norm(images)
        expected = reference(normalised)
        assert (net(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
        all_maps = reference.forward_intermediates(normalised, intermediates_only=True)
    for key, found in net.feature_maps(images).items():
        spec = net.feature_specs[key]
        of_stride = [y for y in all_maps if y.shape[2] == -(-net.native_px // spec.stride)]
        torch.testing.assert_close(found, of_stride[-1], rtol=1e-3, atol=1e-4)
        assert found.shape[1] == spec.channels


@pytest.mark.parametrize("name", EACH)
def test_a_pyramid_trains_all_that_it_holds(name):
    """Images of sides that nothing divides; no parameter is without a gradient, and files have the library's names."""
    net = make(name)
    own = set(net.state_dict())
    recipe = DetectionRecipe(
        weights="none", model=Detector(body="fpn", norms="trained", freeze_stride=0, fpn_channels=8)
    )
    detector = make_detector(recipe, net, classes=3)
    maps = detector.body(pixels(2, 75, 106), torch.tensor([[75, 106], [60, 106]]))
    assert [tuple(y.shape[1:]) for y in maps[-2:]] == [(8, 3, 4), (8, 2, 2)]
    sum(y.square().mean() for y in maps).backward()
    assert not [name for name, one in detector.body.named_parameters() if one.grad is None]
    in_file = {name.removeprefix("backbone.") for name in file_state(detector) if name.startswith("backbone.")}
    assert in_file <= own and in_file


def test_a_trunk_shares_parameters_and_has_what_its_maps_are_made_of():
    net = make("test_mambaout")
    trunk = net.maps(["c2", "c3"])
    whole, below = dict(net.named_parameters()), dict(trunk.named_parameters())
    assert all(whole[name] is one for name, one in below.items())
    assert {name.split(".")[0] for name in below} == {"stem", "stages"}
    assert any(name.startswith("stages.1.") for name in below) and not any(
        name.startswith("stages.2.") for name in below
    )
    assert trunk.specs == tuple(net.feature_specs[key] for key in ("c2", "c3"))
    assert net.trunk("c3").stride == 8


@pytest.mark.parametrize("name", ["test_vit", "test_coatnet"])
def test_copies_and_pickles_of_a_trunk_are_complete(name):
    trunk = make(name).maps(["c4"])
    images = pixels(1, 90, 70)
    with torch.no_grad():
        (expected,) = trunk(images)
        for other in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
            torch.testing.assert_close(other(images)[0], expected)
            next(iter(other.parameters())).add_(1)
            assert not torch.equal(other(images)[0], expected)
        torch.testing.assert_close(trunk(images)[0], expected)


def test_modes_reach_the_network_itself():
    net = make("test_coatnet")
    trunk = net.train().maps(["c2"])
    assert net.net.training and trunk.net.training and all(part.training for part in trunk.modules())
    assert not trunk.eval().net.training and not any(part.training for part in trunk.modules())


def test_what_is_frozen_is_what_the_fine_maps_are_made_of():
    net = make("test_coatnet")
    net.freeze(8)
    net.train()
    c2, c3, *coarse = net.maps(list(net.feature_specs))(pixels(2, 160, 160))
    assert not c2.requires_grad and not c3.requires_grad and all(y.requires_grad for y in coarse)
    coarse[-1].sum().backward()
    for name, one in net.named_parameters():
        assert name.startswith(("head", "norm")) or one.requires_grad == (one.grad is not None), name
    norms = {name: part for name, part in net.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert {name.split(".")[0] for name, part in norms.items() if not part.training} >= {"stem"}
    assert all(part.training for name, part in norms.items() if name.startswith("stages.2."))


def test_a_network_of_one_size_sees_an_image_in_tiles():
    net = make("test_coatnet")
    images = pixels(2, 160, 320)
    whole = net.feature_maps(images)
    for place in (0, 1):
        part = net.feature_maps(images[..., 160 * place : 160 * (place + 1)])
        for key, y in part.items():
            side = y.shape[3]
            torch.testing.assert_close(whole[key][..., side * place : side * (place + 1)], y)


def test_patches_of_14_px_see_the_image_at_seven_eighths_of_its_size():
    with torch.device("meta"):
        net = create_backbone("timm:vit_small_patch14_dinov2")
        assert net.reading.scale == 14 / 16 and net.feature_specs["c4"].stride == 16
        (y,) = net.maps(["c4"])(torch.zeros(1, 3, 300, 500, dtype=torch.uint8))
    assert y.shape == (1, 384, 19, 32)


def test_torchvisions_swin_gives_the_maps_of_its_stages():
    with torch.device("meta"):
        net = create_backbone("torchvision:swin_t")
        maps = net.feature_maps(torch.zeros(1, 3, 100, 200, dtype=torch.uint8))
    assert [tuple(y.shape[1:]) for y in maps.values()] == [(96, 25, 50), (192, 13, 25), (384, 7, 13), (768, 4, 7)]


def test_the_random_numbers_are_those_of_the_network_alone():
    """The copy without storage draws none, so seeds give the networks that they gave before."""
    torch.manual_seed(3)
    reference = timm.create_model("test_resnet", num_classes=5)
    torch.manual_seed(3)
    net = create_backbone("timm:test_resnet", num_classes=5)
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), reference.parameters()))


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        (
            "timm:test_vit",
            {"pos_embed": 0, "blocks.0.norm1.bias": 1, "blocks.5.mlp.fc2.bias": 6, "head.weight": 7},
        ),
        ("timm:test_convnext", {"stem.0.weight": 0, "stages.3.blocks.1.conv_dw.bias": 9, "head.fc.weight": 10}),
        ("timm:poolformer_s12", {"stem.conv.bias": 0, "head.fc.bias": 5}),  # without a grouping of timm's
        ("torchvision:swin_t", {"features.0.0.bias": 0, "features.6.norm.bias": 3, "head.weight": 4}),
        ("r18", {"bn1.weight": 0, "layer1.0.conv1.weight": 1, "layer4.1.bn2.bias": 8, "fc.bias": 9}),
        ("vgg11_bn", {"features.0.weight": 0, "features.1.bias": 0, "classifier.6.weight": 10}),
    ],
)
def test_the_depth_of_a_parameter_is_that_of_its_block(name, depths):
    with torch.device("meta"):
        net = create_backbone(name)
    assert {key: net.depths[key] for key in depths} == depths
    assert net.depths.keys() == dict(net.named_parameters()).keys()


@pytest.mark.parametrize(("name", "body"), [("timm:test_vit", "fpn"), ("timm:test_convnext", "c4"), ("r18", "fpn")])
def test_layer_decay_lowers_the_rate_with_each_block(name, body):
    """All that a detector trains is in the optimiser once; what is its own has the full rate, as the log says."""
    net = create_backbone(name, num_classes=5)
    model = Detector(body=body, norms="trained", freeze_stride=0, fpn_channels=8)
    detector = make_detector(DetectionRecipe(weights="none", model=model), net, classes=3)
    optimizer = build_optimizer(Solver(lr=0.1, layer_decay=0.5, decay_norms=False), detector)
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert len(rates) == sum(1 for _ in detector.parameters())
    deepest = max(net.depths.values())
    own = {id(one): 0.1 * 0.5 ** (deepest - net.depths[name]) for name, one in net.named_parameters()}
    for one in detector.parameters():
        assert rates[id(one)] == pytest.approx(own.get(id(one), 0.1))
    assert optimizer.param_groups[0]["lr"] == 0.1 and min(rates.values()) == pytest.approx(0.1 * 0.5**deepest)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:resnet10t", "torchvision:convnext_tiny"])
def test_drop_path_reaches_the_blocks(name):
    with torch.device("meta"):
        net = create_backbone(name, drop_path=0.3)
    parts = [part for part in net.modules() if type(part).__name__ in ("DropPath", "StochasticDepth")]
    dropped = [part.drop_prob if hasattr(part, "drop_prob") else part.p for part in parts]
    assert max(dropped) == pytest.approx(0.3) and min(dropped) < 0.3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: make("test_vit").cut(16), r"cannot be cut into .*VisionTransformer is no chain .*--model.body fpn"),
        (lambda: make("test_vit").maps(["c2"]), r"timm:test_vit has no map c2; it has c4 \(stride 16\)"),
        (lambda: make("test_vit").classify(torch.zeros(1, 64, 3, 3)), "cannot classify a part"),
        (lambda: make("test_vit").freeze(3), "cannot be frozen up to stride 3"),
        (lambda: make("test_vit").three_by_three(), "comes from outside"),
        (lambda: create_backbone("timm:test_vit", dilate_last=True).trunk("c5"), "has no map c5"),
        (lambda: create_backbone("timm:test_mambaout", dilate_last=True), "cannot be built with a dilated last stage"),
        (lambda: create_backbone("timm:vgg11", drop_path=0.1), "timm:vgg11 cannot be built with drop path"),
        (lambda: create_backbone("r18", drop_path=0.1), "r18 has no drop path; networks of timm and torchvision have"),
        (lambda: make("mixer_s32_224")(pixels()), r"cannot see images of 64 x 64 px \(.*224"),
    ],
)
def test_what_such_a_network_cannot_do_is_said(change, sentence):
    with pytest.raises(BackboneError, match=sentence):
        change()
