"""One pass over the pictures of a set, in several processes: whether each decodes, and a print of it.

Legend: I pictures. A print is a 64-bit hash and 8 x 8 grey means. The hash has the signs, about their median, of a
32 x 32 copy's lowest 8 x 8 cosine frequencies: scaling, another JPEG quality and other brightness change a few bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.loading.workers import in_processes
from vertebra.ground.errors import BadSample, DataError

AT_ONCE = 64  # pictures that a process is handed
FLAT = 3.0  # grey levels: pictures whose means differ less from one another have no print
_SIDE = 8

Progress = Callable[[int, int], None]  # pictures done, of how many
Pictures = DetectionDataset | ClassificationDataset | SemanticDataset
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Looks:
    """faults: of pictures that cannot be used. fine_I: those that can. hashes_I: uint64. means_ID: uint8, D = 64.

    printed_I: those with a print: fine ones that are not of one colour.
    """

    faults: tuple[Fault, ...]
    fine_I: np.ndarray
    printed_I: np.ndarray
    hashes_I: np.ndarray
    means_ID: np.ndarray


def look(pictures: Pictures, *, processes: int = 0, progress: Progress) -> Looks:
    """Decode every picture as training would, and print it. processes: 0: as many as cores. Raises DataError."""
    found = in_chunks(partial(_look_at, pictures.decode), pictures, processes=processes, progress=progress)
    columns = zip(*((one.fine_I, one.printed_I, one.hashes_I, one.means_ID) for one in found))
    joined = [np.concatenate(column) for column in columns] if found else [np.zeros(0, bool)] * 2 + [
        np.zeros(0, np.uint64), np.zeros((0, _SIDE**2), np.uint8)
    ]  # fmt: skip
    return Looks(tuple(fault for one in found for fault in one.faults), *joined)


def in_chunks(
    work: Callable[[range], _Found],
    pictures: Pictures,
    *,
    processes: int = 0,
    progress: Progress = lambda done, total: None,
) -> list[_Found]:
    """Return work(places) of AT_ONCE pictures after another, in order, from several processes. Raises DataError."""
    starts = range(0, len(pictures), AT_ONCE)
    chunks = [range(start, min(start + AT_ONCE, len(pictures))) for start in starts]
    found: list[_Found] = []
    with closing(in_processes(work, chunks, processes)) as answers:
        try:
            for chunk, answer in zip(chunks, answers):
                found.append(answer)
                progress(chunk.stop, len(pictures))
        except BrokenProcessPool as error:
            first = pictures.path(chunks[len(found)].start)
            reason = "a process that decoded it or one of the pictures after it was ended, as for want of memory"
            raise DataError(first, reason, "look for huge pictures there, or give fewer --processes") from error
    return found


def _look_at(decode: Callable[[int], np.ndarray], chunk: range) -> Looks:
    faults: list[Fault] = []
    fine_I, printed_I = np.zeros(len(chunk), bool), np.zeros(len(chunk), bool)
    hashes_I, means_ID = np.zeros(len(chunk), np.uint64), np.zeros((len(chunk), _SIDE**2), np.uint8)
    for place, index in enumerate(chunk):
        try:
            pixels_HW3 = decode(index)
        except BadSample as error:
            faults.append(Fault(Path(error.where), error.reason, error.hint or "replace it"))
            continue
        fine_I[place] = True
        hashes_I[place], means_ID[place] = fingerprint(pixels_HW3)
        printed_I[place] = means_ID[place].std() >= FLAT
    return Looks(tuple(faults), fine_I, printed_I, hashes_I, means_ID)


def fingerprint(pixels_HW3: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the hash (uint64) and the 64 means (uint8) of an RGB picture."""
    small_HW3 = cv2.resize(pixels_HW3, (32, 32), interpolation=cv2.INTER_AREA)
    grey_HW = cv2.cvtColor(small_HW3, cv2.COLOR_RGB2GRAY)
    waves_D = cv2.dct(grey_HW.astype(np.float32))[:_SIDE, :_SIDE].ravel()
    bits_D = waves_D > np.median(waves_D[1:])  # the first is the mean
    means_HW = cv2.resize(grey_HW, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(bits_D).view(np.uint64)[0], means_HW.ravel()
