"""All faults of a data set in one pass: annotations and every image, decoded as training would.

Readers stop at the first thing they cannot use; this goes on and lists everything, fatal or fixed by the reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vertebra.data.datasets.catalog import open_classification, parse_detection
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.imagenet import find_split, not_images
from vertebra.data.datasets.localisation import LocalisationDataset, read_localisation
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.semantic import SemanticDataset, parse_semantic
from vertebra.data.datasets.semantic_layouts import is_of_maps_alone
from vertebra.data.datasets.shards import find_index
from vertebra.data.prepare.looks import Looks, Pictures, Progress, look
from vertebra.data.prepare.map_survey import MapSurvey, survey_maps
from vertebra.data.prepare.shard_files import damaged_shards
from vertebra.ground.errors import DataError

LOCALISATION = "loc/"  # before the split of images with boxes, such as loc/train
SEGMENTATION = "seg/"  # before a source of semantic maps, such as seg/voc2012/train
Dataset = DetectionDataset | ClassificationDataset | LocalisationDataset | SemanticDataset


@dataclass(frozen=True)
class Checked:
    """A source's faults, its annotations' and its pictures'; none: an empty list.

    dataset: what can be used of it, faulty pictures among it; None: nothing. looks: at its pictures, None without any.
    survey: of its semantic maps, where it has them.
    """

    source: str
    faults: list[Fault] = field(default_factory=list)
    dataset: Dataset | None = None
    looks: Looks | None = None
    survey: MapSurvey | None = None

    @property
    def fatal(self) -> int:
        """How many of the faults readers refuse."""
        return sum(fault.fatal for fault in self.faults)

    @property
    def pictures(self) -> Pictures | None:
        """The data set as one of pictures, whose sizes are known where boxes need them."""
        return self.dataset.objects if isinstance(self.dataset, LocalisationDataset) else self.dataset


def check(
    root: Path | str, source: str, *, processes: int = 0, progress: Progress = lambda done, total: None
) -> Checked:
    """Check a source as open_detection and open_classification take it, or loc/SPLIT as open_localisation does, or
    seg/SOURCE as open_semantic does; what can only be semantic maps goes without seg/.

    processes: that decode pictures; 0: as many as cores.
    """
    checked = Checked(source)
    try:
        checked = _read(root, source)
        if (pictures := checked.pictures) is None:
            return checked
        if isinstance(pictures, SemanticDataset) and pictures.labelled:
            survey = survey_maps(pictures, processes=processes, progress=progress)
            checked = replace(checked, faults=[*checked.faults, *survey.faults], survey=survey)
        looks = look(pictures, processes=processes, progress=progress)
    except DataError as error:
        return replace(checked, faults=[*checked.faults, Fault.of(error)])
    return replace(checked, faults=[*checked.faults, *looks.faults], looks=looks)


def is_detection(source: str) -> bool:
    """Tell whether a source is images with objects of any class."""
    return not source.startswith(LOCALISATION) and not is_semantic(source) and ("/" in source or ":" in source)


def is_semantic(source: str) -> bool:
    """Tell whether a source is images with semantic maps."""
    return source.startswith(SEGMENTATION) or is_of_maps_alone(source)


def _read(root: Path | str, source: str) -> Checked:
    if source.startswith(LOCALISATION):
        located = read_localisation(Path(root), source.removeprefix(LOCALISATION))
        return Checked(source, [*located.faults], located.dataset)
    if is_semantic(source):
        semantic = parse_semantic(root, source.removeprefix(SEGMENTATION))
        return Checked(source, [*semantic.faults], semantic.dataset)
    if is_detection(source):
        detection = parse_detection(root, source)
        return Checked(source, [*detection.faults], detection.dataset)
    dataset = open_classification(root, source)
    folder = find_split(dataset.root, source)
    counts_C = np.bincount(dataset.labels_I, minlength=len(dataset.class_names))
    faults = [
        Fault((folder or dataset.root) / dataset.class_names[label], "has no image", "add some", fatal=False)
        for label in np.flatnonzero(counts_C == 0)
    ]
    if folder is not None and dataset.pixels_IHW3 is None:
        faults += not_images(folder, (path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*"))))
    if dataset.shards is not None and (index := find_index(root, source)) is not None:
        faults += [Fault.of(error) for error in damaged_shards(index)]
    return Checked(source, faults, dataset)
