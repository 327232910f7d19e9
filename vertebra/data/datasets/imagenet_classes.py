"""The 1,000 classes of ILSVRC 2012 by wnid, in the order in which networks have them, and data sets of some of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vertebra.data.datasets.records import ClassificationDataset


def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1,000, which lie beside this file."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


def among_imagenets(dataset: ClassificationDataset) -> ClassificationDataset:
    """Return a set of fewer of these classes, such as imagenette's ten, with its labels among the 1,000.

    So a network of all 1,000 may err by any of them. Other sets come back as they are.
    """
    wnids = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    if not dataset.class_names or not {*dataset.class_names} < wnids.keys():
        return dataset
    labels_I = np.array([wnids[name] for name in dataset.class_names])[dataset.labels_I]
    return replace(dataset, class_names=tuple(wnids), labels_I=labels_I)
