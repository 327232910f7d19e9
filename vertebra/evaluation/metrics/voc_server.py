"""Files for the PASCAL VOC evaluation server: results/VOC<year>/Main/comp4_det_test_<class>.txt.

A line is `image confidence xmin ymin xmax ymax`; corners count pixels from 1 and belong to the box, so a box of our
files, x y width height with edges from 0, is written as x + 1, y + 1, x + width, y + height.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from vertebra.evaluation.metrics.files import Entry, Truth, class_names, read_predictions, read_truth
from vertebra.ground.errors import UserError

Competition = Literal["comp3", "comp4"]  # trained on the challenge's own images alone, or on others too
DECIMALS = {"score": 6, "corner": 3}  # as many as our predictions have


def write_voc_files(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    folder: Path,
    *,
    year: str = "2012",
    competition: Competition = "comp4",
) -> list[Path]:
    """Write one file a class of the truth, empty ones too, below `folder`, best first in each image; return the paths.

    Raises UserError for files that cannot be used, OSError where nothing can be written.
    """
    truth = read_truth(truth)
    predictions = read_predictions(predictions, truth)
    names = class_names(truth)
    stems = _stems(truth)
    place = {image_id: number for number, image_id in enumerate(stems)}
    lines: dict[int, list[tuple[int, float, str]]] = {category_id: [] for category_id in names}
    for entry in predictions:
        x, y, width, height = entry["bbox"]
        corners = " ".join(f"{value:.{DECIMALS['corner']}f}" for value in (x + 1, y + 1, x + width, y + height))
        line = f"{stems[entry['image_id']]} {entry['score']:.{DECIMALS['score']}f} {corners}"
        lines[entry["category_id"]].append((place[entry["image_id"]], -entry["score"], line))
    home = Path(folder) / "results" / f"VOC{year}" / "Main"
    home.mkdir(parents=True, exist_ok=True)
    written = []
    for category_id, name in names.items():
        path = home / f"{competition}_det_test_{_file_name(name)}.txt"
        ordered = sorted(lines[category_id], key=lambda one: one[:2])
        path.write_text("".join(f"{line}\n" for _, _, line in ordered), encoding="ascii")
        written.append(path)
    return written


def _stems(truth: Truth) -> dict[int, str]:
    """Return the server's name of each image: its file's without folder and extension."""
    stems: dict[int, str] = {}
    for image in truth["images"]:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"the truth's image {image['id']} has no file_name, by which VOC's server knows it")
        stems[image["id"]] = PurePosixPath(name).stem
    if len(set(stems.values())) < len(stems):
        raise UserError("two of the truth's images have files of one name; VOC's server knows them by it")
    strange = next((stem for stem in stems.values() if len(stem.split()) != 1 or not stem.isascii()), None)
    if strange is not None:
        raise UserError(f"the image {strange!r} has no name of VOC's kind; these files are for VOC's own images")
    return stems


def _file_name(name: str) -> str:
    if not name.isascii() or any(character in name for character in '/\\ :*?"<>|'):
        raise UserError(f"the class {name!r} cannot stand in a file's name; these files are for VOC's own classes")
    return name
