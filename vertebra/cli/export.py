"""Export a trained classifier, detector or segmenter to a file that other runtimes read, and check what it finds.

python tools/export.py runs/det_r50_coco_0 --format onnx --size 480 640

python tools/export.py runs/backbone_r18_imagenette_0 --format openvino --batch dynamic

python tools/export.py --weights model.safetensors --format torchscript --images photos/ --output deployed/model.ts

python tools/export.py runs/det_r50_coco_0 --format detectron2

The last writes weights and a configuration of detectron2's, model.pth and model.yaml: Faster and Mask R-CNN on ResNets.

FILE.json beside it says what goes in and comes out. The check runs on pictures of the run's own test set, or --images;
a difference is exit status 1. eval_det.py, eval_backbone.py and eval_seg.py test the file itself: --weights FILE.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import AfterValidator, Field

from vertebra.build.export_formats import FORMATS, Format, format_of
from vertebra.cli.common import make_room, one_network
from vertebra.ground.errors import RecipeError, UserError
from vertebra.ground.formats import counted, did_you_mean
from vertebra.ground.table import Row, Table
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Count, Recipe, refuse

if TYPE_CHECKING:
    import numpy as np

    from vertebra.build.export import Exportable
    from vertebra.build.parity import Parity

MOST_SHOWN = 10  # differences
DETECTRON2 = "detectron2"  # weights and a configuration, for one canvas no more than for another
SUFFIXES = {**{name: form.suffix for name, form in FORMATS.items()}, DETECTRON2: ".pth"}


def _known(name: str) -> str:
    if name not in SUFFIXES:
        raise ValueError(f"there is no format {name}; {did_you_mean(name, SUFFIXES, 'the formats are')}")
    return name


class Settings(Recipe):
    """What to export, to what."""

    run: tyro.conf.Positional[Path | None] = Field(
        None, description="A run directory of train_backbone.py, train_det.py or train_seg.py."
    )
    weights: str | None = Field(
        None, description="Weights of one, instead of a run: a file, torchvision:NAME[=FILE], detectron2:FILE."
    )
    format: Annotated[str, AfterValidator(_known), tyro.conf.arg(metavar="{" + ",".join(SUFFIXES) + "}")] = Field(
        description="What to write."
    )
    output: Path | None = Field(
        None, description="The file; default: beside the weights, model with the format's ending."
    )
    size: tuple[Count, Count] | None = Field(
        None,
        description="Height and width of the canvas, pixels; default: a square with room for every picture at the "
        "recipe's test size, of a classifier its crop, of a segmenter the larger of its crop and 3/2 of its test side.",
    )
    batch: int | Literal["dynamic"] = Field(1, description="Images at a time, or dynamic: any number.")
    score: float | None = Field(None, ge=0, lt=1, description="Lowest score of a detector, instead of the recipe's.")
    images: tuple[str, ...] = Field((), description="Pictures for the check, instead of the run's test set.")
    checks: int = Field(8, ge=1, description="How many of them are checked.")
    rounds: int = Field(5, ge=1, description="Timed batches of the network and of the file, in turns.")

    def check(self) -> None:
        suffix = SUFFIXES[self.format]
        idle = [f"--{name}" for name in self.given("size", "batch", "score", "images", "checks", "rounds")]
        refuse(
            one_network(self),
            (
                self.weights is not None and format_of(self.weights),
                f"--weights {self.weights} is an exported file already: name what it was exported from",
            ),
            (
                self.output is not None and self.output.suffix != suffix,
                f"--output {self.output} is to end in {suffix}, as files of {self.format} do",
            ),
            (
                idle and self.format == DETECTRON2,
                f"{', '.join(idle)} has no effect with --format {DETECTRON2}: leave it out",
            ),
            (
                self.batch == "dynamic" and self.format in FORMATS and not FORMATS[self.format].any_batch,
                f"--batch dynamic: {self.format} takes a fixed number of images; give that",
            ),
            (
                self.batch != "dynamic" and self.batch < 1,
                f"--batch {self.batch}: give the number of images at a time, from 1 on, or dynamic",
            ),
            (self.size is not None and min(self.size) < 32, "--size is below 32 px, of which networks leave nothing"),
        )


def main(arguments: list[str]) -> int:
    from vertebra.build.results import require_detector, weights_file

    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    if settings.run is not None:
        weights_file(settings.run, tool="train_backbone.py, train_det.py or train_seg.py")
    else:
        require_detector(settings.weights or "")
    make_room("--output", settings.output)
    form = FORMATS.get(settings.format)
    if form is None:
        return export_weights(settings)
    form.require(f"--format {settings.format}", (*form.writes_with, *form.opens_with))
    return export(settings, form)


def export_weights(settings: Settings) -> int:
    """Write a detector's weights and configuration for detectron2, and print how they are used there."""
    from vertebra.build.detectron2_weights import save_detectron2
    from vertebra.build.results import weights_file
    from vertebra.build.trained_detector import read_detector

    trained = read_detector(settings.weights or str(weights_file(settings.run or Path(), tool="train_det.py")))
    path = settings.output or trained.path.with_name("model").with_suffix(SUFFIXES[DETECTRON2])
    identity = trained.facts.get("backbone", {})
    config = save_detectron2(path, trained.state, trained.recipe, len(trained.names), identity)
    print(f"weights: {path}\nconfiguration: {config} (cfg.merge_from_file of it, and cfg.MODEL.WEIGHTS {path})")
    return 0


def export(settings: Settings, form: Format) -> int:
    """Write the file and its JSON, check it, and print what was found."""
    from vertebra.build.artifact import open_artifact
    from vertebra.build.export import facts_file
    from vertebra.build.parity import check, latency
    from vertebra.engine.logs import setup_logging
    from vertebra.ground.files import write_json

    setup_logging()
    graph, folder, test_set = open_network(settings)
    pictures = read_pictures(settings, test_set)
    path = settings.output or folder / f"model{form.suffix}"
    form.write(graph, path)
    write_json(facts_file(path), {"format": settings.format, **graph.facts})
    artifact = open_artifact(path, graph.facts["kind"])
    parity = check(graph, artifact, pictures)
    times = latency(graph, artifact, pictures, settings.rounds)
    found = {"images": parity.images, "outputs": parity.outputs, "largest_differences": parity.worst, "latency": times}
    write_json(facts_file(path), {"format": settings.format, **graph.facts, "check": found})
    print(table(path, graph, parity, times).text())
    if not parity.outputs and graph.facts["kind"] == "detector":
        print("warning: nothing was detected, so nothing was compared; lower --score, or take other --images")
    for sentence in parity.unlike[:MOST_SHOWN]:
        print(f"error: {sentence}", file=sys.stderr)
    if len(parity.unlike) > MOST_SHOWN:
        print(f"error: and {len(parity.unlike) - MOST_SHOWN} more differences", file=sys.stderr)
    return 1 if parity.unlike else 0


def open_network(settings: Settings) -> tuple[Exportable, Path, Callable[[], Any]]:
    """Return the network of a run or of weights, the folder to write to, and what opens the set it was tested on."""
    from vertebra.build import segmenter
    from vertebra.build.classification_data import open_classes
    from vertebra.build.detection_data import open_test
    from vertebra.build.export import export_classifier, export_detector, export_segmenter
    from vertebra.build.results import weights_file
    from vertebra.build.segmenter_run import read_segmenter
    from vertebra.build.trained_detector import is_detector, read_detector
    from vertebra.build.weights import local_file
    from vertebra.engine.weights import read_provenance
    from vertebra.recipes.command_line import load_recipe, validated
    from vertebra.recipes.schema import BackboneRecipe
    from vertebra.recipes.schema_segmentation import SegmentationRecipe

    weights = settings.weights or str(weights_file(settings.run or Path(), tool="train_det.py"))
    batch = None if settings.batch == "dynamic" else settings.batch
    shapes: dict[str, Any] = {"size_hw": settings.size, "batch": batch}
    folder = Path() if ":" in weights else Path(weights).parent  # what is fetched lies in a cache
    if weights.startswith(("torchvision:", "detectron2:")) or is_detector(weights):
        trained = read_detector(weights)
        graph = export_detector(trained, **shapes, score=settings.score)
        return graph, folder, lambda: open_test(trained.recipe)
    if settings.score is not None:
        raise RecipeError(f"--score is of a detector, and {weights} holds none", hint="leave it out")
    path = local_file(weights)
    if "segmenter" in read_provenance(path):
        state, facts = read_segmenter(path)
        recipe = validated(SegmentationRecipe, facts["recipe"], str(path))
        return export_segmenter(state, facts, path, **shapes), folder, lambda: segmenter.open_test(recipe)
    graph = export_classifier(path, **shapes)
    return graph, folder, lambda: open_classes(load_recipe(BackboneRecipe, path.with_name("config.yaml")), "val")


def read_pictures(settings: Settings, test_set: Callable[[], Any]) -> dict[str, np.ndarray]:
    """Return the pictures of the check, evenly spaced among those that there are, uint8 RGB HW3 by name."""
    from vertebra.data.datasets.pictures import find_pictures
    from vertebra.data.loading.decode import decode_image
    from vertebra.data.loading.sampling import evenly

    if settings.images:
        paths = find_pictures(settings.images).images
        return {str(paths[place]): decode_image(paths[place]) for place in evenly(len(paths), settings.checks)}
    try:
        dataset = test_set()
        return {dataset.name(place): dataset.decode(place) for place in evenly(len(dataset), settings.checks)}
    except (ValueError, OSError) as error:
        raise UserError(
            "the pictures of its test set, for the check", str(error), "name others with --images"
        ) from error


def table(path: Path, graph: Exportable, parity: Parity, times: dict[str, Any]) -> Table:
    """Return the largest differences beside what is allowed, and the times."""
    from vertebra.build.parity import TOLERANCES

    kinds = {"box_px": "boxes, px", "score": "scores", "mask": "masks", "differing": "share of pixels"}
    rows = [
        Row(f"largest difference, {words}", [f"{parity.worst[kind]:.1e}", f"{TOLERANCES[kind]:g}"])
        for kind, words in kinds.items()
        if kind in parity.worst
    ]
    low, high = times["ratio_span"]
    rows += [
        Row("beyond that", [str(len(parity.unlike)), "0"]),
        Row(f"network, ms a batch of {times['images']}", [f"{times['network_ms']:.1f}", ""]),
        Row(f"file, ms a batch of {times['images']}", [f"{times['file_ms']:.1f}", ""]),
        Row("file / network, time", [f"{times['ratio']:.2f} ({low:.2f}-{high:.2f})", ""]),
    ]
    shape = "x".join(str(side or "any") for side in graph.facts["inputs"]["images"]["shape"])
    outputs = "detections" if graph.facts["kind"] == "detector" else "probabilities"
    title = f"{path}: images {shape}; {parity.outputs} {outputs} in {counted(parity.images, 'picture')}"
    note = f"float32, {times['threads']} thread(s), {times['rounds']} rounds in turns. How to use it: {path}.json"
    return Table(title, ["found", "allowed"], rows, note=note)
