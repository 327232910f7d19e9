"""The training of a semantic segmenter, and its test: a map of classes for each image, and mean IoU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backbones import Backbone
from segmenters.segmenter import Segmenter
from vertebra.build import segmenter
from vertebra.build.cost import cost
from vertebra.build.head_run import HeadTraining
from vertebra.build.training import autocast_of
from vertebra.data.datasets.faults import Fault, refuse
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.prepare.map_survey import survey_maps
from vertebra.engine.distributed import World
from vertebra.engine.logs import progress
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.weights import load_weights
from vertebra.evaluation.metrics.pixels import PixelCounts, counts_3C
from vertebra.evaluation.predict.segmentation import predict_maps, write_map
from vertebra.ground.errors import UserError
from vertebra.ground.files import write_atomically, write_json
from vertebra.ground.parse import as_json
from vertebra.recipes.schema_segmentation import SegmentationRecipe


class SegmenterTraining(HeadTraining[SegmentationRecipe, SemanticDataset]):
    """Trains a segmenter; see `HeadTraining`."""

    kind = "seg"
    figure = "mIoU"
    results = "maps"
    model: Segmenter

    def open_data(self) -> tuple[SemanticDataset, SemanticDataset]:
        return segmenter.open_train(self.recipe), segmenter.open_test(self.recipe)

    def data_name(self) -> str:
        return self.recipe.dataset

    def check_files(self) -> None:
        self.world.decide(lambda: refuse(unusable(self.test_set)))

    def assemble(self, backbone: Backbone) -> Segmenter:
        return segmenter.make_segmenter(self.recipe, backbone, len(self.train_set.class_names))

    def title(self) -> str:
        return f"{self.recipe.model.head} on {self.recipe.backbone} (weights: {self.origin['source']})"

    def own_facts(self) -> dict[str, Any]:
        palette = self.train_set.palette[: len(self.train_set.class_names)].tolist()
        return {"segmenter": self.recipe.model.head, "palette": palette}

    def train_loader(self, *, start: int, iterations: int) -> Any:
        return segmenter.train_loader(self.recipe, self.train_set, self.world, start=start, iterations=iterations)

    def test_loader(self) -> Any:
        return segmenter.test_loader(self.recipe, self.test_set, self.world)

    def evaluate(self, run: RunDirectory) -> dict[str, float]:
        return evaluate_segmenter(self.recipe, self.model, self.test_set, self.world, run)


def evaluate_segmenter(
    recipe: SegmentationRecipe, model: Segmenter, test_set: SemanticDataset, world: World, run: RunDirectory
) -> dict[str, float]:
    """Predict the test set on all processes; write what is found there, and return the figures.

    maps/ and truth/ (as it was scored: painted, or of another coding on disk) hold an indexed PNG of each image,
    images.json each one's id, picture (below `image_root`) and map, pixel_counts.npz and evaluation.json the figures.
    Where the set has no truth, the maps and images.json are all; on other ranks than 0 nothing is returned.
    """
    tested = segmenter.make_tested(recipe, model)
    loader = segmenter.test_loader(recipe, test_set, world)

    def cost_of(times_s: list[float]) -> dict[str, Any]:
        return cost(recipe, tested, test_set, times_s, test_loader=segmenter.test_loader)

    return evaluate_tested(recipe, tested, loader, test_set, world, run, cost_of=cost_of)


def evaluate_tested(
    recipe: SegmentationRecipe,
    tested: nn.Module,
    loader: Any,
    test_set: SemanticDataset,
    world: World,
    run: RunDirectory,
    *,
    cost_of: Callable[[list[float]], dict[str, Any]],
) -> dict[str, float]:
    """As `evaluate_segmenter`, whatever gives scores of the batches of `loader`.

    cost_of: the seconds an image, of each batch, to the part `cost` of evaluation.json.
    """
    times_s: list[float] = []
    names, files = test_set.class_names, map_names(test_set)

    def keep(image_id: int, map_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8] | None) -> None:
        for kind, labels_HW in (("maps", map_HW), ("truth", truth_HW)):
            if labels_HW is not None:
                write_map(run.path / kind / files[image_id], labels_HW, test_set.palette)

    found = predict_maps(
        tested,
        progress(loader, description="evaluate"),
        len(names),
        device=world.device,
        autocast=autocast_of(world.device, recipe.precision),
        keep=keep,
        image_order=[int(image_id) for image_id in test_set.image_ids_I],
        times_s=times_s,
    )
    if not found:
        return {}
    pictures = [
        {"id": image_id, "picture": test_set.file_names[i], "map": files[image_id]}
        for i, image_id in enumerate(test_set.image_ids_I.tolist())
    ]
    write_json(run.path / "images.json", pictures)
    matrices = [matrix_CC for _, matrix_CC in found if matrix_CC is not None]
    if not matrices:
        return {}
    counts = PixelCounts.of([counts_3C(matrix_CC) for matrix_CC in matrices])
    arrays = {"image_ids": [image_id for image_id, _ in found], **vars(counts)}
    write_atomically(run.path / "pixel_counts.npz", lambda file: np.savez_compressed(file, **arrays))
    iou_C = counts.iou_SC()[0]
    figures = counts.figures()
    run.write_json(
        run.evaluation,
        {
            "segmentation": as_json(figures),
            "classes": as_json(dict(zip(names, iou_C.tolist()))),
            "images": len(matrices),
            "confusion": np.sum(matrices, axis=0).tolist(),
            "cost": cost_of(times_s),
            "image_root": str(test_set.root.resolve()),
        },
    )
    return figures


def unusable(test_set: SemanticDataset) -> list[Fault]:
    """Return what an evaluation would end at: pictures and maps that are missing, and maps that are none."""
    missing = [Fault(test_set.root / name, "is missing or empty", "restore it") for name in test_set.absent()]
    return missing or [*(survey_maps(test_set).faults if test_set.labelled else ())]


def read_segmenter(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a segmenter's tensors and provenance. Raises UserError for weights of something else."""
    state, facts = load_weights(path)
    if "segmenter" not in facts or "recipe" not in facts:
        raise UserError(path, "does not hold a segmenter", "name weights of train_seg.py")
    return state, facts


def map_names(dataset: SemanticDataset) -> dict[int, str]:
    """Return the file name of each image's map, by its id: the picture's stem. Raises UserError where two are alike."""
    names = {int(image_id): f"{Path(dataset.path(i)).stem}.png" for i, image_id in enumerate(dataset.image_ids_I)}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        fault = f"several pictures would have the map {twice[0]}, each hiding the one before"
        raise UserError(dataset.source, fault, "rename them")
    return names
