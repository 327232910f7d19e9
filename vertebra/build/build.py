"""From a recipe to parts: what every training needs, and the classifier's. Detectors: `vertebra.build.build_detection`.

These two modules alone read recipes and know all rooms.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from backbones import Backbone, BackboneError, create_backbone
from backbones.blocks import recompute_blocks
from backbones.chain import PIXEL_MEAN
from backbones.classifier import Classifier
from backbones.vgg import shallow_layers
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.classification import classification_test_loader, classification_train_loader
from vertebra.data.loading.resident import (
    ResidentImages,
    is_small,
    read_resident,
    resident_test_loader,
    resident_train_loader,
)
from vertebra.data.loading.sampling import Share, evenly
from vertebra.data.transforms.classification_views import ClassificationTransform, Growth, Mixing
from vertebra.data.transforms.pixels import pixel_changes
from vertebra.engine import precision as precisions
from vertebra.engine.distributed import World
from vertebra.engine.logs import progress
from vertebra.engine.optim import OPTIMIZERS
from vertebra.engine.schedule import Schedule, create_schedule
from vertebra.engine.weights import check_provenance, load_into, load_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import BackboneRecipe, ClassificationInput, RunRecipe, Solver, follows_evaluations
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe

logger = logging.getLogger(__name__)


def iterations_of(recipe: BackboneRecipe | DetectionRecipe | LocalisationRecipe, images: int) -> int:
    """Steps of the training: `iterations`, or `epochs` over that many images, rounded up.

    Raises RecipeError where neither is given, or where the rate would wait for evaluations that nobody asked for.
    """
    if follows_evaluations(recipe) and recipe.eval_period is None:
        raise RecipeError("--solver.schedule plateau follows the evaluations: give --eval-period as well")
    solver = recipe.solver
    if solver.iterations is not None:
        return solver.iterations
    if solver.epochs is None:
        raise RecipeError("the length of the training is missing: give --solver.iterations or --solver.epochs")
    return max(1, -(-int(solver.epochs * images) // solver.batch_size))


def describe_rate(solver: Solver) -> str | None:
    """A sentence on the learning rate where the batch is another one than the rate was written for."""
    if solver.lr_batch is None or solver.lr_batch == solver.batch_size:
        return None
    return (
        f"batch {solver.batch_size} instead of {solver.lr_batch}: learning rate {solver.lr:g} x "
        f"{solver.batch_size}/{solver.lr_batch} = {solver.rate():g} (linear scaling; --solver.lr-batch "
        f"{solver.batch_size} takes {solver.lr:g} as it is)"
    )


def loop_settings(recipe: BackboneRecipe | DetectionRecipe | LocalisationRecipe) -> dict[str, Any]:
    """What the training loop is told of a recipe as it stands there."""
    return {
        "precision": recipe.precision,
        "accumulate": recipe.solver.accumulate,
        "grad_clip": recipe.solver.grad_clip,
        "eval_period": recipe.eval_period,
        "checkpoint_period": recipe.checkpoint_period,
        "log_period": recipe.log_period,
    }


def build_optimizer(solver: Solver, model: nn.Module) -> Optimizer:
    """The optimiser over all trained parameters of `model`."""
    options: dict[str, Any] = {"lr": solver.rate(), "weight_decay": solver.weight_decay}
    options |= {"decay_norms": solver.decay_norms, "decay_biases": solver.decay_norms}
    if solver.optimizer == "sgd":
        options |= {"momentum": solver.momentum, "nesterov": solver.nesterov}
    make: Any = OPTIMIZERS[solver.optimizer]
    return make(model, **options)


def build_schedule(solver: Solver, iterations: int, *, figure: str, images: int = 0) -> Schedule:
    """The learning rate's factor as a function of the step.

    figure: what a plateau looks at. images: in the training set, for a warm-up in epochs.
    Raises RecipeError for a warm-up that follows what this training does not tell.
    """
    if solver.warmup_until_error is not None and figure != "top1":
        raise RecipeError("--solver.warmup-until-error follows a classifier's error, which a detector has not")
    warmup = solver.warmup_iterations
    if solver.warmup_epochs is not None:
        warmup = round(solver.warmup_epochs * images / solver.batch_size)
    return create_schedule(
        solver.schedule,
        iterations=iterations,
        milestones=[round(fraction * iterations) for fraction in solver.milestones],
        gamma=solver.gamma,
        figure=figure,
        patience=solver.patience,
        warmup_iterations=warmup,
        warmup_start=solver.warmup_factor,
        warmup_until_error=solver.warmup_until_error,
    )


def build_backbone(
    recipe: RunRecipe, num_classes: int, *, zero_init: bool = False, dilate_last: bool = False
) -> Backbone:
    """The recipe's network with random weights, drawn from torch's global generator.

    Raises RecipeError where there is no such network.
    """
    try:
        return create_backbone(
            recipe.backbone,
            num_classes=num_classes,
            width=recipe.width,
            shortcut=recipe.shortcut,
            stride_in=recipe.stride_in,
            zero_init_last=zero_init,
            dilate_last=dilate_last,
        )
    except BackboneError as error:
        raise RecipeError(str(error)) from None


def build_classifier(recipe: BackboneRecipe, num_classes: int) -> tuple[Classifier, dict[str, Any] | None]:
    """The network to train, and the provenance of what it starts from."""
    if recipe.weights is not None and recipe.shallow_weights is not None:
        raise RecipeError("--weights and --shallow-weights are two beginnings: give one of them")
    backbone = build_backbone(recipe, num_classes, zero_init=recipe.zero_init_residual)
    if recipe.zero_init_residual and recipe.weights is None and ":" in recipe.backbone:
        logger.warning("zero_init_residual is for our own networks: %s begins as its library has it", recipe.backbone)
    origin = None
    if recipe.weights is not None:
        origin = _start_from(backbone, recipe.weights)
    if recipe.shallow_weights is not None:
        origin = _start_from_shallow(backbone, recipe.shallow_weights)
    if recipe.checkpoint_activations:
        recompute_blocks(backbone)
    return Classifier(backbone, label_smoothing=recipe.label_smoothing), origin


def _start_from(backbone: Backbone, path: Path) -> dict[str, Any]:
    """Loads all but the classifier; the provenance of the file."""
    state, origin = load_weights(path)
    check_identity(origin, backbone, path)
    classifier = backbone.classifier_name
    load_into(backbone, state, path, allow_missing=(classifier,), ignore=(classifier,))
    there = state.get(f"{classifier}.weight")
    others = f" instead of {len(there)}" if there is not None and len(there) != backbone.num_classes else ""
    logger.info("weights of %s; the classifier starts anew: %d classes%s", path, backbone.num_classes, others)
    return origin


def _start_from_shallow(backbone: Backbone, path: Path) -> dict[str, Any]:
    """Loads a shallower VGG's outer layers (Simonyan & Zisserman 2014, §3.1); the provenance of its file."""
    state, origin = load_weights(path)
    taken, names = shallow_layers(backbone, state, origin=str(path))
    if "backbone" in origin:
        ours = backbone.identity()
        same = ("channel_order", "pixel_mean", "pixel_std", "width")
        check_provenance(origin["backbone"], {fact: ours[fact] for fact in same}, path)
    kept = tuple(name for name in backbone.state_dict() if name not in taken)
    load_into(backbone, taken, path, allow_missing=kept)
    logger.info("%s starts from %s of %s; the other layers from random weights", backbone.name, names, path)
    return {"source": f"first and last layers of {path.name}", **origin}


def check_identity(origin: dict[str, Any], backbone: Backbone, path: Path) -> None:
    """Refuse weights of another architecture, channel order, normalisation or stride placement."""
    if "backbone" in origin:
        expected = {name: value for name, value in backbone.identity().items() if name != "num_classes"}
        check_provenance(origin["backbone"], expected, path)


def check_classes(known: Sequence[str], origin: object, found: Sequence[str], place: object) -> None:
    """Raises ValueError unless `place` has exactly the classes, in their order, that `origin` (weights, data) knows."""
    if tuple(known) != tuple(found):
        only = sorted(set(known) ^ set(found))
        raise ValueError(
            f"{origin} and {place} have different classes: "
            + (f"{', '.join(only[:5])} are only in one of them" if only else "the same ones in another order")
        )


def open_classes(recipe: BackboneRecipe, split: str) -> ClassificationDataset:
    """Images and labels of "train" or "val", as the recipe names them; the former cut to the recipe's `limit`."""
    name = recipe.train_split if split == "train" else recipe.test_split
    dataset = open_classification(recipe.data_directory(), name)
    limited = split == "train" and recipe.limit is not None
    return dataset.subset(evenly(len(dataset), recipe.limit)) if limited else dataset


def share_of_batch(solver: Solver, world: World) -> int:
    """Images of a step that are in memory at once, over all processes. Raises RecipeError where they do not divide."""
    parts = solver.accumulate * world.size
    if solver.batch_size % parts:
        raise RecipeError(
            f"solver.batch_size {solver.batch_size} does not divide by {world.size} processes x "
            f"{solver.accumulate} accumulated parts = {parts}"
        )
    return solver.batch_size // solver.accumulate


def training_share(recipe: RunRecipe, solver: Solver, world: World, *, start: int, iterations: int) -> Share:
    """This process's share of the steps from `start` on."""
    return Share(
        batch=share_of_batch(solver, world),
        rank=world.rank,
        world_size=world.size,
        seed=recipe.seed,
        workers=recipe.workers,
        start=start * solver.accumulate,
        stop=iterations * solver.accumulate,
    )


def class_train_loader(
    recipe: BackboneRecipe,
    dataset: ClassificationDataset,
    world: World,
    *,
    start: int,
    iterations: int,
    mean_rgb: Sequence[float] = PIXEL_MEAN,
) -> Any:
    """Batches of the steps from `start` on. mean_rgb: the colour 0..255 that the network takes for zero."""
    view = recipe.input
    mixing = Mixing(recipe.mixup, recipe.cutmix)
    share = training_share(recipe, recipe.solver, world, start=start, iterations=iterations)
    if is_resident(recipe, dataset):
        resize = view.size if view.augment == "pad" else view.resize
        images = resident_images(dataset, view.size, resize, world.device)
        return resident_train_loader(images, share, augment=view.augment, flip=view.flip, mixing=mixing)
    transform = ClassificationTransform(
        size=view.size,
        shorter=view.resize,
        augment=view.augment,
        min_scale=view.min_scale,
        flip=view.flip,
        pixel_changes=pixel_changes(
            policy=view.policy,
            policy_magnitude=view.policy_magnitude,
            colour=view.colour,
            erase=view.erase,
            erase_rgb=mean_rgb,
        ),
    )
    growth = None
    if view.start_size is not None:
        growth = Growth(view.start_size, view.size, view.grow_until, iterations * recipe.solver.accumulate)
    return classification_train_loader(
        dataset, transform, share, repeats=view.repeats, growth=growth, mixing=mixing, cache_mb=view.cache_mb
    )


def class_test_loader(
    recipe: BackboneRecipe,
    dataset: ClassificationDataset,
    world: World,
    *,
    limit: int | None = None,
    replace_bad: bool = False,
) -> Any:
    """Every image once, one centre crop. replace_bad: others take the place of images that cannot be used."""
    view = recipe.input
    size = view.test_size or view.size
    share = Share(
        batch=min(recipe.solver.batch_size, 64),
        rank=world.rank,
        world_size=world.size,
        seed=recipe.seed,
        workers=recipe.workers,
        limit=limit,
    )
    if is_resident(recipe, dataset):
        images = resident_images(dataset, size, view.resize, world.device)
        return resident_test_loader(images, share, replace_bad=replace_bad)
    transform = ClassificationTransform(size=size, shorter=view.resize)
    return classification_test_loader(dataset, transform, share, replace_bad=replace_bad)


def check_fast_path(recipe: BackboneRecipe) -> None:
    """Raises RecipeError where the recipe wants of the device, or of the compiler, more than they can do."""
    beyond = _beyond_resident(recipe.input)
    if recipe.input.resident == "yes" and beyond:
        raise RecipeError(
            f"input.resident yes pads, crops and mirrors on the device, and cannot do {', '.join(beyond)}; "
            "leave that out, or give --input.resident no"
        )
    if recipe.checkpoint_activations and recipe.compile:
        raise RecipeError("--compile and --checkpoint-activations do not go together: leave one of them out")


def is_resident(recipe: BackboneRecipe, dataset: ClassificationDataset) -> bool:
    """Whether the data set lies on the device and is augmented there."""
    view = recipe.input
    if view.resident == "auto":
        return not _beyond_resident(view) and is_small(dataset, max(view.size, view.test_size or 0))
    return view.resident == "yes"


def _beyond_resident(view: ClassificationInput) -> list[str]:
    """What of a view is done by workers only."""
    views = {
        "augment": view.augment not in ("pad", "none"),
        "colour": view.colour != "none",
        "policy": view.policy != "none",
        "erase": view.erase > 0,
        "repeats": view.repeats > 1,
        "start_size": view.start_size is not None,
    }
    return [f"input.{name} {getattr(view, name)}" for name, is_beyond in views.items() if is_beyond]


@functools.lru_cache(maxsize=4)  # evaluations come back to the same images
def resident_images(dataset: ClassificationDataset, size: int, resize: int, device: torch.device) -> ResidentImages:
    """All images of the set on the device."""
    shown = functools.partial(progress, description=f"read {dataset.split} images")
    return read_resident(dataset, size=size, resize=resize, device=device, progress=shown)


def autocast_of(device: torch.device, precision: str) -> Callable[[], Any]:
    """A maker of autocast contexts, for evaluation."""
    return lambda: precisions.autocast(device, precision)
