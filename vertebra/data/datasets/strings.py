"""Many strings in one block of bytes.

A Python list of them would cost several times the memory, and forked workers would copy its pages at every use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

_AT_ONCE = 1 << 16  # strings that are copied at a time


class Strings(Sequence[str]):
    """An immutable list of strings in one block of bytes."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        lengths = np.fromiter((len(one) for one in encoded), np.int64, len(encoded))
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return Strings(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        encoded = self._bytes[self._starts[index] : self._starts[index + 1]].tobytes()
        return encoded.decode("utf-8", "surrogateescape")

    def empty(self) -> np.ndarray:
        """Which of the strings are empty, bool."""
        return np.diff(self._starts) == 0

    @classmethod
    def joined(cls, parts: Sequence[Strings]) -> Strings:
        """All strings of the parts, one part after the other."""
        lengths = np.concatenate([np.diff(part._starts) for part in parts])
        return cls._of(lengths, np.concatenate([part._bytes for part in parts]))

    def take(self, indices: np.ndarray) -> Strings:
        """The strings at these places, without making any of them."""
        lengths = np.diff(self._starts)[indices]
        taken = self._of(lengths, np.empty(lengths.sum(), np.uint8))
        for first in range(0, len(indices), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            start, stop = taken._starts[first], taken._starts[min(first + _AT_ONCE, len(indices))]
            shifts = np.repeat(self._starts[indices[some]] - taken._starts[some][: len(lengths[some])], lengths[some])
            taken._bytes[start:stop] = self._bytes[np.arange(start, stop) + shifts]
        return taken

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each string starts, and their end (int64); the bytes of all."""
        return self._starts, self._bytes

    @classmethod
    def of(cls, starts: np.ndarray, content: np.ndarray) -> Strings:
        """The strings of `arrays`."""
        made = cls(())
        made._starts, made._bytes = starts, content
        return made

    @classmethod
    def _of(cls, lengths: np.ndarray, content: np.ndarray) -> Strings:
        return cls.of(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), content)

    def update_hash(self, digest: Any) -> None:
        digest.update(self._starts.tobytes())
        digest.update(self._bytes)
