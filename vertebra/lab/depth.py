"""From a study's nets to its trainings: every net with every seed, under one recipe (He et al. 2015, section 4)."""

from __future__ import annotations

from typing import Any

import torch

from backbones import BackboneError
from vertebra.build.backbone import build_backbone
from vertebra.data.datasets.shards import is_url
from vertebra.ground.errors import RecipeError
from vertebra.lab.training import Training, common_flags, seeded, steps_of
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import BackboneRecipe, flag_of, protocol_fields
from vertebra.recipes.schema_study import SET_BY_STUDY, WARM_DEPTH, WARM_START, DepthRecipe, Net

EVALUATIONS = 40  # of a training whose recipe names no period: the points of its curve


def plan(study: DepthRecipe, overrides: tuple[str, ...]) -> list[Training]:
    """Plan every net with every seed, seed by seed, so that a study that is stopped early has compared something.

    overrides: flags for every training. Raises RecipeError for a wrong command line, and where two names are one net
    under one recipe.
    """
    for argument in overrides:
        if argument.split("=")[0] in SET_BY_STUDY:
            raise RecipeError(f"{argument.split('=')[0]} is the study's own flag; write it before the --")
    if study.data is None:
        raise RecipeError("--data is missing: the directory of the data set")
    if not study.data.is_dir() and not is_url(study.data):
        hint = "tools/prepare_data.py fetches or draws data sets"
        raise RecipeError(f"--data {study.data}", "is not a directory", hint)
    firsts = [_training(study, net, overrides) for net in study.all_nets()]
    seen: dict[str, Training] = {}
    for net, first in zip(study.all_nets(), firsts):
        assert isinstance(first.recipe, BackboneRecipe)
        facts = repr((identity_of(net, first.recipe), protocol_fields(first.recipe)))
        if facts in seen:
            raise RecipeError(f"{seen[facts].backbone}_s0 and {first.backbone}_s0 are one net; name it once")
        seen[facts] = first
    seeds = range(study.seeds)
    return [seeded(first, seed, study.output / f"{first.backbone}_s{seed}") for seed in seeds for first in firsts]


def _training(study: DepthRecipe, net: Net, overrides: tuple[str, ...]) -> Training:
    """Plan the net's training, still without its seed and its directory."""
    options = dict(net.options)
    is_cifar = net.backbone.startswith("cifar_")
    config = options.pop("config", study.config or ("cifar10/paper.yaml" if is_cifar else "imagenet/paper.yaml"))
    flags = (
        *("--config", config, "--backbone", net.backbone, "--data", str(study.data), *common_flags(study)),
        *(part for name, value in options.items() for part in (flag_of(name), value)),
        *overrides,
    )
    recipe = parse_recipe(BackboneRecipe, list(flags))
    iterations = steps_of(recipe.model_copy(update={"eval_period": recipe.eval_period or 1}))
    flags += _warm_start(net, recipe, overrides)
    if recipe.eval_period is None:
        flags += ("--eval-period", str(max(1, iterations // EVALUATIONS)))
    recipe = parse_recipe(BackboneRecipe, list(flags))
    return Training("train-backbone", net.backbone, net.directory, "", 0, study.output, flags, recipe, iterations)


def identity_of(net: Net, recipe: BackboneRecipe) -> dict[str, Any]:
    """Return what the net is. Raises RecipeError where it cannot be built, or lacks what its options ask for."""
    try:
        with torch.device("meta"):
            identity = build_backbone(recipe, num_classes=10).identity()
    except BackboneError as error:
        raise RecipeError(str(error)) from None
    for option in ("shortcut", "stride_in"):
        asked = dict(net.options).get(option)
        if asked not in (None, identity[option]):
            has = f"always has {identity[option]}" if identity[option] else "has none"
            raise RecipeError(f"{net.backbone}:{option}={asked}: this net {has}; leave the option out")
    return identity


def _warm_start(net: Net, recipe: BackboneRecipe, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """CIFAR nets of 110 layers and more begin at a tenth of the rate, as the paper's, unless the recipe says how."""
    depth = "".join(filter(str.isdigit, net.backbone)) if net.backbone.startswith("cifar_") else ""
    solver = recipe.solver
    is_given = solver.warmup_until_error or solver.warmup_epochs or any("warmup" in argument for argument in overrides)
    if not depth or int(depth) < WARM_DEPTH or is_given:
        return ()
    return tuple(part for name, value in WARM_START.items() for part in (flag_of(name), value))
