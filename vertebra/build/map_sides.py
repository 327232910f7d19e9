"""Anybody's folders of maps as sides of a report, scored on a truth that is given, or on that of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vertebra.build.map_scores import score_maps
from vertebra.data.datasets.folders import by_stem, files_below
from vertebra.data.datasets.maps import palette
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.datasets.semantic_layouts import indices
from vertebra.data.datasets.strings import Strings
from vertebra.data.prepare.map_folders import answers_to
from vertebra.evaluation.report.reading import SCORE_AGAIN, Labels
from vertebra.evaluation.report.runs import SegmenterRun, read_run
from vertebra.ground.errors import UserError


def map_sides(
    folders: Mapping[str, Sequence[Path]], truth: SemanticDataset, pictures: Sequence[str]
) -> list[SegmenterRun]:
    """Return the folders, several of one name being seeds, for `write_report`. Raises DataError for an unusable map.

    pictures: each image's name, below where the report looks for images.
    """
    ids = truth.image_ids_I.tolist()
    images = [{"id": image_id, "picture": name} for image_id, name in zip(ids, pictures)]
    return [
        SegmenterRun(
            path=folder,
            name=name,
            counts=score_maps(truth, answers := answers_to(truth, folder)).counts,
            image_ids=tuple(ids),
            class_names=truth.class_names,
            images=images,
            read_map=partial(_read, answers),
            read_truth=partial(_read, truth),
        )
        for name, of_side in folders.items()
        for folder in of_side
    ]


def _read(dataset: SemanticDataset, place: int) -> tuple[Path, Labels, Labels]:
    return dataset.map_path(place), dataset.labels(place), dataset.palette


def pictures_of(truth: SemanticDataset, folder: Path | None) -> list[str]:
    """Return the pictures of the truth's images, by their stems, in the folder; without one, the data set's own."""
    found = {} if folder is None else by_stem(files_below(folder))
    return [found.get(Path(name).stem, [name])[0] for name in truth.file_names]


def truth_of_run(directory: Path) -> tuple[SemanticDataset, list[str]]:
    """Return the truth that a segmenter's run was scored on, and the pictures' names. Raises UserError without one."""
    run = read_run(directory)
    if not isinstance(run, SegmenterRun):
        raise UserError(directory, "it is a detector's run, and folders of maps are segmenters'", "leave out --task")
    if not run.images:
        raise UserError(directory, "it has no images.json, maps/ and truth/", SCORE_AGAIN)
    files = Strings(f"truth/{image['map']}" for image in run.images)
    ids_I = np.array(run.image_ids, np.int64)
    coding = indices(len(run.class_names))
    truth = SemanticDataset(directory, str(directory), run.class_names, ids_I, files, files, coding, palette())
    return truth, [image["picture"] for image in run.images]
