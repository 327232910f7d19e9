"""Weights carry where they come from, and what does not fit is named."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine.toy import ToyNet
from vertebra.engine.checkpoint import CheckpointError, UnsafeCheckpoint, load_checkpoint
from vertebra.engine.weights import check_provenance, load_into, load_weights, save_weights
from vertebra.ground import files
from vertebra.ground.errors import UserError

IDENTITY = {
    "name": "r50",
    "channel_order": "RGB",
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
    "stride_in": "3x3",
    "shortcut": "B",
    "width": 1.0,
}


def test_weights_and_provenance_come_back(tmp_path):
    model, path = ToyNet(), tmp_path / "new" / "model.safetensors"
    model.alias = model.fc  # shared tensors are written out twice, where safetensors by itself would refuse
    save_weights(path, model.state_dict(), {"backbone": IDENTITY, "figures": {"top1": 76.1}})
    state, provenance = load_weights(path)
    assert provenance["figures"] == {"top1": 76.1} and provenance["backbone"]["name"] == "r50"
    check_provenance(provenance["backbone"], IDENTITY, path)
    for name, weight in model.state_dict().items():
        assert torch.equal(state[name], weight) and state[name].dtype == weight.dtype


@pytest.mark.parametrize(
    ("fact", "found", "sentence"),
    [
        ("name", "r101", "holds weights of r101, not of r50; choose --backbone r101"),
        ("channel_order", "BGR", "was trained on BGR pixels, and this network is fed RGB"),
        ("pixel_mean", [102.98, 115.95, 122.77], r"pixel mean \(102.98, 115.95, 122.77\), and this network subtracts"),
        ("pixel_std", [1.0, 1.0, 1.0], r"standard deviation \(1, 1, 1\), and this network divides by \(58.395"),
        ("stride_in", "1x1", "has the stride of its bottlenecks in the 1x1 convolution.* add --stride-in 1x1"),
        ("shortcut", "A", "has shortcuts of kind A, not B; add --shortcut A"),
        ("width", 0.5, "is of width 0.5, not 1; add --width 0.5"),
    ],
)
def test_each_mismatch_has_its_sentence(fact, found, sentence):
    with pytest.raises(UserError, match=f"^model.safetensors .*{sentence}"):
        check_provenance({**IDENTITY, fact: found}, IDENTITY, "model.safetensors")


def test_a_fact_without_a_sentence_of_its_own_is_named_too():
    with pytest.raises(UserError, match="was made with dilation 2, and this network has 1"):
        check_provenance({"dilation": 2}, {"dilation": 1}, "w")


def test_what_one_side_does_not_know_is_no_mismatch():
    check_provenance({}, IDENTITY, "w")
    check_provenance({**IDENTITY, "norm": "frozen"}, IDENTITY, "w")
    check_provenance({"pixel_mean": [123.68, 116.28, 103.53]}, IDENTITY, "w")  # rounded elsewhere


def test_a_provenance_that_is_none_is_a_sentence(tmp_path):
    save_weights(tmp_path / "a.safetensors", ToyNet().state_dict(), ["ant"])
    with pytest.raises(UserError, match="its provenance is"):
        load_weights(tmp_path / "a.safetensors")


def test_loading_names_what_is_missing_unexpected_and_of_another_shape():
    model = ToyNet()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = dict(ToyNet().state_dict())
    del state["conv.bias"]
    state["conv9.weight"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(5, 6)
    with pytest.raises(UserError) as refused:
        load_into(model, state, "w.pth")
    assert str(refused.value).startswith(
        "w.pth does not fit this network: it lacks conv.bias; it has, unknown to this network, conv9.weight; "
        "it has other shapes for fc.weight (5x6 there, 2x6 here)."
    )
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())


def test_a_head_may_be_left_out():
    model, donor = ToyNet(), ToyNet()
    state = {**donor.state_dict(), "fc.weight": torch.zeros(1000, 6), "fc.bias": torch.zeros(1000)}
    kept = load_into(model, state, "w.pth", allow_missing=("fc.",), ignore=("fc.",))
    assert kept == ("fc.weight", "fc.bias")
    assert torch.equal(model.conv.weight, donor.conv.weight)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
def test_torch_files_are_read(tmp_path, wrap):
    state = ToyNet().state_dict()
    torch.save(wrap({f"module.{name}": weight for name, weight in state.items()}), tmp_path / "w.pth")
    loaded, provenance = load_weights(tmp_path / "w.pth")
    assert provenance == {} and loaded.keys() == state.keys()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_arrays_is_read(tmp_path, protocol):
    model = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "scalar": np.float32(0.5)}
    content = {"model": model, "__author__": "someone"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    loaded, provenance = load_weights(tmp_path / "w.pkl")
    assert provenance == {} and {name: tensor.tolist() for name, tensor in loaded.items()} == {
        "w": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "n": 3,
        "scalar": 0.5,
    }


@pytest.mark.parametrize("value", [nn.Linear(1, 1), len, np.load])
def test_a_pickle_of_more_than_arrays_is_refused(tmp_path, value):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": value}))
    with pytest.raises(UnsafeCheckpoint, match="it is refused"):
        load_weights(tmp_path / "w.pkl")


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(UnsafeCheckpoint, match="it is refused"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("w.safetensors", b"", "is truncated or no safetensors file"),
        ("w.safetensors", b"\x10\0\0\0\0\0\0\0{", "is truncated or no safetensors file"),
        ("w.pth", b"<html>404</html>", "is truncated or damaged|is damaged or not a torch file"),
        ("w.pth", None, "do not exist; check the path"),
        ("w.pkl", b"\x80\x04}", "is truncated or damaged"),
    ],
)
def test_files_that_hold_no_weights_are_a_sentence(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_weights(tmp_path / name)


def test_a_directory_instead_of_its_weights_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is a directory; name the file of weights in it, such as .*model\.safe"):
        load_weights(tmp_path)


def test_numbers_alone_are_no_state_dict(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_weights(tmp_path / "w.pth")


def test_a_full_disk_keeps_the_old_weights(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"w": torch.ones(1)}, {})

    def full(self, data):
        self.failure = OSError(28, os.strerror(28))
        raise self.failure

    monkeypatch.setattr(files._WatchedFile, "write", full)
    with pytest.raises(files.DiskFull):
        save_weights(path, {"w": torch.zeros(1)}, {})
    assert load_weights(path)[0]["w"] == 1


def test_a_small_file_that_asks_for_more_memory_than_there_is_is_damaged(tmp_path, monkeypatch):
    def read(*_: object, **__: object) -> None:
        raise MemoryError

    (tmp_path / "w.pth").write_bytes(b"X" * 46 + b"PV")  # torch's reader: a text of 1.5 GB
    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(CheckpointError, match=r"w\.pth is truncated or damaged \(MemoryError\); fetch it again"):
        load_checkpoint(tmp_path / "w.pth")
    os.truncate(tmp_path / "w.pth", 1 << 27)
    with pytest.raises(MemoryError):
        load_checkpoint(tmp_path / "w.pth")
