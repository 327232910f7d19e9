"""Which views a network is tested by, and whose classes have to agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones import BackboneError, create_backbone
from backbones.dense import Dense
from vertebra.build.views import LoadedNet, common_classes, load_net, plan_views
from vertebra.data.loading.views import Crops, Whole
from vertebra.engine.weights import save_weights
from vertebra.evaluation.predict.ensembles import Ensemble
from vertebra.ground.errors import RecipeError, UserError

CPU = torch.device("cpu")


def loaded(name: str = "cifar_r8", size: int = 32, resize: int = 32, classes: tuple[str, ...] | None = ("a", "b", "c")):
    return LoadedNet(Path(f"{name}.safetensors"), create_backbone(name, num_classes=3), size, resize, "fp32", classes)


@pytest.mark.parametrize(
    ("size", "sides"),
    [(224, [224, 256, 384, 480, 640]), (128, [128, 146, 219, 274, 366]), (32, [32, 37, 55, 69, 91])],
)
def test_multiscale_takes_the_papers_sizes_in_proportion(size, sides):
    plan = plan_views([loaded(size=size, resize=size)], ["multiscale"], CPU)
    assert plan.sources == tuple(map(Whole, sides)) and plan.facts[0]["sides"] == sides
    assert plan.reads_whole_images and isinstance(plan.networks[0], Dense)


def test_mirror_images_are_those_of_the_papers_unless_said():
    kinds = ["1crop", "10crop", "dense", "multiscale"]
    for flip, expected in ((None, [False, True, True, True]), (True, [True] * 4), (False, [False, True, False, False])):
        plan = plan_views([loaded()], kinds, CPU, flip=flip)
        assert [fact["flip"] for fact in plan.facts] == expected
        assert [result.flip for result in plan.results] == expected


def test_what_several_results_share_is_read_once():
    nets = [loaded(resize=40), loaded("cifar_plain8", resize=40), loaded(size=24, resize=40)]
    plan = plan_views(nets, ["1crop", "10crop", "dense"], CPU, ensemble=True)
    expected = [Crops(32, 40), Crops(24, 40), Crops(32, 40, corners=True), Crops(24, 40, corners=True), Whole(40)]
    assert plan.sources == tuple(expected)
    ensembles = [result for result in plan.results if isinstance(result, Ensemble)]
    assert [one.members for one in ensembles] == [(0, 1, 2), (4, 5, 6), (8, 9, 10)]
    assert [plan.sources[result.sources[0]] for result in plan.results if result not in ensembles] == [
        expected[place] for place in (0, 0, 1, 2, 2, 3, 4, 4, 4)
    ]


def test_sizes_below_the_networks_own_are_refused():
    with pytest.raises(RecipeError, match=r"--scales 24 is too small for cifar_r8\.safetensors: .* for 32 px"):
        plan_views([loaded()], ["multiscale"], CPU, scales=(32, 24))
    with pytest.raises(RecipeError, match="--resize 30 is too small"):
        plan_views([loaded(resize=30)], ["dense"], CPU)


def test_classes_must_agree_between_weights_and_with_the_data():
    other = loaded("cifar_plain8", classes=("a", "c", "b"))
    assert common_classes([loaded(), loaded(classes=None)], ("a", "b", "c"), "DATA") == ("a", "b", "c")
    assert common_classes([loaded(classes=None)], (), "DATA") == ("0", "1", "2")
    assert common_classes([loaded(classes=None), loaded()], (), "DATA") == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"cifar_r8\.safetensors and DATA have different classes: d are only in one"):
        common_classes([loaded()], ("a", "b", "c", "d"), "DATA")
    with pytest.raises(ValueError, match=r"cifar_plain8\.safetensors and cifar_r8\.safetensors .* in another order"):
        common_classes([loaded(), other], (), "DATA")
    with pytest.raises(ValueError, match="has 3 classes, and DATA has 2"):
        common_classes([loaded(classes=None)], ("a", "b"), "DATA")


def test_a_file_that_is_missing_and_a_size_of_which_nothing_is_left_are_refused(tmp_path):
    net = create_backbone("vgg11", num_classes=3, width=0.125)
    save_weights(tmp_path / "vgg.safetensors", net.state_dict(), {"backbone": net.identity()})
    with pytest.raises(BackboneError, match="vgg11 cannot see images of 24 px"):
        load_net(tmp_path / "vgg.safetensors", CPU, size=24, resize=None, precision="fp32")
    with pytest.raises(UserError, match=r"no\.safetensors do not exist"):
        load_net(tmp_path / "no.safetensors", CPU, size=None, resize=None, precision="auto")
    found = load_net(tmp_path / "vgg.safetensors", CPU, size=64, resize=72, precision="fp32")
    assert (found.size, found.resize, found.class_names, found.backbone.training) == (64, 72, None, False)
