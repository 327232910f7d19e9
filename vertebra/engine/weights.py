"""Weights for others to use: safetensors with their provenance inside; reading them checks that they fit.

A mismatch that would only cost accuracy, silently, is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.provenance import plain
from vertebra.ground.errors import UserError
from vertebra.ground.files import require_weights, write_atomically
from vertebra.ground.formats import first_few

METADATA_KEY = "provenance"
# Where a checkpoint has its state dict: detectron2 and timm, torchvision and MoCo, DINO (which tests it), Detectron.
WRAPPERS = ("model", "state_dict", "teacher", "blobs")

# How to say that one of a network's facts differs, and what to do about it.
_MISMATCHES = {
    "name": ("holds weights of {found}, not of {expected}", "choose --backbone {found}, or other weights"),
    "channel_order": (
        "was trained on {found} pixels, and this network is fed {expected}",
        "reorder the first convolution's input channels, or use other weights",
    ),
    "pixel_mean": (
        "was trained with the pixel mean {found}, and this network subtracts {expected}",
        "use weights that were trained with the same mean",
    ),
    "pixel_std": (
        "was trained with the pixel standard deviation {found}, and this network divides by {expected}",
        "use weights that were trained with the same deviation",
    ),
    "stride_in": (
        "has the stride of its bottlenecks in the {found} convolution, and this network in the {expected}",
        "add --stride-in {found}",
    ),
    "shortcut": ("has shortcuts of kind {found}, not {expected}", "add --shortcut {found}"),
    "width": ("is of width {found}, not {expected}", "add --width {found}"),
}


def save_weights(path: Path, state_dict: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> None:
    """Write a safetensors file, atomically, with `provenance` (JSON-able) in its metadata.

    Each tensor is written as a dense copy of its own, even where modules share one.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    content = safetensors_bytes(tensors, {"format": "pt", METADATA_KEY: json.dumps(plain(provenance))})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, on the CPU, and their provenance ({} where the file has none).

    Reads safetensors, and torch files that hold a state dict (as torchvision publishes them; also under one of
    WRAPPERS). Raises UserError for a missing or damaged file and for one that holds no weights, and
    checkpoint.UnsafeCheckpoint for a pickle that could run code.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a directory; name the file of weights in it, such as {path}/model.safetensors.")
    require_weights(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return _state_dict_of(load_checkpoint(path), path), {}


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Return the provenance of a file of weights, of safetensors by their header alone. Raises as `load_weights`."""
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _load_safetensors(path, only_provenance=True)[1]
    return load_weights(path)[1]


def check_provenance(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path | str) -> None:
    """Compare what `path` says of its network with the network it is meant for.

    Facts that only one of them knows are passed over. Raises UserError with one sentence for each that differs.
    """
    found, expected = plain(found), plain(expected)
    sentences = []
    for fact, wanted in expected.items():
        if fact not in found or _same(found[fact], wanted):
            continue
        what, hint = _MISMATCHES.get(
            fact, (f"was made with {fact} {{found}}, and this network has {{expected}}", "use matching weights")
        )
        sentences.append(f"{path} {what}; {hint}.".format(found=_show(found[fact]), expected=_show(wanted)))
    if sentences:
        raise UserError(" ".join(sentences))


def load_into(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: Path | str,
    *,
    allow_missing: Collection[str] = (),
    ignore: Collection[str] = (),
) -> tuple[str, ...]:
    """Copy weights into `model` and return the names that kept the values they had.

    The rest is as in `check_fit`; where it raises, the model is unchanged.
    """
    given, missing = check_fit(model, state_dict, path, allow_missing=allow_missing, ignore=ignore)
    model.load_state_dict(given, strict=False)
    return missing


def check_fit(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: Path | str,
    *,
    allow_missing: Collection[str] = (),
    ignore: Collection[str] = (),
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return what a model would be given, and the names in it that would keep their values.

    allow_missing, ignore: prefixes of names that the file may lack, and of names in it that are not wanted.
    Raises UserError, naming what is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    given = {name: tensor for name, tensor in state_dict.items() if not name.startswith(tuple(ignore))}
    missing = [name for name in wanted if name not in given]
    # Files from before batch norm counted its batches lack these counters, which nothing reads.
    refused = [n for n in missing if not n.startswith(tuple(allow_missing)) and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    shapes = [
        f"{name} ({_shape(tensor)} there, {_shape(wanted[name])} here)"
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    faults = [("lacks", refused), ("has, unknown to this network,", unexpected), ("has other shapes for", shapes)]
    sentences = [f"{what} {first_few(names)}" for what, names in faults if names]
    if sentences:
        raise UserError(
            f"{path} does not fit this network: it {'; it '.join(sentences)}. "
            "Choose the backbone that the weights were made for, or other weights."
        )
    return given, tuple(missing)


def _load_safetensors(path: Path, *, only_provenance: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            names = [] if only_provenance else file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        provenance = json.loads(metadata.get(METADATA_KEY, "{}"))
        if not isinstance(provenance, dict):
            raise ValueError(f"its provenance is {provenance}")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}); fetch or train it again.") from error
    return tensors, provenance


def _state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(f"{path} holds no state dict (names and tensors); save model.state_dict().")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _same(a: Any, b: Any) -> bool:
    """Compare values, numbers up to rounding (means and deviations are written in several ways)."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= 1e-3 * max(abs(a), abs(b), 1e-9)
    return a == b


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(_show(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
