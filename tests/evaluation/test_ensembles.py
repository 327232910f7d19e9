"""Averaged views against naive loops over crops, sizes and mirror images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vertebra.data.loading.loaders import Batch
from vertebra.data.loading.views import Group, ViewBatch
from vertebra.evaluation.metrics.topk import topk_figures
from vertebra.evaluation.predict.classes import NO_LABEL, predict_scores
from vertebra.evaluation.predict.ensembles import Ensemble, NetworkView, scorer
from vertebra.ground.errors import UserError


class Net(nn.Module):
    """Scores that depend on where things are: mirrored or shifted images get others."""

    def __init__(self, seed: int, classes: int = 7) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 3)
        nn.init.normal_(self.layer.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.layer.bias)
        self.runs = 0

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        self.runs += 1
        map_NCHW = self.layer(pixels_N3HW.float())
        ramp_W = torch.linspace(0, 1, map_NCHW.shape[3], device=map_NCHW.device)
        return (map_NCHW * ramp_W).mean(dim=(2, 3))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def looks() -> ViewBatch:
    """Four images: five crops each (source 0), and whole in two sizes (1, 2), not in the images' order."""
    whole = [
        Group(torch.tensor([3, 0]), drawn(2, 1, 3, 8, 12, seed=1)),
        Group(torch.tensor([2, 1]), drawn(2, 1, 3, 9, 8)),
    ]
    large = [Group(torch.tensor([place]), drawn(1, 1, 3, 16, 20, seed=place)) for place in (2, 0, 1, 3)]
    return ViewBatch(((Group(torch.arange(4), drawn(4, 5, 3, 8, 8)),), tuple(whole), tuple(large)))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def softmax(net: Net, image_3HW: Tensor) -> Tensor:
    return net(image_3HW[None])[0].double().softmax(0)


@torch.no_grad()
def test_ten_crops_are_a_naive_loop_over_crops_and_mirror_images(looks):
    net = Net(0)
    found_NC = NetworkView(net, (0,), flip=True)(looks)
    for image, crops_V3HW in enumerate(looks.groups[0][0].pixels_nV3HW):
        views = [view for crop in crops_V3HW for view in (crop, crop.flip(2))]
        assert len(views) == 10
        close(found_NC[image], sum(softmax(net, view) for view in views) / 10)


@torch.no_grad()
@pytest.mark.parametrize("flip", [False, True])
def test_sizes_and_mirror_images_are_averaged_with_the_same_weight(looks, flip):
    net = Net(0)
    found_NC = NetworkView(net, (1, 2), flip=flip)(looks)
    expected = torch.zeros(4, 7, dtype=torch.float64)
    for source in (1, 2):
        for group in looks.groups[source]:
            for row, (image,) in zip(group.rows_n.tolist(), group.pixels_nV3HW):
                views = [image, image.flip(2)] if flip else [image]
                expected[row] += sum(softmax(net, view) for view in views) / len(views) / 2
    close(found_NC, expected)
    close(found_NC.sum(dim=1), torch.ones(4, dtype=torch.float64))


@torch.no_grad()
def test_images_that_run_one_by_one_get_the_same(looks):
    all_at_once, one_by_one = Net(0), Net(0)
    found = NetworkView(all_at_once, (0, 1), flip=True)(looks)
    close(NetworkView(one_by_one, (0, 1), flip=True, pixels_at_once=64)(looks), found)
    assert (all_at_once.runs, one_by_one.runs) == (3, 4 * 5 * 2 + 2 * 2 + 2 * 2)


def test_an_ensemble_is_the_average_and_runs_no_network_again(looks):
    nets = [Net(0), Net(1)]
    score = scorer([NetworkView(nets[0], (0,)), NetworkView(nets[1], (1,)), Ensemble((0, 1))])
    loader = [Batch((looks, torch.tensor([4, 5, 6, 0])), (10, 11, 12, 13))]
    seconds = [0.0, 0.0, 0.0]
    one, other, both = predict_scores(score, 3, nets, loader, seconds=seconds)
    assert [net.runs for net in nets] == [1, 2]
    with torch.no_grad():
        first, second = NetworkView(nets[0], (0,))(looks), NetworkView(nets[1], (1,))(looks)
    for found, probabilities_NC in ((one, first), (other, second), (both, (first + second) / 2)):
        best = probabilities_NC.topk(5, dim=1)
        assert found.best_NK.tolist() == best.indices.tolist()
        assert found.probabilities_NK == pytest.approx(best.values.numpy())
        for image, label in enumerate((4, 5, 6, 0)):
            order = probabilities_NC[image].argsort(descending=True).tolist()
            assert found.rank_N[image] == order.index(label)
    assert both.image_ids_N.tolist() == [10, 11, 12, 13] and both.classes == 7
    assert all(spent > 0 for spent in seconds)


def test_images_without_labels_are_predicted_and_not_scored(looks):
    net = Net(0)
    loader = [Batch((looks, torch.full((4,), NO_LABEL)), (0, 1, 2, 3))]
    (found,) = predict_scores(scorer([NetworkView(net, (0,))]), 1, [net], loader)
    assert found.rank_N.tolist() == [-1] * 4 and found.best_NK.shape == (4, 5)
    with pytest.raises(UserError, match="without a label have no top-1"):
        topk_figures(found)


def test_a_class_that_the_network_does_not_know_is_an_error(looks):
    net = Net(0)
    loader = [Batch((looks, torch.tensor([0, 1, 7, 2])), (10, 11, 12, 13))]
    with pytest.raises(UserError, match=r"image id 12 has class 7 .* the network has 7 classes"):
        predict_scores(scorer([NetworkView(net, (0,))]), 1, [net], loader)


def test_diverged_weights_are_an_error_that_names_the_image(looks):
    net = Net(0)
    net.layer.bias.data[2] = float("inf")
    with pytest.raises(UserError, match="image id 0 is not finite"):
        predict_scores(
            scorer([NetworkView(net, (0,))]), 1, [net], [Batch((looks, torch.zeros(4).long()), (0, 1, 2, 3))]
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_what_the_cpu_gives(looks):
    found = []
    for device in ("cpu", "cuda"):
        nets = [Net(0).to(device), Net(1).to(device)]
        score = scorer([NetworkView(nets[0], (0,), flip=True), NetworkView(nets[1], (1, 2)), Ensemble((0, 1))])
        batch = Batch((looks, torch.tensor([4, 5, 6, 0])), (10, 11, 12, 13))
        batch = batch.pin_memory() if device == "cuda" else batch
        found.append(predict_scores(score, 3, nets, [batch], device=device))
    for on_cpu, on_gpu in zip(*found):
        assert on_cpu.best_NK.tolist() == on_gpu.best_NK.tolist()
        assert on_gpu.probabilities_NK == pytest.approx(on_cpu.probabilities_NK, abs=1e-3)
