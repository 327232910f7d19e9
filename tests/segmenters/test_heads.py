"""Heads on every kind of backbone: shapes, losses and their gradients; views at test against naive ones."""

import pytest
import torch
import torch.nn.functional as F

from backbones import create_backbone
from backbones.structures import ImageBatch
from segmenters.segmenter import IGNORED, pixel_loss
from segmenters.testtime import AveragedViews, starts
from vertebra.build.segmenter import make_segmenter
from vertebra.recipes.schema_segmentation import SegmentationRecipe


def segmenter(backbone="r18", classes=3, **model):
    recipe = SegmentationRecipe(backbone=backbone, width=0.125, weights="none", model=model)
    torch.manual_seed(0)
    return make_segmenter(
        recipe, create_backbone(backbone, width=0.125, output_stride=recipe.model.last_stride), classes
    )


def batch(height=48, width=64, sizes=((48, 64), (40, 50))):
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (len(sizes), 3, height, width), dtype=torch.uint8)
    return ImageBatch(pixels, torch.tensor(sizes), tuple(sizes))


@pytest.mark.parametrize("backbone", ["r18", "r50", "vgg11_bn"])
@pytest.mark.parametrize(
    ("head", "stride"),
    [("fcn", 8), ("fcn", 32), ("deeplabv3", 8), ("deeplabv3", 16), ("deeplabv3plus", 16), ("pyramid", 32)],
)
def test_every_head_scores_every_pixel_and_learns_on_every_backbone(backbone, head, stride):
    model = segmenter(backbone, head=head, **({"output_stride": stride} if head != "pyramid" else {}))
    images = batch()
    labels_NHW = torch.randint(0, 3, (2, 48, 64), dtype=torch.uint8)
    losses = model.train()(images, labels_NHW)
    assert set(losses) == {"loss_pixels"} | ({"loss_auxiliary"} if head != "pyramid" else set())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    with torch.no_grad():
        assert model.eval()(images).shape == (2, 3, 48, 64)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["r18", "r50", "vgg11"])
def test_a_dilated_backbone_has_the_stride_that_is_asked_for(name, stride):
    backbone = create_backbone(name, width=0.125, output_stride=stride)
    maps = backbone.feature_maps(torch.zeros(1, 3, 64, 64))
    for key, spec in backbone.feature_specs.items():
        assert maps[key].shape[1:] == (spec.channels, 64 // spec.stride, 64 // spec.stride)
    assert backbone.feature_specs["c5"].stride == stride


def test_the_loss_is_a_mean_over_all_pixels_of_which_ignored_ones_cost_nothing():
    logits_NCHW = torch.randn(2, 3, 4, 5)
    labels_NHW = torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    labels_NHW[0, :2] = IGNORED
    costs = [
        -F.log_softmax(logits_NCHW[n, :, y, x], dim=0)[int(labels_NHW[n, y, x])]
        for n in range(2) for y in range(4) for x in range(5) if labels_NHW[n, y, x] != IGNORED
    ]  # fmt: skip
    torch.testing.assert_close(pixel_loss(logits_NCHW, labels_NHW), torch.stack(costs).sum() / 40)
    halves = [pixel_loss(logits_NCHW[n : n + 1], labels_NHW[n : n + 1]) for n in range(2)]
    torch.testing.assert_close(torch.stack(halves).mean(), pixel_loss(logits_NCHW, labels_NHW))


class Brightness(torch.nn.Module):
    """Scores of a pixel and of its right neighbour, so that mirroring shows."""

    def forward(self, images):
        red_NHW = images.pixels_N3HW[:, 0].float() / 255
        return torch.stack([red_NHW, F.pad(red_NHW, (0, 1))[:, :, 1:], red_NHW.square()], dim=1)


@pytest.mark.parametrize("options", [{"flip": True}, {"scales": (0.5, 1.0, 1.5)}, {"scales": (0.5, 2.0), "flip": True}])
def test_sizes_and_mirror_images_are_averaged_as_probabilities(options):
    images = batch(32, 40, sizes=((32, 40), (32, 40)))
    wanted = []
    for scale in options.get("scales", (1.0,)):
        pixels = images.pixels_N3HW.float()
        size = (round(32 * scale), round(40 * scale))
        if scale != 1:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=scale < 1)
        for flip in (False, True)[: 1 + options.get("flip", False)]:
            seen = pixels.flip(3) if flip else pixels
            found = Brightness()(ImageBatch(seen, images.sizes_hw_N2, images.sizes_hw)).softmax(1)
            found = found.flip(3) if flip else found
            wanted.append(F.interpolate(found, size=(32, 40), mode="bilinear"))
    found = AveragedViews(Brightness(), **options)(images)
    torch.testing.assert_close(found, torch.stack(wanted).mean(0), atol=1e-5, rtol=1e-5)


def test_a_mirrored_image_stays_at_the_left_edge_of_its_canvas():
    images = batch()
    alone = ImageBatch(images.pixels_N3HW[1:, :, :40, :50], torch.tensor([[40, 50]]), ((40, 50),))
    found = AveragedViews(Brightness(), flip=True)
    # not at the edges, whose neighbour is padding in one of the two
    torch.testing.assert_close(found(images)[1:, :, :40, 1:49], found(alone)[:, :, :, 1:49])


def test_windows_cover_the_image_and_agree_with_the_whole_where_scores_are_local():
    assert starts(10, 10) == [0] and starts(20, 9) == [0, 6, 11]
    images = batch(32, 40, sizes=((32, 40), (30, 33)))
    whole, parts = AveragedViews(Brightness()), AveragedViews(Brightness(), window_hw=(16, 24))
    # at a window's right edge the neighbour is not seen
    torch.testing.assert_close(parts(images)[:, :, :, :16], whole(images)[:, :, :, :16])
