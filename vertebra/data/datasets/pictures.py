"""Pictures and videos behind what a user typed: files, folders, patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vertebra.data.datasets.folders import is_image
from vertebra.ground.errors import DataError

VIDEOS = frozenset([".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"])


@dataclass(frozen=True)
class Inputs:
    """Files in the order in which they were named, each once."""

    images: tuple[Path, ...]
    videos: tuple[Path, ...]


def find_pictures(names: Sequence[str]) -> Inputs:
    """The images and videos behind files, folders (what lies in them, not below) and patterns (`photos/**/*.jpg`).

    A file named itself counts as an image unless it has a video's suffix; in folders and patterns only
    names of images and videos count. Raises DataError where a name leads to nothing.
    """
    found: dict[Path, Path] = {}
    for name in names:
        for path in _files_of(name):
            found.setdefault(path.resolve(), path)
    paths = list(found.values())
    return Inputs(
        tuple(path for path in paths if not _is_video(path)), tuple(path for path in paths if _is_video(path))
    )


def _files_of(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        entries = sorted(path.iterdir())
        if inside := [entry for entry in entries if entry.is_file() and _is_picture(entry)]:
            return inside
        below = any(entry.is_dir() for entry in entries)
        hint = f"for those in its folders write '{path}/**/*'" if below else ""
        raise DataError(path, "no images or videos in this folder", hint)
    if glob.has_magic(name):
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))
        if inside := [match for match in matches if match.is_file() and _is_picture(match)]:
            return inside
        raise DataError(name, "no image or video has such a name", "check the pattern")
    raise DataError(name, "no such file or folder", "check the path")


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _is_picture(path: Path) -> bool:
    return is_image(path.name) or (_is_video(path) and not path.name.startswith("."))
