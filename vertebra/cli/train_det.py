"""Train Faster R-CNN or Mask R-CNN on any backbone, and evaluate it.

python tools/train_det.py --backbone r101 --dataset voc0712 --data VOCdevkit --weights FILE --gpus 8

python tools/train_det.py --backbone r50 --dataset coco --data COCO --weights torchvision

python tools/train_det.py --config detection/coco_mask_fpn_1x.yaml --backbone r50 --data COCO --weights torchvision

python tools/train_det.py --dataset json --train-source json:A.json --test-source json:B.json --data IMAGES ...

The data set chooses the recipe unless --config does. Large JSON files are parsed once a machine and kept as arrays in
~/.cache/vertebra (XDG_CACHE_HOME, or VERTEBRA_CACHE=DIR; empty: parsed each time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe, take_flag
from vertebra.recipes.schema import DEFAULT_RECIPES
from vertebra.recipes.schema_detection import DetectionRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

Settings = DetectionRecipe


def main(arguments: list[str]) -> int:
    dataset, _ = take_flag(arguments, "--dataset")
    default = DEFAULT_RECIPES.get(dataset or "voc07", DEFAULT_RECIPES["voc07"])
    recipe = parse_recipe(DetectionRecipe, arguments, description=__doc__ or "", default=default)
    recipe.require_inputs()

    def train(world: World) -> int:
        from vertebra.build import run
        from vertebra.build.detector_run import DetectorTraining

        return run.train(DetectorTraining(recipe, world))

    return in_processes(recipe.gpus, recipe.device, train)
