"""Test classifier weights: top-1 and top-5 error with Wilson's 95 % interval, by one view of an image or many.

python tools/eval_backbone.py --weights runs/backbone_r18_imagenette_0/model.safetensors --data IMAGENETTE

python tools/eval_backbone.py --weights A.safetensors B.safetensors --data IMAGENET --views 10crop multiscale --ensemble

python tools/eval_backbone.py --weights r50=torchvision r50=THEIRS.pth --data IMAGENET

Views: 1crop, the centre crop of the training recipe's sizes; 10crop, corners, centre and their mirror images; dense,
the network slid over the whole image with its shorter side at --resize; multiscale, dense at the paper's five sizes.
Averaged are posteriors (softmax); within one whole image, the class map before the softmax.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from vertebra.cli.common import JsonFile, in_processes, make_room
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Count, OnDevices, refuse

if TYPE_CHECKING:
    from vertebra.data.datasets.records import ClassificationDataset
    from vertebra.engine.distributed import World
    from vertebra.evaluation.predict.classes import ClassPredictions

Kind = Literal["1crop", "10crop", "dense", "multiscale"]
KINDS = get_args(Kind)


class Settings(OnDevices):
    """What to test, on which images, and how."""

    weights: tuple[str, ...] = Field(
        description="Files written by train_backbone.py or import_weights.py, hf:USER/NAME, or BACKBONE=FILE for those "
        "of others (r50=torchvision: from there); each is tested."
    )
    data: Path = Field(description="Directory with the classes' folders, or CIFAR-10.")
    split: str = Field("val", description="val, test or train.")
    unlabelled: bool = Field(
        False, description="The images lie in --data itself (or its SPLIT) without classes: predict only."
    )
    views: tuple[Kind, ...] = Field(("1crop",), description="One or several, all from one reading of the images.")
    flip: Literal["paper", "yes", "no"] = Field(
        "paper",
        description="Average with the mirrored image; --flip and --no-flip say yes and no. paper: dense and multiscale "
        "do, 1crop does not. 10crop has mirror images by its definition.",
    )
    scales: tuple[Count, ...] = Field(
        (), description="Shorter sides of multiscale, pixels; none: 224 256 384 480 640, times size / 224."
    )
    ensemble: bool = Field(False, description="Test the average of all weights' posteriors too.")
    size: int | None = Field(None, ge=1, description="Side of the crop, pixels; default: as in training.")
    resize: int | None = Field(None, ge=1, description="Shorter side before the crop; default: as in training.")
    batch_size: int = Field(64, ge=1, description="Crops in a forward; whole images: as many as have their pixels.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: as in training.")
    json_file: JsonFile = Field(None, description="Write the figures to this file too.")
    predictions: Path | None = Field(
        None, description="Write each image's five best classes to this .jsonl or .csv file."
    )
    ilsvrc: Path | None = Field(
        None, description="Write ILSVRC's submission: a line an image by name, the ids of five classes, best first."
    )
    synsets: Path | None = Field(
        None, description="Ids for --ilsvrc, lines `n02119789 1`; none: 1-based places in the sorted class names."
    )

    def check(self) -> None:
        to_file = self.predictions is not None or self.ilsvrc is not None
        single = len(self.views) == 1 and (len(self.weights) == 1 or self.ensemble)
        refuse(
            (not self.weights, "--weights is missing: one or more files of weights"),
            ("torchvision" in self.weights, "--weights torchvision: of which network? write r50=torchvision"),
            (not self.views, f"--views is missing: one or more of {', '.join(KINDS)}"),
            (len(set(self.views)) < len(self.views), "--views names a view twice"),
            (self.scales and "multiscale" not in self.views, "--scales are those of --views multiscale: add it"),
            (
                self.flip == "no" and "10crop" in self.views,
                "--no-flip does not go with 10crop, five of whose crops are mirror images",
            ),
            (self.ensemble and len(self.weights) < 2, "--ensemble averages several networks: give more --weights"),
            (self.synsets and not self.ilsvrc, "--synsets gives the ids of --ilsvrc: name that file, too"),
            (
                self.unlabelled and not to_file,
                "--unlabelled images have no figures: say where their classes go with --predictions or --ilsvrc",
            ),
            (
                to_file and not single,
                "--predictions and --ilsvrc hold one result: give one --views, and one --weights or --ensemble",
            ),
            (
                self.predictions is not None and self.predictions.suffix not in (".jsonl", ".csv"),
                f"--predictions {self.predictions} is to end in .jsonl or .csv",
            ),
        )


def main(arguments: list[str]) -> int:
    from vertebra.build import hub
    from vertebra.build.results import named_backbone
    from vertebra.ground.files import require_weights

    settings = parse_recipe(Settings, flip_alone(arguments), description=__doc__ or "")
    files = {"--json": settings.json_file, "--predictions": settings.predictions, "--ilsvrc": settings.ilsvrc}
    for flag, path in files.items():
        make_room(flag, path)
    for _, weights in map(named_backbone, settings.weights):
        if weights != "torchvision":
            require_weights(hub.local(weights))
    return in_processes(settings.gpus, settings.device, lambda world: evaluate(settings, world))


def flip_alone(arguments: list[str]) -> list[str]:
    """Write `--flip` and `--no-flip` without a value out."""
    written = []
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        if argument == "--no-flip":
            written += ["--flip", "no"]
        elif argument == "--flip" and following.startswith("-"):
            written += ["--flip", "yes"]
        else:
            written.append(argument)
    return written


def evaluate(settings: Settings, world: World) -> int:
    """Test all weights by all views in one pass over the images; print and write the results."""
    import torch

    from vertebra.build.views import common_classes, load_net, plan_views
    from vertebra.data.datasets.imagenet_classes import among_imagenets, imagenet_wnids
    from vertebra.data.loading.sampling import Share
    from vertebra.data.loading.views import view_loader
    from vertebra.engine import provenance
    from vertebra.engine.device import loader_workers
    from vertebra.engine.logs import progress, setup_logging
    from vertebra.evaluation.metrics.class_results import read_synsets
    from vertebra.evaluation.predict.classes import predict_scores
    from vertebra.evaluation.predict.ensembles import Ensemble, scorer

    setup_logging(is_main=world.is_main)
    dataset = open_images(settings)
    nets = [
        load_net(path, world.device, size=settings.size, resize=settings.resize, precision=settings.precision)
        for path in settings.weights
    ]
    there = len(dataset.class_names)
    if all(net.backbone.num_classes == len(imagenet_wnids()) for net in nets):
        dataset = among_imagenets(dataset)
    classes = common_classes(nets, dataset.class_names, settings.data)
    if there < len(dataset.class_names) and world.is_main:
        print(f"{settings.data} has {there} of ImageNet's 1,000 classes: the networks may answer with any of them")
    ids = read_synsets(settings.synsets, classes)
    plan = plan_views(
        nets,
        settings.views,
        world.device,
        flip={"paper": None, "yes": True, "no": False}[settings.flip],
        scales=settings.scales,
        ensemble=settings.ensemble,
        batch=settings.batch_size,
    )
    if plan.reads_whole_images:
        torch.backends.cudnn.benchmark = False  # images of many sizes, each of which it would measure anew
    workers = loader_workers(settings.workers)
    share = Share(batch=settings.batch_size, rank=world.rank, world_size=world.size, workers=workers)
    loader = view_loader(dataset, plan.sources, share)
    started, seconds = time.perf_counter(), [0.0] * len(plan.results)
    found = predict_scores(
        scorer(plan.results),
        len(plan.results),
        plan.networks,
        progress(loader, description="evaluate") if world.is_main else loader,
        device=world.device,
        image_order=range(len(dataset)),
        seconds=seconds,
    )
    elapsed_s = time.perf_counter() - started
    for place, result in enumerate(plan.results):
        if isinstance(result, Ensemble):
            seconds[place] += sum(seconds[member] for member in result.members)
    images = sum(len(request.indices) for request in loader.requests)
    rates = world.gather_objects([images / spent if spent else 0.0 for spent in seconds])
    if world.is_main:
        data = {"name": dataset.root.resolve().name, "split": dataset.split, "fingerprint": dataset.fingerprint()}
        made = {"data": data, "device": str(world.device), "processes": world.size, **provenance.describe()}
        facts = [{**fact, "images_per_s": sum(rate)} for fact, rate in zip(plan.facts, zip(*rates))]
        report(settings, found, facts, made, elapsed_s, dataset, classes, ids)
    return 0


def open_images(settings: Settings) -> ClassificationDataset:
    """Open the data set; where labels are missing altogether, the error says how to do without them."""
    from vertebra.data.datasets.catalog import open_classification, open_unlabelled
    from vertebra.ground.errors import DataError

    if settings.unlabelled:
        return open_unlabelled(settings.data, settings.split)
    try:
        return open_classification(settings.data, settings.split)
    except DataError as error:
        try:
            loose = open_unlabelled(settings.data, settings.split)
        except DataError:
            raise error from None
        raise DataError(
            f"{error} ({loose.root} holds {len(loose)} images without classes: they cannot be scored, and "
            "--unlabelled predicts their classes)"
        ) from None


def report(
    settings: Settings,
    found: list[ClassPredictions],
    facts: list[dict[str, Any]],
    made: dict[str, Any],
    elapsed_s: float,
    dataset: ClassificationDataset,
    classes: tuple[str, ...],
    ids: list[int],
) -> None:
    """Write the files, then print."""
    from vertebra.evaluation.metrics.class_results import ilsvrc_text, predictions_text, results_table
    from vertebra.evaluation.metrics.topk import topk_figures
    from vertebra.ground.files import write_json, write_text

    results = [
        {**fact, "images": len(dataset), **({} if settings.unlabelled else topk_figures(one).to_dict())}
        for fact, one in zip(facts, found)
    ]
    texts = []
    if settings.predictions is not None:
        text = predictions_text(found[-1], dataset.file_names, classes, settings.predictions.suffix)
        texts.append((settings.predictions, text))
    if settings.ilsvrc is not None:
        texts.append((settings.ilsvrc, ilsvrc_text(found[-1], ids, dataset.file_names)))
    for path, text in texts:
        write_text(path, text)
    if settings.json_file is not None:
        write_json(settings.json_file, [{**result, "made": made} for result in results])
    if len(results) > 1 or settings.unlabelled:
        print(results_table(results))
    else:
        print(sentence(results[0]))
    print(f"{len(dataset)} images, read and tested in {elapsed_s:.1f} s ({len(dataset) / elapsed_s:.1f} images/s)")
    if settings.ilsvrc is not None:
        order = f"ids of {settings.synsets}" if settings.synsets else "1-based places in the sorted class names"
        print(f"{settings.ilsvrc}: {order}, images in the order of their names")


def sentence(result: dict[str, Any]) -> str:
    """Return a single result in words."""
    spans = [f"[{low:.2f}, {high:.2f}]" for low, high in (result["top1_interval"], result["top5_interval"])]
    sides = " ".join(map(str, result["sides"]))
    return (
        f"{result['weights']}: {result['backbone']}, {result['view']}{', mirrored too' if result['flip'] else ''} "
        f"(shorter side {sides} px, trained for {result['size']}), {result['images']} images: "
        f"top-1 {result['top1']:.2f} % {spans[0]}, top-5 {result['top5']:.2f} % {spans[1]}, "
        f"top-1 error {result['error1']:.2f} %, top-5 error {result['error5']:.2f} %, "
        f"{result['images_per_s']:.1f} images/s"
    )
