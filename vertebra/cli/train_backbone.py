"""Train a backbone as a classifier, on a folder of classes (ImageNet's layout), CIFAR-10 or the sample set.

python tools/train_backbone.py --backbone r50 --data IMAGENET --gpus 8

python tools/train_backbone.py --backbone r18 --config configs/sample/objects.yaml --data SAMPLE/objects

The run directory ends with model.safetensors, which train_det.py takes as --weights: the weights of the last step, or
with --ema their moving average (model_raw.safetensors then holds the former). With --eval-period the best evaluated
ones lie beside them as model_best.safetensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe, take_flag
from vertebra.recipes.schema import BackboneRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

# The recipe of a family of networks when no --config names another: by the beginning of the name.
DEFAULT_RECIPES = {"cifar_": "cifar10/paper.yaml", "vgg": "imagenet/vgg.yaml", "": "imagenet/standard.yaml"}

Settings = BackboneRecipe


def main(arguments: list[str]) -> int:
    backbone, _ = take_flag(arguments, "--backbone")
    default = next(name for family, name in DEFAULT_RECIPES.items() if (backbone or "").startswith(family))
    recipe = parse_recipe(BackboneRecipe, arguments, description=__doc__ or "", default=default)
    recipe.require_inputs()

    def train(world: World) -> int:
        from vertebra.build import run
        from vertebra.build.classifier_run import ClassifierTraining

        return run.train(ClassifierTraining(recipe, world))

    return in_processes(recipe.gpus, recipe.device, train)
