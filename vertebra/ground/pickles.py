"""Pickles of arrays, read without running code: a pickle may name any function, and here only what arrays need is."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

# numpy.core is what numpy before 2 calls numpy._core; the files of Python 2 have _codecs.encode.
ALLOWED = frozenset(
    {
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
    }
)


def read_arrays(path: Path, *, encoding: str) -> Any:
    """Return the arrays, numbers, strings, lists and dicts of a pickle. encoding: of strings of Python 2; or "bytes".

    Raises pickle.UnpicklingError for a pickle that names anything else, and any error for a damaged one.
    """
    with open(path, "rb") as file:
        return _ArraysOnly(file, encoding=encoding).load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which only a harmful file would")
        if module.startswith("numpy."):
            core = "_core" if hasattr(np, "_core") else "core"
            module = f"numpy.{core}.{module.rpartition('.')[2]}"
        return super().find_class(module, name)
