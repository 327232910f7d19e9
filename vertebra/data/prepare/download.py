"""Fetching large files whole: resumed where they broke off, checked, and renamed only then.

FILE.part grows beside FILE; FILE.part.json holds what the server said of the version it began with (ETag or
Last-Modified), which If-Range sends along, so that two versions are never sewn together: a server whose file has
changed, or that knows no ranges, sends the whole again and the part begins anew.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vertebra.ground.errors import DataError

Progress = Callable[[int, int | None], None]  # bytes that are there, bytes in all if the server says so

PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before each further attempt; an attempt that got anything starts them anew
TIMEOUT_S = 60
_CHUNK = 1 << 18
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be others a moment later
_AGAIN = "run the same command again, it goes on where it stopped"


class _Interrupted(Exception):
    """A connection that broke, or was not there; another attempt may do better."""


def download(
    url: str,
    path: Path,
    *,
    md5: str | None = None,
    progress: Progress = lambda done, total: None,
    pauses_s: Sequence[float] = PAUSES_S,
) -> None:
    """Fetch `url` to `path`, going on with a part of it that is there.

    md5: the owner's checksum; a file that differs is removed. Raises DataError.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    pauses = iter(pauses_s)
    while True:
        before = _length(part)
        try:
            _attempt(url, path, part, progress)
            break
        except _Interrupted as error:
            if _length(part) > before:
                pauses = iter(pauses_s)
            pause = next(pauses, None)
            if pause is None:
                there = f"broke off with {_length(part) / 1e6:.1f} MB there" if _length(part) else "did not begin"
                hint = "check the network, or name another place (--mirror URL)"
                raise DataError(url, f"the download {there} ({error})", f"{hint}, and {_AGAIN}") from None
            time.sleep(pause)
    if md5 is not None and (found := md5_of(part)) != md5:
        _forget(part)
        raise DataError(
            path,
            f"what came from {url} has md5 {found}, not the owner's {md5}, and was removed",
            "run the command again, or fetch it from elsewhere (--mirror URL)",
        )
    os.replace(part, path)
    _forget(part)


def md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _attempt(url: str, path: Path, part: Path, progress: Progress) -> None:
    """One connection. Raises _Interrupted where another may do better, DataError where none will."""
    start, headers = _length(part), {"User-Agent": "vertebra", "Accept-Encoding": "identity"}
    validator = _validator_of(part, url)
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
            start, total = _begin(answer, part, url, start)
            need_room(path, path.parent, None if total is None else total - start)
            _receive(answer, part, start, total, progress)
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer: of another version
            _forget(part)
            raise _Interrupted("the part that was there did not fit, and was removed") from None
        if error.code in _PASSING:
            raise _Interrupted(f"the server answers {error.code} {error.reason}") from None
        raise DataError(
            url,
            f"the server answers {error.code} {error.reason}",
            "check the address, fetch the file by hand, or name another place (--mirror URL)",
        ) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _Interrupted(f"no connection: {reason}") from None
    except (http.client.HTTPException, OSError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None
    except ValueError as error:
        raise DataError(url, f"is no address ({error})", "give one that begins with https://") from None


def _begin(answer: Any, part: Path, url: str, start: int) -> tuple[int, int | None]:
    """Return where this answer's bytes begin and how long the whole is, and note which version it is of."""
    length = answer.headers.get("Content-Length")
    if answer.status == 206:
        span, _, whole = (answer.headers.get("Content-Range") or "").partition("/")
        first = span.removeprefix("bytes ").partition("-")[0]
        if first != str(start):
            _forget(part)
            raise _Interrupted("the server sent another part than was asked for")
        return start, int(whole) if whole.isdigit() else None
    etag = answer.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    _write_note(part, {"url": url, "validator": strong or answer.headers.get("Last-Modified")})
    return 0, int(length) if length is not None and length.isdigit() else None


def _receive(answer: Any, part: Path, start: int, total: int | None, progress: Progress) -> None:
    done = start
    progress(done, total)
    with _open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        while chunk := answer.read(_CHUNK):
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise _no_room(part, error) from error
            done += len(chunk)
            progress(done, total)
    if total is not None and done != total:
        raise _Interrupted(f"{total - done} of {total} bytes are missing")


def _open(part: Path, mode: str) -> Any:
    try:
        return open(part, mode)
    except OSError as error:
        raise _no_room(part, error) from error


def _no_room(part: Path, error: OSError) -> DataError:
    return DataError(part, f"cannot be written ({error.strerror})", f"make room or give another --data, and {_AGAIN}")


def need_room(path: Path, folder: Path, needed: int | None) -> None:
    """Raise DataError where so many bytes do not fit, before they come rather than after most of them."""
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise DataError(
            path,
            f"{needed / 1e9:.1f} GB are to come and {free / 1e9:.1f} GB are free",
            f"make room, and {_AGAIN}",
        )


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator_of(part: Path, url: str) -> str | None:
    """The ETag or Last-Modified of the part's version; None where it is of another address, or unknown."""
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        return note["validator"] if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(part: Path, note: dict[str, Any]) -> None:
    try:
        part.unlink(missing_ok=True)  # before the note, so that they never belong to two versions
        _note_of(part).write_text(json.dumps(note), encoding="utf-8")
    except OSError as error:
        raise _no_room(part, error) from error


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)
