"""What counts in other people's folders: images, the best of a name, nothing hidden; and lines of their lists."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from vertebra.ground.errors import DataError

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif", ".ppm", ".pgm", ".tif", ".tiff"]
)
_PHOTOGRAPHS = (".jpg", ".jpeg", ".jpe", ".jfif")  # what lies beside one in another form is a mask or a copy
_HIDDEN = frozenset(  # what file servers, desktops and Python put between other people's files
    ["@eadir", "#recycle", "__macosx", "$recycle.bin", "lost+found", "__pycache__", "thumbnails"]
)


def is_hidden(name: str) -> bool:
    """True for files and folders that are no part of a data set: those with a dot, thumbnails, bins."""
    return name.startswith(".") or name.lower() in _HIDDEN


def is_image(name: str) -> bool:
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_xml(name: str) -> bool:
    return not is_hidden(name) and name.lower().endswith(".xml")


def holds(folder: Path, wanted: Callable[[str], bool]) -> bool:
    """True where there is such a folder, with such a file directly in it."""
    return folder.is_dir() and any(wanted(entry.name) for entry in os.scandir(folder))


def files_below(folder: Path, wanted: Callable[[str], bool] = is_image) -> list[str]:
    """Names of all such files in a folder and below it, relative to it, with slashes, sorted folder by folder.

    Links are followed, but for those that lead up again; hidden folders are passed over.
    """
    found: list[tuple[str, ...]] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name) and not _leads_up(place, name)]
        inner = Path(place).relative_to(folder).parts
        found += [(*inner, name) for name in names if wanted(name)]
    return ["/".join(parts) for parts in sorted(found)]


def _leads_up(place: str, name: str) -> bool:
    path = os.path.join(place, name)
    return os.path.islink(path) and f"{os.path.realpath(place)}/".startswith(f"{os.path.realpath(path)}/")


def bytes_of(path: Path) -> int:
    """A file's length; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def stem_of(file_name: str) -> str:
    """A file's name without its extension, folders kept."""
    return str(PurePosixPath(os.path.splitext(file_name)[0]))


def by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Images by their names without extension; of several with one name photographs come first, masks last."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=_rank):
        found.setdefault(stem_of(name), []).append(name)
    return found


def _rank(name: str) -> tuple[int, str]:
    extension = os.path.splitext(name)[1].lower()
    return _PHOTOGRAPHS.index(extension) if extension in _PHOTOGRAPHS else len(_PHOTOGRAPHS), name


def read_lines(path: Path, *, errors: str = "surrogateescape") -> list[str]:
    """The lines of a text file that are not blank, without the spaces around them. Raises DataError.

    A mark at its start says UTF-8 or UTF-16. errors: what to do with bytes that are no text; file names keep theirs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8-sig", errors)
    if "\0" in text:
        raise DataError(path, "is not text", "restore it")
    return [line for line in map(str.strip, text.splitlines()) if line]
