"""Train a per-class RPN to localise each image's object (He et al. 2015, appendix C), and score it as ILSVRC does.

python tools/train_loc.py --backbone r101 --data ILSVRC --weights FILE --classifier FILE --gpus 8

python tools/train_loc.py --config localisation/sample.yaml --data LOC --weights FILE --classifier FILE

--data holds ILSVRC's Data, Annotations and ImageSets, or {train,val}/<class>/ with an XML file beside each image.
--weights is what the localizer starts from, --classifier what predicts the classes at test (both of train_backbone.py);
without the latter, boxes are scored with the true class alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema_localisation import LocalisationRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

DEFAULT_RECIPE = "localisation/imagenet_loc.yaml"

Settings = LocalisationRecipe


def main(arguments: list[str]) -> int:
    recipe = parse_recipe(LocalisationRecipe, arguments, description=__doc__ or "", default=DEFAULT_RECIPE)
    recipe.require_inputs()

    def train(world: World) -> int:
        from vertebra.build import run
        from vertebra.build.localizer_run import LocalizerTraining

        return run.train(LocalizerTraining(recipe, world))

    return in_processes(recipe.gpus, recipe.device, train)
