"""Writing tar shards, and looking through those of others for an index: see vertebra.data.datasets.shards.

A sample is two members of one key, NNNNNNNNN.jpg and NNNNNNNNN.cls, its class as a number in text. The samples are
shuffled before they are written, for readers that go through them from end to end; datasets.shards restores the order.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from vertebra.data.datasets.folders import EXTENSIONS
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.shards import (
    FORMAT,
    HINT,
    find_shards,
    index_path,
    is_url,
    open_place,
    read_index,
    read_shards,
    split_patterns,
)
from vertebra.ground.errors import BadSample, DataError
from vertebra.ground.files import write_atomically

Progress = Callable[[Iterable[Any]], Iterable[Any]]

BLOCK = tarfile.BLOCKSIZE
CLASS_NAMES = "classnames.txt"  # beside others' shards: one name a line, if there is such a file
_CHUNK = 1 << 22


def write_shards(
    dataset: ClassificationDataset, output: Path, split: str, *, size_mb: float = 256, progress: Progress = iter
) -> Path:
    """Write shards of about `size_mb` MB and their index, and return its path; the same data give the same bytes.

    Nothing unfinished ever stands under its final name, and the index comes last. Raises DataError.
    """
    index = Path(index_path(str(output), split))
    if index.exists():
        raise DataError(index, "these shards are written already", "give another --output, or remove them")
    output.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    lines: list[dict[str, Any]] = []
    samples = iter(progress(order))
    for first in samples:  # of a shard, which takes more
        path = output / f"{split}-{len(lines):06}.tar"
        lines.append(_write_shard(dataset, chain([first], samples), path, size_mb * (1 << 20)))
    write_index(index, dataset.class_names, lines)
    return index


def _write_shard(dataset: ClassificationDataset, samples: Iterator[int], path: Path, size: float) -> dict[str, Any]:
    """Write one shard of the next samples; return its line of the index."""
    line: dict[str, Any] = {"shard": path.name, "places": [], "names": [], "labels": [], "offsets": [], "lengths": []}

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for place in samples:
                extension, content = _picture(dataset, place)
                label = int(dataset.labels_I[place])
                _add(tar, f"{place:09}.{extension}", content)
                line["offsets"].append(tar.offset - -(-len(content) // BLOCK) * BLOCK)
                line["lengths"].append(len(content))
                line["places"].append(place)
                line["names"].append(dataset.file_names[place])
                line["labels"].append(label)
                _add(tar, f"{place:09}.cls", str(label).encode())
                if tar.offset >= size:
                    break

    write_whole(path, write)
    with open(path, "rb") as written:
        line["sha256"] = sha256(written)
        line["bytes"] = os.fstat(written.fileno()).st_size
    return line


def _picture(dataset: ClassificationDataset, place: int) -> tuple[str, bytes]:
    """Extension and content of an image's file; of arrays one is made, without loss."""
    if dataset.pixels_IHW3 is None:
        extension = os.path.splitext(dataset.file_names[place])[1][1:].lower()
        return ("jpg" if extension in ("jpeg", "jpe") else extension), dataset.read(place)
    import cv2

    return "png", cv2.imencode(".png", cv2.cvtColor(dataset.pixels_IHW3[place], cv2.COLOR_RGB2BGR))[1].tobytes()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_index(path: Path, class_names: Sequence[str], lines: Sequence[dict[str, Any]]) -> None:
    """Write the index of these shards, whole or not at all. Raises DataError on a full disk."""
    head = {"format": FORMAT, "images": sum(len(line["places"]) for line in lines), "class_names": list(class_names)}
    texts = (json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *lines))
    write_whole(path, lambda file: file.writelines(text.encode("utf-8", "surrogateescape") for text in texts))


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file, which stands at `path` once it is whole. Raises DataError on a full disk."""
    try:
        write_atomically(path, write)
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        hint = "make room there, or give another --output"
        raise DataError(path, f"cannot be written ({cause.strerror})", hint) from error


def index_shards(data: str, output: Path, split: str, *, shards: Sequence[str] = (), progress: Progress = iter) -> Path:
    """Index shards that others have written, into `output`; return the index's path.

    data: their folder, or a URL. shards: patterns or names in it; none: SPLIT-*.tar, *-SPLIT-*.tar and SPLIT/*.tar.
    Classes are named by the training shards' index in `output`, by classnames.txt beside them, else by their
    numbers. Raises DataError.
    """
    found = find_shards(data, split, shards)
    if not found:
        wanted = " nor ".join(shards or split_patterns(split)[0])
        raise DataError(data, f"no {wanted} in it", "say which tar files to take with --shards")
    lines: list[dict[str, Any]] = []
    images = 0
    for place in progress(found):
        line = scan(place)
        beside = not is_url(data) and output.resolve() == Path(data).resolve()
        line["shard"] = os.path.relpath(place, data) if beside else place if is_url(data) else os.path.abspath(place)
        line["places"] = list(range(images, images + len(line["names"])))
        images += len(line["names"])
        lines.append(line)
    if not images:
        raise DataError(found[0], "no samples in it nor in the others", "a sample is KEY.jpg and KEY.cls")
    output.mkdir(parents=True, exist_ok=True)
    largest, fullest = max((max(line["labels"], default=-1), line["shard"]) for line in lines)
    class_names = _class_names(data, output, split) or [str(number) for number in range(largest + 1)]
    if largest >= len(class_names):
        raise DataError(
            fullest, f"class {largest}, but only {len(class_names)} classes have names", f"correct {CLASS_NAMES}"
        )
    index = Path(index_path(str(output), split))
    write_index(index, class_names, lines)
    return index


def scan(place: str) -> dict[str, Any]:
    """Names, labels, offsets and lengths of one shard's samples, its bytes and sha256. Raises DataError."""
    line: dict[str, Any] = {"names": [], "labels": [], "offsets": [], "lengths": []}
    with _local(place) as file:
        line["bytes"], line["sha256"] = os.fstat(file.fileno()).st_size, sha256(file)
        file.seek(0)
        try:
            for image, label in _samples(place, file):
                line["names"].append(image.name)
                line["labels"].append(label)
                line["offsets"].append(image.offset_data)
                line["lengths"].append(image.size)
        except tarfile.TarError as error:
            raise DataError(place, f"does not read as a tar file ({error})", "fetch or write it again") from error
    return line


def damaged_shards(index: str) -> Iterator[DataError]:
    """An error for each shard of an index whose file is not there or has another checksum."""
    for line in read_index(index)[1]:
        try:
            with _local(line["place"]) as file:
                if sha256(file) != line["sha256"]:
                    yield BadSample(line["place"], f"its bytes are not those that {index} was made of", HINT)
        except DataError as error:
            yield error


def _samples(place: str, file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Image and class of each sample: members that follow one another and share all up to the first dot."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for key, members in groupby((member for member in tar if member.isfile()), key=_key):
            image, label = None, None
            for member in members:
                extension = member.name[len(key) + 1 :].lower()
                if f".{extension}" in EXTENSIONS:
                    image = member
                elif extension == "cls":
                    label = _label(place, member.name, tar.extractfile(member).read())  # type: ignore[union-attr]
            if image is not None and label is not None:
                yield image, label
            elif image is not None or label is not None:
                missing = "class (KEY.cls)" if label is None else "image (KEY.jpg)"
                hint = "add it next to its other half, or leave both out"
                raise DataError(place, f"sample {key} has no {missing}", hint)
        file.seek(tar.offset)
        if file.read(BLOCK).strip(b"\0") or file.tell() < tar.offset + BLOCK:
            raise tarfile.ReadError("its end is missing")


def _key(member: tarfile.TarInfo) -> str:
    """A member's folder, and its name up to the first dot."""
    folder, slash, base = member.name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _label(place: str, name: str, content: bytes) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise DataError(place, f"{name} holds {text[:20]!r}, not a class number from 0 on", "correct it")
    return int(text)


def _class_names(data: str, output: Path, split: str) -> Sequence[str]:
    train = index_path(str(output), "train")
    if split != "train" and os.path.isfile(train):
        return read_shards(train, "train").class_names
    try:
        with open_place(f"{data.rstrip('/')}/{CLASS_NAMES}") as file:
            return file.read().decode().splitlines()
    except OSError:
        return ()


@contextmanager
def _local(place: str) -> Iterator[IO[bytes]]:
    """The file; a remote one is fetched whole, once, into a temporary one."""
    try:
        with open_place(place) as file:
            if not is_url(place):
                yield file
                return
            with tempfile.TemporaryFile() as copy:
                while chunk := file.read(_CHUNK):
                    copy.write(chunk)
                copy.flush()
                copy.seek(0)
                yield copy
    except OSError as error:
        raise DataError(place, f"cannot be read ({error})", "check the address and its permissions") from error


def sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
