"""A run's maps as evaluation servers take them: VOC's folder of indexed PNGs, Cityscapes' PNGs of its own ids."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vertebra.build.segmenter_run import map_names
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.datasets.semantic_classes import CITYSCAPES
from vertebra.data.datasets.semantic_layouts import VOC_CLASSES
from vertebra.ground.errors import UserError

Server = Literal["voc", "cityscapes"]
_CLASSES = {"voc": VOC_CLASSES, "cityscapes": tuple(name for name, _ in CITYSCAPES.values())}
_NAMES = {"voc": r"\d{4}_\d{6}\.png", "cityscapes": r"[^_]+_\d{6}_\d{6}_leftImg8bit\.png"}  # of the sets' own images


def check_submission(server: Server, test_set: SemanticDataset) -> None:
    """Raise UserError where a server would not know the test set's classes or images."""
    hint = "test on the set's own images, or leave --submission out"
    if test_set.class_names != _CLASSES[server]:
        reason = f"its classes are not the {len(_CLASSES[server])} of {server}, whose server takes no others"
        raise UserError(test_set.source, reason, hint)
    strange = [name for name in map_names(test_set).values() if not re.fullmatch(_NAMES[server], name)]
    if strange:
        raise UserError(test_set.source, f"its image {Path(strange[0]).stem} has no name of {server}'s kind", hint)


def write_submission(server: Server, test_set: SemanticDataset, run: Path) -> Path:
    """Write the maps of a run on the test set as the server wants them, below `run`; return their folder.

    voc: results/VOC2012/Segmentation/comp6_test_cls/STEM.png (comp6: trained on other images than VOC's too, such as
    the pre-training's). cityscapes: results/cityscapes/CITY_SEQUENCE_FRAME_labelIds.png, of its ids, not the classes.
    """
    home = run / "results" / ("VOC2012/Segmentation/comp6_test_cls" if server == "voc" else "cityscapes")
    home.mkdir(parents=True, exist_ok=True)
    ids_V = np.zeros(256, np.uint8)
    ids_V[: len(CITYSCAPES)] = [*CITYSCAPES]
    for name in map_names(test_set).values():
        if server == "voc":
            shutil.copyfile(run / "maps" / name, home / name)
        else:
            labels_HW = np.asarray(Image.open(run / "maps" / name))
            Image.fromarray(ids_V[labels_HW]).save(home / name.replace("_leftImg8bit", "_labelIds"))
    return home
