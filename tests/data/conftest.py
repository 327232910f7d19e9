"""Small data sets written to disk for the tests, and the real ones where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.writers import write_folders, write_picture
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.records import ClassificationDataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data: $VERTEBRA_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("VERTEBRA_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set VERTEBRA_DATA)")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> ClassificationDataset:
    """Seven ants and six bees in class folders, opened for training."""
    return open_classification(write_folders(tmp_path / "folders", {"ant": 7, "bee": 6}), "train")


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes ann.json with two images (60 x 80 and 80 x 60), three objects, category ids 7 and 3; the value can
    be changed before it is written. Returns the file's path."""

    def write(change: Callable[[dict[str, Any]], Any] = lambda value: None) -> Path:
        write_picture(tmp_path / "images" / "a.jpg", 60, 80, 1)
        write_picture(tmp_path / "images" / "b.jpg", 80, 60, 2)
        value: dict[str, Any] = {
            "images": [
                {"id": 11, "file_name": "a.jpg", "width": 80, "height": 60},
                {"id": 5, "file_name": "b.jpg", "width": 60, "height": 80},
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "bird"}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 7, "bbox": [10.5, 20.25, 30.125, 40], "area": 99.5,
                 "iscrowd": 0, "segmentation": [[10.5, 20.25, 40.625, 20.25, 40.625, 60.25]]},
                {"id": 2, "image_id": 11, "category_id": 3, "bbox": [0, 0, 8, 9], "area": 72, "iscrowd": 1,
                 "segmentation": {"size": [60, 80], "counts": [0, 600, 4200]}},
                {"id": 4, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            ],
        }  # fmt: skip
        change(value)
        path = tmp_path / "ann.json"
        path.write_text(json.dumps(value))
        return path

    return write
