"""How the families of torchvision and timm are chained, by the class of the network.

A family that is missing is no chain, or none that is known: its networks are called whole (`backbones.whole`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """A network's chain. Steps are names of modules ("x.*": all children of x) or of `FUNCTIONS`.

    steps: pixels to the last map. tail: the last map to vectors. classifier: the linear layer after them.
    """

    steps: str
    tail: str
    classifier: str


def average(x_NCHW: Tensor) -> Tensor:
    """Global average pooling to vectors_NC."""
    return F.adaptive_avg_pool2d(x_NCHW, 1).flatten(1)


def flatten(x_NCHW: Tensor) -> Tensor:
    """Pooled maps to vectors_NC."""
    return x_NCHW.flatten(1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {":relu": F.relu, ":pool": average, ":flatten": flatten}

TORCHVISION = {
    "ConvNeXt": Family("features.*", "avgpool classifier.0 classifier.1", "classifier.2"),
    "DenseNet": Family("features.* :relu", ":pool", "classifier"),
    "EfficientNet": Family("features.*", "avgpool :flatten classifier.0", "classifier.1"),
    "GoogLeNet": Family(
        "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b inception4c "
        "inception4d inception4e maxpool4 inception5a inception5b",
        "avgpool :flatten dropout",
        "fc",
    ),
    "MNASNet": Family("layers.*", ":pool classifier.0", "classifier.1"),
    "MobileNetV2": Family("features.*", ":pool classifier.0", "classifier.1"),
    "MobileNetV3": Family("features.*", "avgpool :flatten classifier.0 classifier.1 classifier.2", "classifier.3"),
    "RegNet": Family("stem trunk_output.*", "avgpool :flatten", "fc"),
    "ResNet": Family("conv1 bn1 relu maxpool layer1 layer2 layer3 layer4", "avgpool :flatten", "fc"),
    "ShuffleNetV2": Family("conv1 maxpool stage2 stage3 stage4 conv5", ":pool", "fc"),
    "VGG": Family(
        "features.*",
        "avgpool :flatten classifier.0 classifier.1 classifier.2 classifier.3 classifier.4 classifier.5",
        "classifier.6",
    ),
}

# Tails that many families of timm have.
POOLED = "head.global_pool head.drop"
NORMED = "head.global_pool head.norm head.flatten head.pre_logits head.drop"

TIMM = {
    "ByobNet": Family("stem stages.* final_conv", POOLED, "head.fc"),
    "CPUBone": Family(
        "stem.* stages.*", "head.in_conv head.global_pool head.flatten head.pre_classifier", "head.classifier.linear"
    ),
    "ConvNeXt": Family("stem stages.* norm_pre", NORMED, "head.fc"),
    "CSATv2": Family("stem_dct stages.*", NORMED, "head.fc"),
    "CspNet": Family("stem stages.*", POOLED, "head.fc"),
    "CspNext": Family("stem.* stages.*", POOLED, "head.fc"),
    "DaVit": Family("stem stages.* norm_pre", NORMED, "head.fc"),
    "DenseNet": Family("features.*", "global_pool head_drop", "classifier"),
    "EdgeNeXt": Family("stem.* stages.* norm_pre", NORMED, "head.fc"),
    "EfficientNet": Family("conv_stem bn1 blocks.* conv_head bn2", "global_pool", "classifier"),
    "EfficientVit": Family(
        "stem.* stages.*",
        "head.in_conv head.global_pool head.classifier.0 head.classifier.1 head.classifier.2 head.classifier.3",
        "head.classifier.4",
    ),
    "EfficientVitLarge": Family(
        "stem.* stages.*",
        "head.in_conv head.global_pool head.classifier.0 head.classifier.1 head.classifier.2 head.classifier.3",
        "head.classifier.4",
    ),
    "FasterNet": Family("patch_embed stages.*", "global_pool conv_head act flatten", "classifier"),
    "FastVit": Family("stem.* stages.* final_conv", POOLED, "head.fc"),
    "FocalNet": Family("stem layers.* norm", POOLED, "head.fc"),
    "GhostNet": Family("conv_stem bn1 act1 blocks.*", "global_pool conv_head act2 flatten", "classifier"),
    "HighPerfGpuNet": Family("stem stages.*", "head.global_pool head.last_conv head.dropout head.flatten", "head.fc"),
    "IFormer": Family("stem stages.*", ":pool head.head_drop head.head.bn", "head.head.l"),
    "LCNetV2": Family("stem.* stages.*", "global_pool conv_head act2 flatten", "classifier"),
    "LowFormer": Family("stem.* stages.*", "in_conv global_pool flatten pre_classifier", "classifier"),
    "MetaFormer": Family("stem stages.*", "head.global_pool head.norm head.flatten head.drop", "head.fc"),
    "MetaNeXt": Family("stem.* stages.*", "head.global_pool head.fc1 head.act head.norm head.drop", "head.fc2"),
    "MobileNetV3": Family("conv_stem bn1 blocks.*", "global_pool conv_head norm_head act2 flatten", "classifier"),
    "NextViT": Family("stem.* stages.* norm", POOLED, "head.fc"),
    "NormFreeNet": Family("stem.* stages.* final_conv final_act", POOLED, "head.fc"),
    "RDNet": Family("stem.* dense_stages.* norm_pre", NORMED, "head.fc"),
    "RegNet": Family("stem s1 s2 s3 s4 final_conv", POOLED, "head.fc"),
    "RepGhostNet": Family("conv_stem bn1 act1 blocks.*", "global_pool conv_head act2 flatten", "classifier"),
    "ResNet": Family("conv1 bn1 act1 maxpool layer1 layer2 layer3 layer4", "global_pool", "fc"),
    "RexNet": Family("stem features.*", POOLED, "head.fc"),
    "SENet": Family("layer0.* pool0 layer1.* layer2.* layer3.* layer4.*", "global_pool", "last_linear"),
    "SHViT": Family("patch_embed.* stages.*", "global_pool flatten head.bn", "head.l"),
    "StarNet": Family("stem.* stages.* norm", ":pool", "head"),
    "TinyVit": Family("patch_embed stages.*", NORMED, "head.fc"),
    "TResNet": Family("body.*", POOLED, "head.fc"),
    "VGG": Family("features.*", "pre_logits head.global_pool head.drop", "head.fc"),
    "VovNet": Family("stem.* stages.*", POOLED, "head.fc"),
    "XceptionAligned": Family("stem.* blocks.* act", POOLED, "head.fc"),
}
