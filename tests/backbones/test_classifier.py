"""The classifier's loss and the mixing of pictures, against torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from backbones import create_backbone
from backbones.classifier import Classifier, mix, own_shares

CLASSES = 10


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(create_backbone("cifar_r8", num_classes=CLASSES), label_smoothing=0.1).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 3, 24, 32), dtype=torch.uint8, generator=generator)
    return pixels.to(memory_format=torch.channels_last), torch.randint(0, CLASSES, (6,), generator=generator)


def test_unmixed_it_is_cross_entropy(classifier: Classifier, batch):
    pixels, labels = batch
    values = classifier(pixels, labels)
    logits = classifier.backbone(pixels)
    assert torch.equal(values["loss_cls"], F.cross_entropy(logits, labels, label_smoothing=0.1))
    assert values["top1"] == 100 * (logits.argmax(1) == labels).float().mean()


def their_mixing(kind: str, amount) -> nn.Module:
    """torchvision's with the share or the box given instead of drawn."""
    if kind == "mixup":
        mixing: nn.Module = v2.MixUp(num_classes=CLASSES)
        mixing.make_params = lambda _: {"lam": amount}  # type: ignore[method-assign,assignment]
    else:
        x0, y0, x1, y1 = amount
        mixing = v2.CutMix(num_classes=CLASSES)
        lam = 1 - (x1 - x0) * (y1 - y0) / (24 * 32)
        mixing.make_params = lambda _: {"box": amount, "lam_adjusted": lam}  # type: ignore[method-assign,assignment]
    return mixing


@pytest.mark.parametrize(
    ("kind", "amount"),
    [("mixup", 0.3), ("mixup", 0.93), ("cutmix", (4, 2, 30, 23)), ("cutmix", (0, 5, 9, 6)), ("cutmix", (7, 7, 7, 9))],
)
def test_mixed_pictures_and_their_loss_are_torchvisions(classifier: Classifier, batch, kind: str, amount):
    pixels, labels = batch
    mixing_5 = torch.tensor([amount, 0, 0, 0, 0] if kind == "mixup" else [1, *amount], dtype=torch.float32)
    mixed, targets_NC = their_mixing(kind, amount)(pixels.float(), labels)
    torch.testing.assert_close(mix(pixels, own_shares(mixing_5, 24, 32)), mixed, atol=1e-3, rtol=1e-6)

    values = classifier(pixels, labels, mixing_5)
    logits = classifier.backbone(mixed)
    expected = F.cross_entropy(logits, targets_NC, label_smoothing=0.1)
    torch.testing.assert_close(values["loss_cls"], expected, atol=1e-5, rtol=1e-5)
    main_N = targets_NC.argmax(1)
    assert values["top1"] == 100 * (logits.argmax(1) == main_N).float().mean()


def test_gradients_of_the_mixed_loss_are_torchvisions(classifier: Classifier, batch):
    pixels, labels = batch
    mixed, targets_NC = their_mixing("cutmix", (3, 3, 20, 20))(pixels.float(), labels)
    F.cross_entropy(classifier.backbone(mixed), targets_NC, label_smoothing=0.1).backward()
    expected = [parameter.grad.clone() for parameter in classifier.parameters()]
    classifier.zero_grad()
    classifier(pixels, labels, torch.tensor([1.0, 3, 3, 20, 20]))["loss_cls"].backward()
    for parameter, grad in zip(classifier.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-4, rtol=1e-3)


class Knows(nn.Module):
    """Answers with the classes it was given, whatever it sees."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.logits_NC = F.one_hot(labels, CLASSES).float()

    def forward(self, _: Tensor) -> Tensor:
        return self.logits_NC


@pytest.mark.parametrize(("own", "top1"), [(0.8, 100.0), (0.5, 100.0), (0.2, 0.0)])
def test_top1_is_of_the_label_with_the_larger_share(batch, own: float, top1: float):
    pixels, labels = batch[0], torch.arange(6)
    mixing_5 = torch.tensor([own, 0, 0, 0, 0])
    assert Classifier(Knows(labels))(pixels, labels, mixing_5)["top1"] == top1  # type: ignore[arg-type]
    partners = Classifier(Knows(labels.roll(1)))  # type: ignore[arg-type]
    assert partners(pixels, labels, mixing_5)["top1"] == 100 - top1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mixing_never_waits_for_the_device(batch):
    classifier = Classifier(create_backbone("cifar_r8", num_classes=CLASSES)).cuda()
    pixels, labels = (one.cuda() for one in batch)
    mixing_5 = torch.tensor([1.0, 3, 3, 20, 20]).cuda()
    classifier(pixels, labels, mixing_5)["loss_cls"].backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        classifier(pixels, labels, mixing_5)["loss_cls"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
