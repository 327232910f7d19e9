"""Files as others write them become ours: the same logits as an independent network gives for the same tensors."""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from backbones import create_backbone
from backbones.chain import PIXEL_MEAN, PIXEL_STD
from vertebra.build.backbone import build_classifier, pretrained_backbone
from vertebra.build.foreign_weights import convert
from vertebra.build.weight_formats import FORMATS
from vertebra.engine.weights import load_into, load_weights
from vertebra.ground.errors import UserError
from vertebra.recipes.schema import BackboneRecipe
from vertebra.recipes.schema_detection import DetectionRecipe

PATH = Path("theirs.pth")
GIVEN = {"channels": "rgb", "stride_in": "3x3", "mean": PIXEL_MEAN, "std": PIXEL_STD}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Norms that change their maps, each channel another way, so that no two may be exchanged."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1)
    return net.eval()


def pixels(side: int = 64) -> Tensor:
    return torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalised(images: Tensor, mean: Any = PIXEL_MEAN, std: Any = PIXEL_STD) -> Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def ours(state: dict[str, Tensor], name: str, **how: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The network that is built from what `convert` says of these tensors."""
    with torch.device("meta"):
        template = create_backbone(name)
    converted, facts = convert(state, template, PATH, **how)
    identity = facts["backbone"]
    net = create_backbone(name, num_classes=identity["num_classes"], stride_in=identity["stride_in"] or "3x3")
    load_into(net, converted, PATH, allow_missing=("fc",))
    net.pixel_norm = type(net.pixel_norm)(identity["pixel_mean"], identity["pixel_std"])
    return net.eval(), facts


def same_logits(net: nn.Module, expected: Tensor, images: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(net(images), expected, atol=1e-4, rtol=1e-4)


# torchvision's networks under the names of others: (what they call a tensor, what else lies in their files).
EXTRA = {"queue": torch.zeros(2), "predictor.0.weight": torch.zeros(2)}


def detectron2_name(name: str) -> str:
    name = re.sub(r"layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name if name.startswith("res") else f"stem.{name}"


RENAMED: dict[str, tuple[Callable[[str], str], dict[str, Tensor]]] = {
    "torchvision": (lambda name: name, {}),
    "moco v2": (lambda name: f"encoder_q.{name}", {**EXTRA, "encoder_k.conv1.weight": torch.zeros(2)}),
    "moco v3": (lambda name: f"base_encoder.{name}", {**EXTRA, "momentum_encoder.conv1.weight": torch.zeros(2)}),
    "swav": (lambda name: name, {"prototypes.weight": torch.zeros(2), "projection_head.0.bias": torch.zeros(2)}),
    "dino": (lambda name: f"backbone.{name}", {"head.mlp.0.weight": torch.zeros(2)}),
    "mmpretrain": (lambda name: f"head.{name}" if name.startswith("fc") else f"backbone.{name}", {}),
    "detectron2": (detectron2_name, {"proposal_generator.rpn_head.conv.weight": torch.zeros(2)}),
    "detectron2's FPN": (
        lambda name: f"backbone.bottom_up.{detectron2_name(name)}", {"backbone.fpn_lateral2.weight": torch.zeros(2)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RENAMED)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_renamed_networks_give_the_same_logits(case, name):
    rename, extra = RENAMED[case]
    theirs = randomised(getattr(torchvision.models, name)(num_classes=7))
    projector = case.startswith(("moco", "dino", "swav"))
    state = {rename(key): value for key, value in theirs.state_dict().items() if not (projector and key[:2] == "fc")}
    if case.startswith("moco"):
        state[rename("fc.0.weight")] = torch.zeros(2)
    net, facts = ours({**state, **extra}, name.replace("resnet", "r"), given=GIVEN)
    assert facts["by_others"]["left_out"] == [key for key in (*state, *extra) if key in extra or "fc.0" in key]
    if projector:
        net.fc = theirs.fc = nn.Identity()
    with torch.no_grad():
        same_logits(net, theirs(normalised(pixels())), pixels())


def test_detectrons_msra_models(tmp_path):
    """Caffe2's names, norms as scales and offsets alone, BGR, deviation 1, the stride in the first 1x1."""
    theirs = randomised(torchvision.models.resnet50(num_classes=5))
    arrays: dict[str, np.ndarray] = {"conv1_b": np.zeros(64, np.float32)}
    for name, module in theirs.named_modules():
        place = re.sub(r"layer(\d)\.(\d+)\.", lambda f: f"res{int(f[1]) + 1}_{f[2]}_branch", name)
        place = place.replace("downsample.0", "1").replace("downsample.1", "1_bn")
        place = re.sub(
            r"branch(conv|bn)(\d)", lambda f: f"branch2{'abc'[int(f[2]) - 1]}{'_bn' * (f[1] == 'bn')}", place
        )
        place = {"bn1": "res_conv1_bn", "fc": "pred"}.get(place, place)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
            arrays |= {f"{place}_s": module.weight.detach().numpy(), f"{place}_b": module.bias.detach().numpy()}
        elif isinstance(module, nn.Conv2d | nn.Linear):
            arrays[f"{place}_w"] = module.weight.detach().numpy()
        if isinstance(module, nn.Linear):
            arrays[f"{place}_b"] = module.bias.detach().numpy()
        if (name.endswith("0.conv1") and name[5] != "1") or (name.endswith("0.conv2") and name[5] != "1"):
            module.stride = (2, 2) if name.endswith("conv1") else (1, 1)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": {**arrays, "conv1_w_momentum": np.zeros(2)}}, protocol=2))
    net, facts = ours(load_weights(path)[0], "r50")
    assert facts["backbone"]["stride_in"] == "1x1" and facts["by_others"]["channels"] == "bgr"
    assert facts["by_others"]["left_out"] == ["conv1_b", "conv1_w_momentum"]
    with torch.no_grad():
        same_logits(net, theirs(normalised(pixels(), PIXEL_MEAN, (1.0, 1.0, 1.0)).flip(1)), pixels())


@pytest.mark.parametrize(("kind", "name"), [("basic", "r18"), ("bottleneck", "r50")])
def test_hugging_faces_resnets(kind, name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    depths = {"r18": [2, 2, 2, 2], "r50": [3, 4, 6, 3]}[name]
    sizes = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=sizes, num_labels=4)
    theirs = randomised(transformers.ResNetForImageClassification(config))
    net, facts = ours(theirs.state_dict(), name, form="transformers")
    assert facts["backbone"]["num_classes"] == 4
    with torch.no_grad():
        same_logits(net, theirs(normalised(pixels())).logits, pixels())
    trunk = {
        key.removeprefix("resnet."): value for key, value in theirs.state_dict().items() if "classifier" not in key
    }
    converted, facts = convert(trunk, create_backbone(name), PATH, form="transformers")
    assert torch.equal(converted["conv1.weight"], net.conv1.weight) and "fc.weight" not in converted
    assert facts["by_others"]["classifier"] == "no classifier"


class PaddedBothSides(nn.Module):
    """Nets of 6n + 2 layers whose shortcuts pad a quarter of a block's channels before x and a quarter after it."""

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for layer, planes in enumerate((16, 32, 64), start=1):
            parts = nn.Sequential()
            for _ in range(blocks):
                block = nn.Module()
                block.conv1 = nn.Conv2d(inputs, planes, 3, planes // inputs, 1, bias=False)
                block.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
                block.bn1, block.bn2 = nn.BatchNorm2d(planes), nn.BatchNorm2d(planes)
                parts.append(block)
                inputs = planes
            self.add_module(f"layer{layer}", parts)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            y = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
            if y.shape != x.shape:
                side = y.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
            x = F.relu(x + y)
        return self.linear(x.mean((2, 3)))


@pytest.mark.parametrize("blocks", [1, 3])
def test_cifar_nets_that_pad_on_both_sides(blocks):
    theirs = randomised(PaddedBothSides(blocks, 10))
    net, _ = ours(theirs.state_dict(), f"cifar_r{6 * blocks + 2}", form="akamaster")
    with torch.no_grad():
        same_logits(net, theirs(normalised(pixels(32))), pixels(32))


def test_tensors_without_known_names_are_taken_by_their_order():
    timm = pytest.importorskip("timm")
    theirs = randomised(timm.create_model("tf_efficientnet_lite0", num_classes=6))
    places = {
        f"_part{place}.{key.rpartition('.')[2]}": value
        for place, (key, value) in enumerate(theirs.state_dict().items())
    }
    name = "timm:tf_efficientnet_lite0"
    net, facts = ours(places, name)
    assert facts["backbone"]["pixel_mean"] == [127.5] * 3 and facts["backbone"]["num_classes"] == 6
    assert "taken by their order" in facts["by_others"]["names"]
    with torch.no_grad():
        same_logits(net, theirs(normalised(pixels(), [127.5] * 3, [127.5] * 3)), pixels())
    nameless = {str(place): value for place, value in enumerate(places.values())}
    with pytest.raises(UserError, match=r"0 would be conv_stem.weight, which --by-order would take it for"):
        ours(nameless, name)
    assert torch.equal(ours(nameless, name, by_order=True)[0].conv_stem.weight, theirs.conv_stem.weight)
    del nameless["7"]
    with pytest.raises(UserError, match="not those of timm:tf_efficientnet_lite0 in their order: there are "):
        ours(nameless, name, by_order=True)


def test_statistics_are_said_in_the_order_of_the_files_channels():
    state = torchvision.models.resnet18().state_dict()
    given = {"channels": "bgr", "mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)}
    net, facts = ours(state, "r18", given=given)
    assert facts["backbone"]["pixel_mean"] == [3, 2, 1] and facts["backbone"]["pixel_std"] == [6, 5, 4]
    assert torch.equal(net.conv1.weight, state["conv1.weight"].flip(1))


ALL = r"the order of its channels, where .* their stride, the mean of its pixels and their deviation; run: vertebra "
ALL += r"import-weights theirs.pth --as r50 --channels rgb\|bgr --stride-in 3x3\|1x1 --mean M M M --std S S S .*"
STRIDE = r"do not tell where its bottlenecks have their stride; run: .* --as r50 --stride-in 3x3\|1x1 \(.*"


@pytest.mark.parametrize(
    ("rename", "said", "sentence"),
    [
        (str, (), f"{ALL}torchvision and timm, or trained as they are, --format torchvision"),
        (detectron2_name, ("channels", "mean", "std"), f"{STRIDE}--format detectron2"),
        ("q{}".format, GIVEN, r"its names \(qfc.bias, .*and 315 more\) are of no format that is known"),
        (lambda name: name.replace("layer4", "layer5"), GIVEN, r"does not fit this network: it lacks layer4"),
    ],
)
def test_what_names_do_not_tell_is_asked_for(rename, said, sentence):
    with torch.device("meta"):
        state, network = torchvision.models.resnet50(num_classes=3).state_dict(), create_backbone("r50")
    given = {name: GIVEN[name] for name in said}
    with pytest.raises(UserError, match=sentence):
        convert({rename(name): value for name, value in reversed(state.items())}, network, PATH, given=given)


@pytest.mark.parametrize("shape", [(), (4,), (4, 9), (4, 512, 1)])
def test_a_classifier_of_another_form_is_refused(shape):
    state = {**torchvision.models.resnet18().state_dict(), "fc.weight": torch.zeros(shape)}
    with pytest.raises(UserError, match=r"its classifier is .*, and r18's has 512 inputs"):
        convert(state, create_backbone("r18"), PATH, given=GIVEN)


def test_two_networks_in_a_file_are_not_mixed():
    state = {f"{who}.stem.conv1.weight": torch.zeros(1) for who in ("student", "teacher")}
    with pytest.raises(UserError, match=r"two of its tensors would be conv1.weight, teacher.stem.conv1.weight too"):
        convert(state, create_backbone("r18"), PATH)


def test_trainings_take_files_of_others_as_they_are(tmp_path, caplog):
    """What is known is converted; what has to be asked for is refused; what has our names is taken as before."""
    caplog.set_level("INFO")
    theirs = torchvision.models.resnet50(num_classes=3)
    state = {f"module.encoder_q.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state, "args": Namespace(lr=0.03)}, tmp_path / "moco.pth")
    recipe = DetectionRecipe(backbone="r50", weights=str(tmp_path / "moco.pth"))
    backbone, origin = pretrained_backbone(recipe)
    assert torch.equal(backbone.layer4[2].conv3.weight, theirs.layer4[2].conv3.weight)
    assert origin["by_others"]["names"] == FORMATS["moco"].owner and origin["source"] == recipe.weights
    assert "moco.pth: weights by others, their names: MoCo; pixels: RGB, mean [123.675, 116.28, 103.53]" in caplog.text
    classifier, _ = build_classifier(BackboneRecipe(backbone="r50", weights=recipe.weights), 9)
    assert torch.equal(classifier.backbone.conv1.weight, theirs.conv1.weight)
    torch.save({detectron2_name(k): v for k, v in theirs.state_dict().items()}, tmp_path / "d2.pth")
    with pytest.raises(UserError, match=r"import-weights .*d2.pth --as r50 --channels"):
        pretrained_backbone(DetectionRecipe(backbone="r50", weights=str(tmp_path / "d2.pth")))
    torch.save(theirs.state_dict(), tmp_path / "plain.pth")
    backbone, origin = pretrained_backbone(DetectionRecipe(backbone="r50", weights=str(tmp_path / "plain.pth")))
    assert torch.equal(backbone.conv1.weight, theirs.conv1.weight) and "by_others" not in origin
