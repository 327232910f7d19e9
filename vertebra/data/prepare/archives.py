"""The owners' archives: what they are called, where they lie, how they are known to be whole, and unpacking them.

VOC's and CIFAR's md5 are those that torchvision's data sets publish. COCO's owners publish none: its archives are
known by the length that the server announces and by the check sums inside the zip, which unpacking compares.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.data.prepare.download import Progress, download, md5_of, need_room
from vertebra.ground.errors import DataError, first_line

_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"


@dataclass(frozen=True)
class Archive:
    """One file. url: its owner's address, "": it needs an account there. optional: used where it is, never missed.

    sources: what it adds to the set's own.
    """

    name: str
    url: str = ""
    md5: str | None = None
    optional: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archives:
    """The owner's files of one data set, and the sources that lie in them. account: whose terms are to be accepted."""

    home: str
    files: tuple[Archive, ...]
    sources: tuple[str, ...]
    account: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files that the set cannot do without."""
        return tuple(one.name for one in self.files if not one.optional)


def _voc(year: int, name: str, md5: str) -> Archive:
    return Archive(name, f"{_VOC}/voc{year}/{name}", md5)


def _coco(year: int) -> Archives:
    names = [(f"{split}{year}.zip", "zips") for split in ("train", "val")]
    names.append((f"annotations_trainval{year}.zip", "annotations"))
    return Archives(
        home="the COCO page (cocodataset.org, Download)",
        files=tuple(Archive(name, f"{_COCO}/{folder}/{name}") for name, folder in names),
        sources=(f"coco/train{year}", f"coco/val{year}"),
    )


ARCHIVES = {
    "voc07": Archives(
        home="the PASCAL VOC 2007 page (host.robots.ox.ac.uk/pascal/VOC/voc2007)",
        files=(
            _voc(2007, "VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
            _voc(2007, "VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
        ),
        sources=("voc2007/trainval", "voc2007/test"),
    ),
    "voc12": Archives(
        home="the PASCAL VOC 2012 page (host.robots.ox.ac.uk/pascal/VOC/voc2012)",
        files=(
            _voc(2012, "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),
            # from the evaluation server, with an account
            Archive("VOC2012test.tar", optional=True, sources=("voc2012/test",)),
        ),
        sources=("voc2012/trainval",),
    ),
    "coco": _coco(2017),
    "coco2014": _coco(2014),
    "imagenet_det": Archives(
        home="the ImageNet page (image-net.org, Download)",
        files=(
            Archive("ILSVRC2017_DET.tar.gz"),
            Archive("ILSVRC2017_DET_test_new.tar.gz", optional=True, sources=("imagenet_det/test",)),
        ),
        sources=("imagenet_det/train", "imagenet_det/val"),
        account="ImageNet's owner (image-net.org)",
    ),
    "cifar10": Archives(
        home="the CIFAR page (cs.toronto.edu/~kriz/cifar.html)",
        files=(
            Archive(
                "cifar-10-python.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
            ),
            Archive("cifar10_jpg.tar.xz", optional=True),
        ),
        sources=("train", "test"),
    ),
}


def fetch(name: str, data: Path, *, mirror: str = "", progress: Callable[[str], Progress]) -> list[str]:
    """Download a set's archives into `data`, but for those that are there or unpacked; return how each was checked.

    mirror: a base URL in the place of the owner's. progress: makes the progress of a file. Raises DataError.
    """
    archives = ARCHIVES[name]
    if archives.account:
        raise DataError(
            ", ".join(archives.names),
            f"needs an account with {archives.account}, so it cannot be downloaded from here",
            f"log in there, fetch it into {data}, and run this command without --download",
        )
    sentences = []
    for one in archives.files:
        path = data / one.name
        if one.optional or unpacked_mark(path).exists():
            continue
        url = f"{mirror.rstrip('/')}/{one.name}" if mirror else one.url
        if not path.is_file():
            download(url, path, md5=one.md5, progress=progress(one.name))
        elif one.md5 is not None and (found := md5_of(path)) != one.md5:
            raise DataError(path, f"has md5 {found}, not the owner's {one.md5}", "remove it and run the command again")
        sentences.append(f"{path}: {_how_checked(path, one)}")
    return sentences


def unpack_all(name: str, data: Path, *, progress: Callable[[list[Path]], Iterable[Path]]) -> tuple[str, ...]:
    """Unpack those of a set's archives that are in `data`; return the sources that it has now. Raises DataError."""
    archives = ARCHIVES[name]
    for file in progress([data / one.name for one in archives.files if (data / one.name).is_file()]):
        unpack(file, data)
    added = [
        source
        for one in archives.files
        if (data / one.name).is_file() or unpacked_mark(data / one.name).exists()
        for source in one.sources
    ]
    return (*archives.sources, *added)


def unpack(file: Path, into: Path) -> None:
    """Unpack once: a mark beside the archive shows that it was done whole. Raises DataError."""
    if unpacked_mark(file).exists():
        return
    try:
        _unpack_zip(file, into) if file.suffix == ".zip" else _unpack_tar(file, into)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = first_line(error).rstrip(":")
        raise DataError(file, f"is damaged or cut off ({reason})", "remove it and fetch it again") from error
    except OSError as error:
        where = error.filename or into
        raise DataError(where, f"cannot be written ({error.strerror or error})", f"make room in {into}") from error
    unpacked_mark(file).touch()


def unpacked_mark(file: Path) -> Path:
    return file.with_name(file.name + ".unpacked")


def _how_checked(path: Path, archive: Archive) -> str:
    if archive.md5 is not None:
        return f"whole, its md5 is the owner's ({archive.md5})"
    if path.suffix == ".zip" and not zipfile.is_zipfile(path):
        raise DataError(path, "is no whole zip file", "remove it and run the command again")
    return "the owner publishes no checksum; its length is the server's, and its content is checked in unpacking"


def _unpack_zip(file: Path, into: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse_outside(file, into, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        need_room(file, into, sum(member.file_size for member in members))
        archive.extractall(into)


def _unpack_tar(file: Path, into: Path) -> None:
    # Python's own guard as well, where this release has it.
    guard: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(file) as archive:
        for member in archive:
            _refuse_outside(file, into, member.name, member.isfile() or member.isdir())
            need_room(file, into, member.size)
            archive.extract(member, into, **guard)


def _refuse_outside(file: Path, into: Path, name: str, is_plain: bool) -> None:
    """Raise DataError for what would be written elsewhere, now or through a link, and for what is no plain file."""
    if not is_plain or not (into / name).resolve().is_relative_to(into.resolve()):
        raise DataError(file, f"holds {name}, which leads out of {into}", "fetch the archive again")
