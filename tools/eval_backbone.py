"""Evaluate classifier weights: top-1 and top-5, with Wilson's 95 % interval.

python tools/eval_backbone.py --weights runs/backbone_r18_imagenette_0/model.safetensors --data IMAGENETTE
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from common import run_tool

from configs.command_line import RecipeError, validated
from configs.schema import BackboneRecipe, ClassificationInput, Solver

if TYPE_CHECKING:
    from engine.distributed import World


@dataclass(frozen=True)
class Settings:
    """What to evaluate, on which images, and how."""

    weights: Annotated[tuple[Path, ...], tyro.conf.arg(help="Files written by train_backbone.py; each is evaluated.")]
    data: Annotated[Path, tyro.conf.arg(help="Directory with the classes' folders, or CIFAR-10.")]
    split: Annotated[str, tyro.conf.arg(help="val, test or train.")] = "val"
    views: Annotated[Literal["1crop"], tyro.conf.arg(help="1crop: the centre crop of the training recipe's sizes.")] = (
        "1crop"
    )
    size: Annotated[int | None, tyro.conf.arg(help="Side of the view, pixels; default: as in training.")] = None
    resize: Annotated[int | None, tyro.conf.arg(help="Shorter side before the crop; default: as in training.")] = None
    batch_size: Annotated[int, tyro.conf.arg(help="Images at a time, at most 64.")] = 64
    workers: Annotated[int, tyro.conf.arg(help="Loader processes.")] = 2
    device: Annotated[Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="auto: the GPU if there is one.")] = "auto"
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], tyro.conf.arg(help="auto: as in training.")] = "auto"
    json: Annotated[Path | None, tyro.conf.arg(help="Write the figures to this file too.")] = None
    results: list[dict[str, Any]] = field(default_factory=list, init=False)


def main() -> int:
    settings = tyro.cli(Settings, description=__doc__)
    if not settings.weights:
        raise RecipeError("--weights is missing: one or more files of weights")

    from engine import distributed

    with distributed.started(settings.device) as world:
        for path in settings.weights:
            evaluate(settings, path, world)
        if settings.json is not None and world.is_main:
            from engine.files import write_json

            write_json(settings.json, settings.results)
    return 0


def evaluate(settings: Settings, path: Path, world: World) -> None:
    """Evaluate one file and print its line."""
    from configs import build
    from data import open_classification
    from engine import precision
    from engine.logs import progress
    from engine.weights import load_into, load_weights
    from evaluation.topk import evaluate_topk

    state, origin = load_weights(path)
    identity = origin.get("backbone")
    if not identity:
        raise ValueError(f"{path} does not say which backbone it is; weights of train_backbone.py do")
    dataset = open_classification(settings.data, settings.split)
    known = tuple(origin.get("class_names", dataset.class_names))
    if known != dataset.class_names:
        only = sorted(set(known) ^ set(dataset.class_names))[:5]
        raise ValueError(
            f"{path} was trained on other classes than {settings.data} has"
            + (f": {', '.join(only)} are only in one of them" if only else ", or in another order")
        )
    trained = origin.get("protocol", {})
    view = {name: trained[f"input.{name}"] for name in ClassificationInput.model_fields if f"input.{name}" in trained}
    view |= {name: value for name in ("size", "resize") if (value := getattr(settings, name)) is not None}
    kind = trained.get("precision", "auto") if settings.precision == "auto" else settings.precision
    recipe = BackboneRecipe(
        backbone=identity["name"],
        width=identity.get("width") or 1.0,
        shortcut=identity.get("shortcut") or "B",
        stride_in=identity.get("stride_in") or "3x3",
        data=settings.data,
        workers=settings.workers,
        input=validated(ClassificationInput, view, "--size and --resize"),
        solver=Solver(batch_size=settings.batch_size),
    )
    backbone = build.build_backbone(recipe, int(identity["num_classes"]))
    build.check_identity(origin, backbone, path)
    load_into(backbone, state, path)
    backbone.to(world.device)
    topk = evaluate_topk(
        backbone,
        progress(build.class_test_loader(recipe, dataset, world), description="evaluate"),
        device=world.device,
        autocast=build.autocast_of(world.device, precision.resolve(kind, world.device)),
        image_order=range(len(dataset)),
    )
    settings.results.append(
        {"weights": str(path), "backbone": identity["name"], "view": settings.views, **topk.to_dict()}
    )
    if world.is_main:
        low, high = topk.top1_interval
        print(
            f"{path}: {identity['name']}, {settings.views}, {topk.images} images: top-1 {topk.top1:.2f} % "
            f"[{low:.2f}, {high:.2f}], top-5 {topk.top5:.2f} %, top-1 error {topk.error1:.2f} %"
        )


if __name__ == "__main__":
    run_tool(main)
