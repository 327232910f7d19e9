"""Train a semantic segmenter on any backbone, and evaluate it: mean IoU and its relatives.

python tools/train_seg.py --backbone r101 --dataset voc12aug --data VOCdevkit --weights FILE --gpus 8

python tools/train_seg.py --config segmentation/voc12_fcn.yaml --backbone vgg16 --data VOCdevkit --weights torchvision

python tools/train_seg.py --dataset maps --train-source maps:DIR/train --test-source maps:DIR/val --data DIR ...

maps: is anybody's: DIR/images/SPLIT and DIR/masks/SPLIT, PNGs whose pixels are a class's place in DIR/classes.txt; 255
is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe, take_flag
from vertebra.recipes.schema_segmentation import SEGMENTATION_RECIPES, SegmentationRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

Settings = SegmentationRecipe


def main(arguments: list[str]) -> int:
    dataset, _ = take_flag(arguments, "--dataset")
    default = SEGMENTATION_RECIPES.get(dataset or "voc12aug", SEGMENTATION_RECIPES["voc12aug"])
    recipe = parse_recipe(SegmentationRecipe, arguments, description=__doc__ or "", default=default)
    recipe.require_inputs()

    def train(world: World) -> int:
        from vertebra.build import run
        from vertebra.build.segmenter_run import SegmenterTraining

        return run.train(SegmenterTraining(recipe, world))

    return in_processes(recipe.gpus, recipe.device, train)
