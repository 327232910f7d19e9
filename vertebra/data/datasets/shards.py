"""Data sets in tar shards, as `webdataset` writes them (KEY.jpg and KEY.cls a sample), read at random through an index.

The index says where in which shard each image's bytes lie, so any image is one read away and training draws, resumes
and divides among processes exactly as from a folder. It is a JSON value a line: first what holds for all, then one for
each shard:

    {"format": "vertebra shards 1", "images": 1281167, "class_names": ["n01440764", ...]}
    {"shard": "train-000000.tar", "bytes": 268440064, "sha256": "...", "places": [...], "names": [...], "labels": [...],
     "offsets": [...], "lengths": [...]}

shard: relative to the index, or a path or URL of its own. places: where in the data set's order each image stands.
Shards lie on disk or behind any URL that fsspec reads; of remote ones a whole batch is fetched at a time.

Legend: I images of the data set, B of a batch.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from vertebra.data.datasets.imagenet import FOLDER_PARTS, SPLIT_FOLDERS
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.ground.errors import BadSample, DataError
from vertebra.ground.parse import parse_json

FORMAT = "vertebra shards 1"
INDEX_SUFFIX = ".index.jsonl"
ATTEMPTS = 3  # at a remote read, a second and two apart
_URL = re.compile(r"([A-Za-z][\w+.:-]+):/+(.*)", re.DOTALL)
NUMBERS = ("places", "labels", "offsets", "lengths")  # lists of an index's line, one number an image
HINT = "fetch that shard again, or index the shards anew (python tools/prepare_data.py shard --index-only)"
_ANEW = "write it anew (python tools/prepare_data.py shard --index-only)"


class Shards:
    """Bytes of images in tar files: image i is `lengths_I[i]` bytes from `offsets_I[i]` of `places[shard_I[i]]`."""

    def __init__(
        self, places: Sequence[str], shard_I: np.ndarray, offsets_I: np.ndarray, lengths_I: np.ndarray
    ) -> None:
        self.places = tuple(places)
        self.shard_I, self.offsets_I, self.lengths_I = shard_I, offsets_I, lengths_I
        self._ahead: dict[int, bytes] = {}

    def name(self, index: int) -> str:
        """Shard and place in it, for messages."""
        return f"{self.places[self.shard_I[index]]} (at byte {self.offsets_I[index]})"

    def subset(self, chosen_I: np.ndarray) -> Shards:
        return Shards(self.places, self.shard_I[chosen_I], self.offsets_I[chosen_I], self.lengths_I[chosen_I])

    def fetch(self, indices_B: Sequence[int]) -> None:
        """Fetch those of the images that are remote, all at once, for `read` until the next call."""
        self._ahead = self._read_remote([index for index in indices_B if is_url(self.places[self.shard_I[index]])])

    def read(self, index: int) -> bytes:
        """The image's file. Raises BadSample if it cannot be had, DataError if a remote shard cannot."""
        place, length = self.places[self.shard_I[index]], int(self.lengths_I[index])
        if is_url(place):
            content = self._ahead.get(index) or self._read_remote([index])[index]
        else:
            try:
                with open(place, "rb") as file:
                    file.seek(int(self.offsets_I[index]))
                    content = file.read(length)
            except OSError as error:
                raise BadSample(self.name(index), f"cannot be read ({error.strerror})", HINT) from error
        if len(content) != length:
            raise BadSample(self.name(index), f"gives {len(content)} of {length} bytes", HINT)
        return content

    def _read_remote(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Ranges of all these, at once where the file system can (HTTP, S3, GCS ...)."""
        found: dict[int, Any] = {}
        for attempt in range(ATTEMPTS):
            missing = [index for index in indices if not isinstance(found.get(index), bytes)]
            if not missing:
                return found
            if attempt:
                time.sleep(attempt)
            places = [self.places[self.shard_I[index]] for index in missing]
            file_system = file_system_of(places[0])
            starts = [int(self.offsets_I[index]) for index in missing]
            ends = [start + int(self.lengths_I[index]) for start, index in zip(starts, missing)]
            paths = [file_system._strip_protocol(place) for place in places]
            try:
                found.update(zip(missing, file_system.cat_ranges(paths, starts, ends, on_error="return")))
            except OSError as error:
                found.update((index, error) for index in missing)
        for index in indices:
            if not isinstance(found[index], bytes):
                raise DataError(
                    self.name(index), f"cannot be read ({found[index]!r})", "check the address and the connection"
                )
        return found


def is_url(place: object) -> bool:
    return _URL.fullmatch(str(place)) is not None


def as_url(place: object) -> str:
    """A URL as it was typed: as a Path it has lost a slash."""
    match = _URL.fullmatch(str(place))
    if match is None:
        return str(place)
    return f"{match[1]}://{'/' if match[1] == 'file' else ''}{match[2]}"


def open_place(place: str) -> IO[bytes]:
    """A file, or what a URL gives, for reading. Raises OSError; DataError where fsspec cannot read such URLs here."""
    return file_system_of(place).open(place, "rb") if is_url(place) else open(place, "rb")


def index_path(folder: str, split: str) -> str:
    return f"{folder.rstrip('/')}/{split}{INDEX_SUFFIX}"


def find(root: Path) -> list[str]:
    """The splits that lie in `root` as indexed shards."""
    return [path.name.removesuffix(INDEX_SUFFIX) for path in root.glob(f"*{INDEX_SUFFIX}")]


def find_index(root: Path | str, split: str) -> str | None:
    """The index of the split's shards in a folder or at a URL, or None. Raises DataError where a URL has none."""
    folder = as_url(root)
    whole = FOLDER_PARTS.get(split, (split,))[0]
    for name in SPLIT_FOLDERS.get(whole, (whole,)):
        path = index_path(folder, name)
        if not is_url(folder):
            if os.path.isfile(path):
                return path
            continue
        try:
            if file_system_of(path).exists(path):
                return path
        except OSError as error:
            raise DataError(path, f"cannot be read ({error!r})", "check the address and the connection") from error
    if is_url(folder):
        raise DataError(
            index_path(folder, whole),
            "no such index",
            "write one with "
            f"python tools/prepare_data.py shard --index-only --data {folder} --shards SHARD... --output DIR",
        )
    return None


def find_shards(data: str, split: str, shards: Sequence[str] = ()) -> list[str]:
    """Paths or URLs of a split's tar files, in order: by `shards`, else under the first of its names that has any."""
    for patterns in [shards] if shards else split_patterns(split):
        if found := {place for pattern in patterns for place in _matches(data.rstrip("/"), pattern)}:
            return sorted(found)
    return []


def split_patterns(split: str) -> list[list[str]]:
    names = SPLIT_FOLDERS.get(split, (split,))
    return [[f"{name}-*.tar", f"*-{name}-*.tar", f"{name}/*.tar"] for name in names]


def _matches(data: str, pattern: str) -> list[str]:
    if not is_url(data):
        return glob.glob(f"{glob.escape(data)}/{pattern}")
    if "*" not in pattern:  # most web servers cannot list what they have
        return [f"{data}/{pattern}"]
    file_system = file_system_of(data)
    return [file_system.unstrip_protocol(one) for one in file_system.glob(f"{data}/{pattern}")]


def read_shards(path: str, split: str) -> ClassificationDataset:
    """The data set of an index, in its own order. train45k, val5k: nine tenths and a tenth of each class of "train".

    Shards on disk must be there and have their length; what is in them is checked by prepare.check. Raises DataError.
    """
    head, lines = read_index(path)
    places = [line["place"] for line in lines]
    for place, line in zip(places, lines):
        if is_url(place):
            continue
        if not os.path.isfile(place):
            raise DataError(place, f"no such shard, though {path} lists it", HINT)
        if os.path.getsize(place) != line["bytes"]:
            raise DataError(place, f"has {os.path.getsize(place)} bytes where {path} says {line['bytes']}", HINT)
    order = np.argsort(np.concatenate([line["places"] for line in lines]))
    shards = Shards(
        places,
        np.repeat(np.arange(len(lines), dtype=np.int32), [len(line["places"]) for line in lines])[order],
        np.concatenate([line["offsets"] for line in lines])[order],
        np.concatenate([line["lengths"] for line in lines])[order],
    )
    whole = ClassificationDataset(
        Path(path).parent,
        split,
        tuple(head["class_names"]),
        Strings.joined([line["names"] for line in lines]).take(order),
        np.concatenate([line["labels"] for line in lines])[order],
        shards=shards,
    )
    if split not in FOLDER_PARTS:
        return whole
    _, first, end = FOLDER_PARTS[split]
    parts = [np.flatnonzero(whole.labels_I == label) for label in range(len(whole.class_names))]
    return whole.subset(np.concatenate([part[len(part) * first // 10 : len(part) * end // 10] for part in parts]))


def read_index(path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and shards of an index, numbers as int64 arrays; "place": path or URL of the shard.

    Raises DataError where it is none, or not whole.
    """
    try:
        with open_place(path) as file:
            texts = (raw.decode("utf-8", "surrogateescape") for raw in file)
            head, *lines = [_columns(parse_json(text)) for text in texts if text.strip()]
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']!r}, not {FORMAT!r}")
        for line in lines:
            if not isinstance(line["bytes"], int) or not isinstance(line["sha256"], str):
                raise ValueError(f"no length or checksum of {line['shard']}")
            if len({len(line[key]) for key in (*NUMBERS, "names")}) > 1:
                raise ValueError(f"lists of different lengths for {line['shard']}")
        places_I, labels_I = (np.concatenate([line[key] for line in lines]) for key in ("places", "labels"))
        everywhere = len(places_I) and np.array_equal(np.sort(places_I), np.arange(len(places_I)))
        if not everywhere or len(places_I) != head["images"]:
            raise ValueError(f"{len(places_I)} of {head['images']} images, or one of them twice")
        named = len(head["class_names"])
        if labels_I.min() < 0 or labels_I.max() >= named:
            raise ValueError(f"classes {labels_I.min()} to {labels_I.max()} where {named} have names")
        folder = path.rpartition("/")[0]
        for line in lines:
            stands_alone = is_url(line["shard"]) or os.path.isabs(line["shard"])
            line["place"] = line["shard"] if stands_alone else f"{folder}/{line['shard']}"
    except OSError as error:
        raise DataError(path, f"cannot be read ({error})", "check the address and its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(path, f"not a whole index of shards ({error!r})", _ANEW) from error
    return head, lines


def _columns(line: dict[str, Any]) -> dict[str, Any]:
    """Lists as arrays and blocks, a line at a time: all of them as lists would take ten times the memory."""
    for key in NUMBERS:
        if key in line:
            line[key] = np.asarray(line[key], np.int64)
    if "names" in line:
        line["names"] = Strings(line["names"])
    return line


def file_system_of(url: str) -> Any:
    """fsspec's, asked for at every use: it makes a new one in every process, as connections do not survive a fork."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise DataError(
            url, f"such addresses cannot be read here ({error})", "install what fsspec needs for them"
        ) from error
