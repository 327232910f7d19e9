"""What predict.py looks at pictures with: a detector or a segmenter, with what the command line changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.cli.common import with_changes
from vertebra.ground.errors import RecipeError
from vertebra.ground.formats import did_you_mean
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe, DetectionTest
from vertebra.recipes.schema_segmentation import SegmentationRecipe

if TYPE_CHECKING:
    from vertebra.cli.predict import Settings
    from vertebra.data.loading.pictures import View
    from vertebra.engine.distributed import World
    from vertebra.evaluation.predict.draw_maps import MapPainter
    from vertebra.evaluation.predict.pictures import Painter

VIEWS = ("scales", "flip", "window")  # how a segmenter looks at pictures


@dataclass(frozen=True)
class Network:
    """A detector or a segmenter, and what becomes of that which it finds.

    names: of what it tells apart, by id. find: what is in each picture of some batches, or why it could not be read.
    keep: writes a map, of which it is given the name, and returns the picture's fields in images.json; None of
    detectors, whose findings go into one file.
    """

    recipe: DetectionRecipe | SegmentationRecipe
    names: Mapping[int, str]
    view: View
    find: Callable[[Iterable[Any]], Iterator[Any]]
    painter: Painter | MapPainter
    keep: Callable[[Any, str], dict[str, Any]] | None = None

    def look(self, batches: Iterable[Any], description: str, total: int | None) -> Iterator[Any]:
        """Yield what is in each picture, with a progress bar."""
        from vertebra.engine.logs import progress

        return progress(self.find(batches), description=description, total=total)


def open_network(settings: Settings, world: World) -> Network:
    """Return the network of the weights, with what the command line changes."""
    from vertebra.build.results import weights_file
    from vertebra.build.weights import local_file
    from vertebra.engine.weights import read_provenance

    path = local_file(settings.weights)
    if path.is_dir():
        path = weights_file(path, tool="train_det.py or train_seg.py")
    is_segmenter = path.suffix == ".safetensors" and path.is_file() and "segmenter" in read_provenance(path)
    kind, other = ("segmenter", "detector") if is_segmenter else ("detector", "segmenter")
    for name in settings.given(*(("score",) if is_segmenter else VIEWS)):
        raise RecipeError(f"--{name}", f"is of a {other}, and {settings.weights} holds a {kind}", "leave it out")
    return open_segmenter(settings, path, world) if is_segmenter else open_detector(settings, world)


def open_detector(settings: Settings, world: World) -> Network:
    """Return the detector of the weights. Raises UserError where they hold none."""
    from vertebra.build.detection_data import picture_view
    from vertebra.build.detector import make_tested
    from vertebra.build.trained_detector import read_detector
    from vertebra.build.training import autocast_of
    from vertebra.evaluation.predict.pictures import Painter, detect_pictures

    score = 0.5 if settings.score is None else settings.score
    trained = read_detector(settings.weights)
    names = trained.names
    test = DetectionTest().model_dump(include={"multi_scale", "multi_scale_region"})  # pictures are read at one size
    test |= {"score": min(trained.recipe.test.score, score), **settings.given("batch_size")}
    recipe = with_changes(trained.recipe, settings, test, {}, world)
    model = make_tested(recipe, [trained.restore(recipe).to(world.device)])
    kept, autocast = chosen_classes(settings.classes, names), autocast_of(world.device, recipe.precision)

    def find(batches: Iterable[Any]) -> Iterator[Any]:
        return detect_pictures(model, batches, list(names), kept=kept, device=world.device, autocast=autocast)

    return Network(recipe, names, picture_view(recipe), find, Painter(names, score))


def open_segmenter(settings: Settings, path: Path, world: World) -> Network:
    """Return the segmenter of a file of weights."""
    from vertebra.build import segmenter
    from vertebra.build.segmenter_run import read_segmenter
    from vertebra.build.training import autocast_of
    from vertebra.data.datasets.maps import palette
    from vertebra.evaluation.predict.draw_maps import MapPainter
    from vertebra.evaluation.predict.segmentation import PictureMap, map_pictures, write_map

    state, facts = read_segmenter(path)
    trained, names = validated(SegmentationRecipe, facts["recipe"], str(path)), dict(enumerate(facts["class_names"]))
    recipe = with_changes(trained, settings, settings.given(*VIEWS, "batch_size"), {}, world)
    model = segmenter.make_tested(recipe, segmenter.trained_segmenter(recipe, state, facts, path).to(world.device))
    kept, autocast = chosen_classes(settings.classes, names), autocast_of(world.device, recipe.precision)
    colours = palette(dict(enumerate(facts.get("palette", ()))))

    def keep(found: PictureMap, name: str) -> dict[str, Any]:
        path = settings.output / "maps" / f"{name}.png"
        write_map(path, found.map_HW, colours)
        shares = {names[label]: round(share, 6) for label, share in found.shares().items() if label in kept}
        return {"map": path.relative_to(settings.output).as_posix(), "shares": shares}

    find = partial(map_pictures, model, device=world.device, autocast=autocast)
    return Network(recipe, names, segmenter.picture_view(recipe), find, MapPainter(names, colours, kept), keep)


def chosen_classes(wanted: tuple[str, ...], names: Mapping[int, str]) -> frozenset[int]:
    """Return the ids of the named classes; of all where none is named."""
    for name in wanted:
        if name not in names.values():
            hint = did_you_mean(name, names.values(), "it knows")
            raise RecipeError(f"--classes {name}: the network has no such class", hint=hint)
    return frozenset(category_id for category_id, name in names.items() if not wanted or name in wanted)
