"""Anybody's folders of semantic maps: the truth, and answers to it, paired by the stems of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vertebra.data.datasets.faults import refuse
from vertebra.data.datasets.folders import files_below
from vertebra.data.datasets.maps import MOST_CLASSES, palette
from vertebra.data.datasets.semantic import SemanticDataset, open_semantic
from vertebra.data.datasets.semantic_layouts import indices, read_coding
from vertebra.data.datasets.strings import Strings
from vertebra.data.datasets.xml_sets import image_ids
from vertebra.data.prepare.map_survey import survey_maps
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted


def open_truth(truth: Path, data: Path | None = None, classes: Path | None = None) -> SemanticDataset:
    """Return what maps are scored on: the source `truth` in the directory `data`, or a folder of PNGs (`open_maps`)."""
    if data is not None:
        return open_semantic(data, str(truth))
    if not truth.is_dir():
        raise DataError(truth, "is no folder of maps", "give the folder that holds the PNGs, or --data of that source")
    return open_maps(truth, classes)


def open_maps(folder: Path, classes: Path | None = None) -> SemanticDataset:
    """Return the PNGs in a folder, or below it, as a data set whose pictures are the maps themselves.

    classes: a file of their names, as beside one's own maps (vertebra.data.datasets.semantic_layouts); None: the
    classes are the indices up to the greatest that is seen, for which every map is read. Raises DataError.
    """
    maps = _pngs(folder)
    if not maps:
        raise DataError(folder, "has no PNG in it", "name a folder of maps, such as a run's truth/ and maps/")
    names, coding, drawn = (
        read_coding(classes)
        if classes is not None
        else (tuple(map(str, range(MOST_CLASSES))), indices(MOST_CLASSES), palette())
    )
    files = Strings(maps.values())
    ids_I = np.array(image_ids([*maps], [*maps.values()]), np.int64)
    dataset = SemanticDataset(folder, str(folder), names, ids_I, files, files, coding, drawn)
    if classes is not None:
        return dataset
    survey = survey_maps(dataset)
    refuse(survey.faults)
    seen = int(survey.images_C.nonzero()[0].max(initial=0)) + 1
    return replace(dataset, class_names=names[:seen], coding=indices(seen))


def answers_to(truth: SemanticDataset, folder: Path) -> SemanticDataset:
    """Return the maps in a folder, or below it, of the truth's images: those with the stems of these.

    A value is a class's place, or its colour where the truth has colours; 255: the pixel was given no class. Raises
    DataError where an image has no map, or the set no truth; other maps say nothing.
    """
    if not truth.labelled:
        raise DataError(truth.source, "its maps are not here, so nothing can be scored", "name a set that has them")
    maps = _pngs(folder)
    stems = [truth.path(index).stem for index in range(len(truth))]
    if missing := [stem for stem in stems if stem not in maps]:
        reason = f"has no map of {len(missing)} of {counted(len(stems), 'image')}, such as {missing[0]}.png"
        raise DataError(folder, reason, "add them, or score against the truth of the other images alone")
    files = Strings(maps[stem] for stem in stems)
    coding = replace(indices(len(truth.class_names)), colours=truth.coding.colours)
    return replace(
        truth, root=folder, source=str(folder), file_names=files, map_names=files, coding=coding, instances=None
    )


def _pngs(folder: Path) -> dict[str, str]:
    """Return the PNGs in a folder and below it, by their stems. Raises DataError where two have one."""
    if not folder.is_dir():
        raise DataError(folder, "is no folder of maps", "give the folder that holds the PNGs")
    maps: dict[str, str] = {}
    for name in files_below(folder, lambda name: name.lower().endswith(".png")):
        if (other := maps.setdefault(Path(name).stem, name)) != name:
            raise DataError(folder / name, f"has the name of {other}", "keep one of them, or name one of their folders")
    return maps
