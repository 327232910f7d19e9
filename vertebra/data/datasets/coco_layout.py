"""Where COCO's annotations and images lie: `coco/SPLIT`, `sample/SPLIT` (the sample set's scenes), `json:FILE`."""

from __future__ import annotations

import re
from pathlib import Path

from vertebra.ground.errors import DataError

JSON_PREFIX = "json:"
JSON_SOURCE = re.compile(r"(coco|sample)/([\w-]+)", re.IGNORECASE)
HOMES = {"coco": "coco", "sample": "scenes"}  # where in the data directory a set usually lies
LABELLED, UNLABELLED = "instances_", "image_info_"  # how names of annotation files begin, and of test images' lists


def is_json(source: str) -> bool:
    """Tell sources of such a file from others."""
    return source.startswith(JSON_PREFIX) or JSON_SOURCE.fullmatch(source) is not None


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    bases = (("sample", root / HOMES["sample"]), ("coco", root / HOMES["coco"]), ("coco", root))
    found = []
    for kind, base in bases:
        for start in (LABELLED, UNLABELLED) if kind == "coco" else (LABELLED,):
            files = (base / "annotations").glob(f"{start}*.json")
            found += [f"{kind}/{path.stem.removeprefix(start)}" for path in files]
    return found


def find_json(root: Path, source: str) -> tuple[Path, Path, Path | None]:
    """Annotation file, a folder to look for images in, and the folder of images if it stands where it should.

    source: json:FILE, coco/SPLIT or sample/SPLIT. Raises DataError.
    """
    if source.startswith(JSON_PREFIX):
        given = Path(source.removeprefix(JSON_PREFIX))
        annotations = given if given.is_file() or given.is_absolute() else root / given
        return annotations, root, None
    kind, _, split = source.partition("/")
    kind = kind.lower()
    bases, inner = (root / HOMES[kind], root), image_folder(split)
    for base, start in ((base, start) for start in (LABELLED, UNLABELLED) for base in bases):
        annotations = base / "annotations" / f"{start}{split}.json"
        if annotations.is_file():
            folders = [base / "images" / inner, base / inner]
            return annotations, base, next((folder for folder in folders if folder.is_dir()), None)
    hint = f"run python tools/prepare_data.py {'coco2014' if '2014' in split else kind} --data {root}"
    if kind == "coco" and split.startswith("test"):
        hint = f"unpack {inner}.zip and {UNLABELLED}{inner}.zip of the COCO page there"
    files = (path for base in bases for path in (base / "annotations").glob(f"{LABELLED}*.json"))
    there = sorted({path.stem.removeprefix(LABELLED) for path in files})
    known = f" (there is {', '.join(there)})" if there else ""
    raise DataError(root, f"no annotations/{LABELLED}{split}.json in it nor in {HOMES[kind]}/{known}", hint)


def find_images(path: Path, root: Path, first: str) -> Path:
    """The folder that holds the image `first`: beside the annotations, in the root, or where COCO would have it."""
    split = image_folder(path.stem.rpartition("_")[2])
    bases = dict.fromkeys((path.parent, path.parent.parent, root))
    inner = ("", "images", split, f"images/{split}", f"{split}/images")
    for folder in (base / part for base in bases for part in inner):
        if (folder / first).is_file():
            return folder
    if "\\" in first:
        raise DataError(path, f"its first image {first} has backslashes", "write / in every `file_name`")
    looked = f"{', '.join(map(str, bases))}, nor in their {', '.join(inner[1:])}"
    raise DataError(
        path, f"its first image {first} is in none of {looked}", "put the images into one of them, or correct --data"
    )


def image_folder(split: str) -> str:
    """Where the images of a split lie: test-dev2017 is a part of test2017."""
    return split.replace("test-dev", "test")
