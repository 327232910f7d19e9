"""A user's own network, from a Python file of theirs: `--backbone nets/mine.py:make`.

    # nets/mine.py
    from backbones.adapters import Family, OutsideNet

    def make(num_classes):
        return OutsideNet("mine", MyNet(num_classes), Family("stem stages.*", ":pool", "fc"), num_classes)

`Family` says how the net's modules are chained; strides and channels are measured.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from backbones.base import Backbone, BackboneError


def from_file(path: str, maker: str, num_classes: int, *, output_stride: int = 32) -> Backbone:
    """Return what the function `maker` in the Python file at `path` makes; the file can import its neighbours.

    It is called with num_classes, and with output_stride where it is to be 16 or 8 (DC5, segmentation). Raises
    BackboneError where there is no such file or function, it raises anything, or it makes no Backbone.
    """
    name, file = f"{path}:{maker}", Path(path).resolve()
    if not file.is_file():
        raise BackboneError(
            f"{name}: there is no file {file}; run this in the folder from which that path leads to it."
        )
    try:
        module = _module(file)
        make = getattr(module, maker, None)
        net = (
            make(num_classes=num_classes, **({"output_stride": output_stride} if output_stride < 32 else {}))
            if make
            else None
        )
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    if make is None:
        raise BackboneError(f"{path} has no function {maker!r}; write --backbone {path}:FUNCTION.")
    if not isinstance(net, Backbone):
        raise BackboneError(
            f"{name} makes a {type(net).__name__}, not a Backbone: return backbones.adapters.OutsideNet(NAME, net, "
            "Family(STEPS, TAIL, CLASSIFIER), num_classes), which says how its modules are chained."
        )
    return net


def _module(file: Path) -> ModuleType:
    """Import the file once a process, as `import` does, so that its classes are found by their module's name."""
    name = re.sub(r"\W", "_", str(file))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None  # a file that is there, named .py
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(file.parent))
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(str(file.parent))
    return sys.modules[name]
