"""How glibc's malloc deals with the memory that tensors free on a CPU. With another library nothing here does anything.

Freed blocks stay in malloc's heaps, as holes that later blocks are cut from, or go back to the system: blocks of their
own (above the mmap threshold) when they are freed, the end of a heap when it is longer than the trim threshold.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST = 32 << 20  # bytes; no mmap threshold can be higher
_LARGE = 64 << 10
_KEEPING = {_M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
_GIVING_BACK = {_M_MMAP_THRESHOLD: _LARGE, _M_TRIM_THRESHOLD: _LARGE, _M_TOP_PAD: 0}
# How far glibc moves its thresholds by itself in a process that frees large blocks.
_rules = {_M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: 64 << 20, _M_TOP_PAD: 128 << 10}
_IS_MMAPPED = 2  # in the word before a block: it is none of a heap's


def keep_freed_memory() -> None:
    """Lets this process keep the memory that tensors free, for the next step's.

    Otherwise each step's maps of a few megabytes go back to the system and are fetched, page by page and zeroed, at
    the next: a sixth of the time of a CIFAR net on a CPU. Maps above 32 MB (glibc's bound) still go back.
    """
    global _rules
    _rules = _KEEPING
    _tell(_rules)


@contextmanager
def only_what_is_in_use() -> Iterator[None]:
    """Inside, this thread's blocks of 64 kB and more come from the system anew and go back to it when they are freed.

    So what is resident grows by what is in use, whatever was held, freed and kept before. Holes that are there already
    are taken, unwritten, until the end; what is free of them goes back to the system.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _tell(_GIVING_BACK)
    taken = _take_holes(library)
    library.malloc_trim(0)
    try:
        yield
    finally:
        for block in taken:
            library.free(block)
        _tell(_rules)


def _take_holes(library: Any) -> list[int]:
    """Blocks that leave this thread's heap without a hole of _LARGE or more."""
    taken: list[int] = []
    size, room = _LARGEST, _virtual_bytes()  # more the holes cannot have; blocks of their own may be forbidden
    while size >= _LARGE and room > 0:
        block = library.malloc(size)
        if block is None:
            break
        if ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value & _IS_MMAPPED:
            library.free(block)  # there was no such hole
            size //= 2
        else:
            taken.append(block)
            room -= size
    return taken


def _virtual_bytes() -> int:
    """Of this process's address space, what is mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def _tell(rules: dict[int, int]) -> None:
    if (library := _glibc()) is not None:
        for option, value in rules.items():
            library.mallopt(option, value)


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc, and the process has no other malloc (by LD_PRELOAD)."""
    try:
        library, used = ctypes.CDLL("libc.so.6"), ctypes.CDLL(None)
        addresses = {ctypes.cast(one.malloc, ctypes.c_void_p).value for one in (library, used)}
    except (OSError, AttributeError, TypeError):
        return None
    if not hasattr(library, "gnu_get_libc_version") or len(addresses) > 1:
        return None
    library.malloc.argtypes, library.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    library.free.argtypes, library.free.restype = (ctypes.c_void_p,), None
    return library
