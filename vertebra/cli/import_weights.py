"""Make a file of ours from a backbone's weights that others trained, with where they come from inside.

python tools/import_weights.py R-50.pkl --as r50

python tools/import_weights.py efficientnet-lite0.pth --as timm:tf_efficientnet_lite0 --licence Apache-2.0

python tools/import_weights.py resnet50.pth --as r50 --format torchvision

Known by their names: torchvision, timm, Detectron and detectron2, transformers, MoCo, SwAV, DINO, mmpretrain, the CIFAR
ResNets of pytorch_resnet_cifar10; others by the order of their tensors. What a file does not say is asked for.
The result is what every command takes as --weights; nothing in a file is ever run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import AfterValidator, Field

from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Recipe, refuse

Owner = Literal[
    "caffe2", "detectron2", "transformers", "moco", "swav", "dino", "mmpretrain", "akamaster", "torchvision"
]


def _of_pixels(values: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    if values is not None and 0 < max(map(abs, values)) < 1:
        of_255 = " ".join(f"{255 * value:g}" for value in values)
        raise ValueError(f"pixels are 0..255 here: write {of_255} if these were of 0..1")
    return values


Pixels = Annotated[tuple[float, float, float] | None, AfterValidator(_of_pixels)]


class Settings(Recipe):
    """Which file, whose, and what it does not say."""

    file: tyro.conf.Positional[Path] = Field(
        description="safetensors, a torch file, a pickle of arrays (.pkl), or hf:USER/NAME."
    )
    backbone: Annotated[str, tyro.conf.arg(name="as")] = Field(description="The network, as in train_backbone.py.")
    output: Path | None = Field(None, description="File to write; default: FILE's name with the network's, here.")
    form: Annotated[Owner | None, tyro.conf.arg(name="format")] = Field(
        None, description="Whose weights they are, where names do not tell: what is usual there is taken as said."
    )
    by_order: bool = Field(False, description="Take the tensors by their order, whatever their names.")
    channels: Literal["rgb", "bgr"] | None = Field(None, description="Order of the pixels that they were trained on.")
    stride_in: Literal["1x1", "3x3"] | None = Field(
        None, description="Where bottlenecks have their stride: 1x1 He et al. 2015 and Caffe, 3x3 torchvision (v1.5)."
    )
    mean: Pixels = Field(None, description="What was subtracted from pixels 0..255, in the order of --channels.")
    std: Pixels = Field(None, description="What they were then divided by.")
    licence: str = Field("unknown", description="Licence under which they were published.")
    source: str | None = Field(None, description="Where they were published, such as an address.")
    trained_on: str | None = Field(None, description="Name of the data, such as ImageNet-1K, by which reports compare.")

    def check(self) -> None:
        refuse(
            (self.by_order and self.form, "--by-order and --format both say what the names mean: give one of them"),
            (self.std is not None and min(self.std) <= 0, "--std is to be above 0"),
        )


def main(arguments: list[str]) -> int:
    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    print(import_weights(settings))
    return 0


def import_weights(settings: Settings) -> str:
    """Convert, write, and say what was done."""
    import torch

    from backbones import create_backbone
    from vertebra.build.foreign_weights import convert
    from vertebra.build.weights import local_file
    from vertebra.engine.weights import load_weights, save_weights
    from vertebra.ground.errors import RecipeError

    path = local_file(settings.file)
    stem = f"{path.stem}_{settings.backbone.replace(':', '_').replace('/', '_')}.safetensors"
    output = settings.output or Path(stem)
    if output.resolve() == path.resolve() or output.suffix != ".safetensors":
        raise RecipeError(f"--output {output}", "give another file, ending in .safetensors")
    state, origin = load_weights(path)
    if origin:
        raise RecipeError(f"{path} says already where it comes from: give it as --weights itself")
    with torch.device("meta"):
        network = create_backbone(settings.backbone)
    if settings.stride_in and not network.stride_in:
        raise RecipeError(f"--stride-in is of bottlenecks, and {network.name} has none: leave it out")
    answers = ("channels", "stride_in", "mean", "std")
    given = {name: value for name in answers if (value := getattr(settings, name)) is not None}
    state, facts = convert(state, network, path, form=settings.form, by_order=settings.by_order, given=given)
    source = settings.source or (path.name if path == settings.file else str(settings.file))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    facts["by_others"] |= {"licence": settings.licence, "source": source, "sha256": sha256}
    if settings.trained_on is not None:
        facts["training_data"] = {"name": settings.trained_on}
    save_weights(output, state, facts)
    return summary(facts, output)


def summary(facts: dict[str, Any], output: Path) -> str:
    """Return what was made of the file, and how it is used."""
    from vertebra.ground.formats import first_few

    net, others = facts["backbone"], facts["by_others"]
    mean, std = (" ".join(f"{value:g}" for value in net[name]) for name in ("pixel_mean", "pixel_std"))
    turned = ", its BGR turned round" if others["channels"] == "bgr" else ""
    stride = f", the stride in the {net['stride_in']} convolutions" if net["stride_in"] else ""
    flags = f" --stride-in {net['stride_in']}" if net["stride_in"] == "1x1" else ""
    lines = [
        f"{others['file']}: {net['name']}, {others['classifier']} (names: {others['names']})",
        f"pixels: RGB{turned}, mean {mean}, deviation {std}{stride}",
        f"left out: {first_few(others['left_out'])}" if others["left_out"] else "",
        f"{output}: weights by others, licence {others['licence']}",
        f"to use it: --backbone {net['name']}{flags} --weights {output}",
    ]
    return "\n".join(filter(None, lines))
