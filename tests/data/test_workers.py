"""Loader processes: what they cannot do ends in a sentence within seconds, with the file that they were at."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter as DataLoaderIter

from vertebra.data.loading import workers
from vertebra.data.loading.loaders import Batch, Loader, empty_pixels
from vertebra.data.loading.sampling import Request, Share, sequential_requests
from vertebra.data.loading.workers import Crew, at_file
from vertebra.ground.errors import DataError, UserError

ROOT = Path(__file__).resolve().parents[2]


class Reader:
    """Gives batches of `mb` megabytes; at image 5 it does `fate`."""

    def __init__(self, fate=lambda: None, mb: float = 0.001, known: bool = True):
        self.fate, self.bytes = fate, int(mb * 2**20)
        self.batch_bytes = lambda images: self.bytes if known else 0

    def __call__(self, request: Request) -> Batch:
        for index in request.indices:
            at_file(f"photos/{index}.jpg")
            if index == 5:
                self.fate()
        return Batch((torch.zeros(self.bytes, dtype=torch.uint8),), request.indices)


def loader(reader: Reader, count: int = 2) -> Loader:
    return Loader(reader, sequential_requests(12, Share(batch=2)), count)


def end_by(number: int):
    return lambda: os.kill(os.getpid(), number)


def raise_(error: Exception):
    def fate():
        raise error

    return fate


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        (
            end_by(signal.SIGKILL),
            "loader process 1 of 2 was ended by SIGKILL, as the kernel does where memory runs out",
        ),
        (end_by(signal.SIGBUS), "loader process 1 of 2 was ended by SIGBUS, as where /dev/shm or a disk is full"),
        (end_by(signal.SIGSEGV), "loader process 1 of 2 was ended by SIGSEGV; it was at this file"),
        (lambda: os._exit(3), "loader process 1 of 2 ended with 3"),
        (raise_(KeyError("x")), "a loader process failed at it (KeyError: 'x'); VERTEBRA_TRACEBACK=1 shows where"),
        (raise_(MemoryError("9 GB")), "a loader process failed at it (MemoryError: 9 GB)"),
    ],
)
def test_a_loader_process_that_ends_is_named_with_its_file_in_seconds(fate, sentence):
    started = time.monotonic()
    seen = []
    with pytest.raises(UserError) as ended:
        for batch in loader(Reader(fate)):
            seen += batch.image_ids
    assert str(ended.value).startswith("photos/5.jpg: ") and sentence.partition(";")[0] in str(ended.value)
    assert seen == [0, 1, 2, 3][: len(seen)] and time.monotonic() - started < 20
    if "KeyError" in sentence:
        assert "in fate" in str(ended.value.__cause__), "the traceback is there for those who ask for it"


def test_the_end_of_a_loader_process_does_not_strike_in_the_midst_of_a_step():
    """Torch would raise wherever the main thread is, in a checkpoint for example."""
    batches = iter(loader(Reader()))
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    time.sleep(0.1)  # here
    with pytest.raises(UserError, match="was ended by SIGKILL"):
        list(batches)


def test_a_process_that_ends_while_it_hands_over_a_batch_is_named_too(monkeypatch):
    batches = iter(loader(Reader()))
    next(batches)
    monkeypatch.setattr(DataLoaderIter, "__next__", lambda self: raise_(ConnectionResetError(104, "reset by peer"))())
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(UserError, match="was ended by SIGKILL"):
        next(batches)


def test_what_a_reader_says_of_a_file_stays_what_it_is():
    with pytest.raises(DataError, match=r"^a\.jpg: is bad; fix it$"):
        list(loader(Reader(raise_(DataError("a.jpg", "is bad", "fix it")))))
    with pytest.raises(KeyError):
        list(loader(Reader(raise_(KeyError("x"))), count=0))


def test_files_of_others_stay_theirs():
    crew = Crew(2)
    assert crew.file_of(0) == crew.file_of(1) == "the loader"
    assert [batch.image_ids for batch in loader(Reader())] == [(n, n + 1) for n in range(0, 12, 2)]
    long = "ä" * 2000
    crew._slot_of(1)[:4] = b"a.b\0"
    assert crew.file_of(1) == "a.b" and crew.file_of(0) == "the loader" and len(os.fsencode(long)) > workers._NAME_BYTES


@pytest.mark.parametrize(
    ("processes", "mb", "tested_mb", "fits"),
    [(1, 10, 0, True), (1, 30, 0, False), (2, 10, 0, True), (4, 10, 0, False), (1, 10, 16, True), (2, 6, 8, False)],
)
def test_batches_that_find_no_room_are_said_before_the_workers_start(monkeypatch, processes, mb, tested_mb, fits):
    """100 MB, of which two workers ask for five batches, and an evaluation's one beside them for three."""
    room = os.statvfs_result((4096, 4096, 25600, 25600, 25600, 0, 0, 0, 0, 255))
    monkeypatch.setattr(workers.os, "statvfs", lambda _: room)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    beside = [loader(Reader(mb=tested_mb), 1)] if tested_mb else []
    if fits:
        return loader(Reader(mb=mb)).require_room(*beside)
    with pytest.raises(UserError) as refused:
        loader(Reader(mb=mb)).require_room(*beside)
    each = f" for each of {processes} processes" if processes > 1 else ""
    assert str(refused.value) == (
        f"/dev/shm: too small: the batches of {2 + len(beside)} loader processes take {5 * mb + 3 * tested_mb} MB of "
        f"shared memory, and it has {100 // processes} MB{each}; give fewer --workers, or more room: docker run "
        "--shm-size=8g"
    )


CAN_MOUNT = (
    sys.platform == "linux"
    and subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"], capture_output=True, check=False
    ).returncode
    == 0
)
PROGRAM = """
from tests.data.test_workers import Reader, loader
from vertebra.ground.errors import UserError
try:
    for batch in loader(Reader(mb={mb}, known={known})):
        print(len(batch), flush=True)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="a /dev/shm of one's own needs the right to mount")
@pytest.mark.parametrize(
    ("mb", "known", "sentence"),
    [
        (0.01, True, "2\n2\n2\n2\n2\n2\n"),
        (0.4, True, "/dev/shm: too small: the batches of 2 loader processes take 2 MB"),
        (0.4, False, "/dev/shm: full: a loader process finds no room there for a batch; give fewer --workers"),
        (4, False, "/dev/shm: full: a loader process finds no room there for a batch; give fewer --workers"),
    ],
)
def test_a_full_dev_shm_ends_in_a_sentence(mb, known, sentence):
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "
    program = PROGRAM.format(mb=mb, known=known)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert sentence in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.returncode == 0


def test_pixels_are_written_where_the_main_process_reads_them():
    """A batch's pixels are in shared memory before they are written; only then sharing the batch copies nothing."""

    def is_shared(request: Request) -> Batch:
        pixels_NHW3 = empty_pixels(len(request.indices), 4, 5)
        pixels_NHW3.numpy()[:] = pixels_NHW3.is_shared()
        return Batch((pixels_NHW3,), request.indices)

    for count in (0, 1):
        for batch in Loader(is_shared, sequential_requests(5, Share(batch=2)), count):
            assert batch.inputs[0].shape == (len(batch), 4, 5, 3) and (batch.inputs[0] == count).all()
    assert empty_pixels(0, 4, 5).shape == (0, 4, 5, 3)
