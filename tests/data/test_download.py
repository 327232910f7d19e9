"""Downloads from a server on this machine: whole, broken off, changed in between, and the message when it fails."""

from __future__ import annotations

import errno
import hashlib
import re
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.data.file_server import FileServer
from vertebra.data.prepare import archives, download
from vertebra.data.prepare.archives import ARCHIVES, Archive, Archives, fetch, unpack, unpack_all
from vertebra.data.prepare.download import md5_of
from vertebra.ground.errors import DataError

CONTENT = bytes(range(256)) * 4000  # a megabyte, more than the server sends at a time
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"file.tar": CONTENT}) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file shall be, in a folder that is not there yet."""
    return tmp_path / "new" / "file.tar"


def part_of(path: Path) -> Path:
    return path.with_name("file.tar.part")


def get(server: FileServer, path: Path, **how: Any) -> None:
    download.download(f"{server.url}/file.tar", path, **{"pauses_s": (0.0, 0.0), **how})


def break_off(server: FileServer, path: Path) -> None:
    """A download that ends after 400 kB, which its message tells."""
    server.behaviour.breaks = [400_000]
    with pytest.raises(DataError, match=r"broke off with 0\.4 MB there .*goes on where it stopped"):
        get(server, path, pauses_s=())


def is_alone(path: Path) -> bool:
    """True if nothing but the file is in its folder: no part, no note."""
    return [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_arrives_whole_with_its_progress(server: FileServer, path: Path):
    seen: list[tuple[int, int | None]] = []
    get(server, path, md5=MD5, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and is_alone(path)
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


def test_a_broken_connection_is_resumed_where_it_stopped(server: FileServer, path: Path):
    server.behaviour.breaks = [300_000, 200_000]
    get(server, path, md5=MD5)
    first, *later = server.behaviour.requests
    assert path.read_bytes() == CONTENT and is_alone(path)
    assert first is None and later == ["bytes=300000-", "bytes=500000-"]


def test_another_command_goes_on_with_the_part_of_the_first(server: FileServer, path: Path):
    break_off(server, path)
    assert not path.exists() and part_of(path).stat().st_size == 400_000
    get(server, path, md5=MD5)
    assert server.behaviour.requests[-1] == "bytes=400000-" and path.read_bytes() == CONTENT


@pytest.mark.parametrize("ability", ["ranges", "tags"])
def test_a_server_that_cannot_resume_sends_the_whole_again(server: FileServer, path: Path, ability: str):
    setattr(server.behaviour, ability, False)
    server.behaviour.breaks = [400_000]
    get(server, path, md5=MD5)
    assert path.read_bytes() == CONTENT and is_alone(path)


def test_two_versions_are_never_sewn_together(server: FileServer, path: Path):
    changed = CONTENT[::-1]
    break_off(server, path)
    server.behaviour.files["file.tar"] = changed
    get(server, path)
    assert server.behaviour.requests[-1] == "bytes=400000-" and path.read_bytes() == changed
    with FileServer({"file.tar": CONTENT}) as other:  # nor parts from two servers
        part_of(path).write_bytes(changed[:9])
        path.with_name("file.tar.part.json").write_text('{"url": "http://elsewhere", "validator": "x"}')
        get(other, path, md5=MD5)
        assert other.behaviour.requests == [None]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: FileServer, path: Path):
    break_off(server, path)
    with part_of(path).open("ab") as part:
        part.write(CONTENT)
    get(server, path, md5=MD5)
    assert path.read_bytes() == CONTENT and is_alone(path)


def test_a_wrong_checksum_removes_the_file_and_names_both(server: FileServer, path: Path):
    sentence = rf"has md5 {MD5}, not the owner's 0123, and was removed; .*--mirror URL"
    with pytest.raises(DataError, match=sentence):
        get(server, path, md5="0123")
    assert list(path.parent.iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: FileServer, path: Path):
    server.behaviour.errors = [503, 500]
    get(server, path, md5=MD5)
    assert len(server.behaviour.requests) == 3
    with pytest.raises(DataError, match=r"gone\.tar: the server answers 404 Not Found; check the address"):
        download.download(f"{server.url}/gone.tar", path.with_name("gone.tar"))
    assert len(server.behaviour.requests) == 4


def test_a_refused_connection_is_a_sentence(path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.tar"
        with pytest.raises(DataError, match=r"the download did not begin \(no connection: Connection refused\); check"):
            download.download(url, path, pauses_s=(0.0,))
    with pytest.raises(DataError, match="is no address"):
        download.download("file.tar", path)


def test_a_full_disk_is_told_before_and_during_the_download(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = download.shutil.disk_usage(path.parent.parent)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"file\.tar: 0\.0 GB are to come and 0\.0 GB are free; make room"):
        get(server, path)
    monkeypatch.undo()

    class Full:
        """A file on a disk with room for 300 kB."""

        def __init__(self, part: Path, mode: str) -> None:
            self.file, self.left = part.open(mode), 300_000

        def write(self, chunk: bytes) -> None:
            self.left -= self.file.write(chunk[: self.left])
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    monkeypatch.setattr(download, "_open", Full)
    with pytest.raises(DataError, match=r"file\.tar\.part: cannot be written \(No space left on device\); make"):
        get(server, path)
    monkeypatch.undo()
    get(server, path, md5=MD5)
    assert server.behaviour.requests[-1] == "bytes=300000-" and path.read_bytes() == CONTENT


def test_the_owners_checksums_are_torchvisions():
    """Read from where they are published, so that a slip of the pen cannot stay."""
    (place,) = find_spec("torchvision").submodule_search_locations  # read, not imported: that takes seconds
    published: set[tuple[str, str]] = set()
    for module in ("voc", "cifar"):
        text = (Path(place) / "datasets" / f"{module}.py").read_text()
        published |= set(re.findall(r'filename"?\s*[:=]\s*"([^"]+)",?\s*"?(?:tgz_)?md5"?\s*[:=]\s*"(\w{32})"', text))
    known = {one.name: one.md5 for archive in ARCHIVES.values() for one in archive.files if one.md5}
    assert len(known) == 4 and known.items() <= published


def nothing(name: str) -> download.Progress:
    return lambda done, total: None


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> str:
    """A set of one tar with a checksum, one zip without, and one that is never missed."""
    files = (Archive("a.tar", "http://127.0.0.1:9/a.tar", MD5), Archive("b.zip"), Archive("c.zip", optional=True))
    monkeypatch.setitem(archives.ARCHIVES, "mine", Archives(home="nowhere", files=files, sources=("train",)))
    return "mine"


def test_a_mirror_stands_for_the_owner_and_each_file_says_how_it_was_checked(tmp_path: Path, mine: str):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        made.writestr("inner/x.txt", "hello")
    files = {"sets/a.tar": CONTENT, "sets/b.zip": (tmp_path / "made.zip").read_bytes()}
    with FileServer(files) as server:
        sentences = fetch(mine, tmp_path, mirror=f"{server.url}/sets/", progress=nothing)
        assert len(server.behaviour.requests) == 2
        assert fetch(mine, tmp_path, mirror=server.url, progress=nothing) == sentences, "they are there already"
        assert len(server.behaviour.requests) == 2
    assert f"a.tar: whole, its md5 is the owner's ({MD5})" in sentences[0]
    assert "b.zip: the owner publishes no checksum; its length is the server's" in sentences[1]
    (tmp_path / "a.tar").write_bytes(b"other")
    with pytest.raises(
        DataError, match=rf"a\.tar: has md5 {md5_of(tmp_path / 'a.tar')}, not the owner's {MD5}; remove"
    ):
        fetch(mine, tmp_path, progress=nothing)


def test_what_needs_an_account_says_so(tmp_path: Path):
    with pytest.raises(DataError, match=r"ILSVRC2017_DET\.tar\.gz: needs an account with ImageNet's owner"):
        fetch("imagenet_det", tmp_path, progress=nothing)


def test_archives_are_unpacked_once_and_damaged_ones_named(tmp_path: Path, mine: str):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        made.writestr("inner/x.txt", "hello")
    assert unpack_all(mine, tmp_path, progress=iter) == ("train",)
    assert (tmp_path / "inner" / "x.txt").read_text() == "hello"
    (tmp_path / "inner" / "x.txt").unlink()
    unpack(tmp_path / "b.zip", tmp_path)
    assert not (tmp_path / "inner" / "x.txt").exists(), "a mark says that it was done"
    for name, content in (("d.zip", b"PK"), ("e.tar", b"x" * 600), ("f.tar.gz", b"\x1f\x8b\x08" + b"x" * 60)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: is damaged or cut off .*; remove it and fetch it again"):
            unpack(tmp_path / name, tmp_path)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as made:
        made.add(__file__, "inner/big.py")
    content = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.tar\.gz: is damaged or cut off"):
        unpack(tmp_path / "cut.tar.gz", tmp_path)
