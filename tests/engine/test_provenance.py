"""Where figures come from, and when two protocols are the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from vertebra.engine import precision, provenance, rng
from vertebra.engine.provenance import differing_fields, protocol_hash
from vertebra.ground.parse import flatten


def test_a_protocol_is_its_names_and_values_in_any_order():
    fields = {"solver": {"lr": 0.02, "steps": (1, 2)}, "size": 600}
    assert protocol_hash(fields) == protocol_hash({"size": 600, "solver": {"steps": [1, 2], "lr": 0.02}})
    assert protocol_hash(fields) == protocol_hash(json.loads(json.dumps(fields)))
    assert protocol_hash(fields) != protocol_hash({**fields, "size": 601})
    assert len(protocol_hash(fields)) == 64


def test_differing_fields_are_named():
    a = {"solver": {"lr": 0.02, "steps": [1]}, "size": 600, "seed": 1, "data": {"root": "a"}}
    b = {"solver": {"lr": 0.01, "steps": (1,)}, "size": 600, "freeze": 4, "data": {"root": "b"}}
    assert differing_fields(a, b) == ["data.root", "freeze", "seed", "solver.lr"]
    assert differing_fields(a, b, ignore=("seed", "data")) == ["freeze", "solver.lr"]
    assert differing_fields({"x": None}, {}) == ["x"]
    assert flatten({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1, "d": {}}


def test_the_commit_says_whether_files_were_changed_and_whose_they_are(tmp_path):
    source, installed = tmp_path / "a.py", tmp_path / ".venv" / "b.py"
    installed.parent.mkdir()
    for path in (source, installed):
        path.write_text("1")
    assert provenance.git_commit(source) is None

    def git(*arguments: str) -> str:
        options = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *options, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "a.py")
    git("commit", "-qm", "a")
    commit = git("rev-parse", "HEAD")
    assert provenance.git_commit(source) == commit
    assert provenance.git_commit(installed) is None, "a package installed inside some repository is not of it"
    source.write_text("2")
    assert provenance.git_commit(source) == commit + "+dirty"


@pytest.mark.parametrize(
    ("argv0", "expected"),
    [
        ("{here}/.venv/bin/vertebra", "vertebra train-det --output 'a b'"),
        ("{here}/.venv/lib/vertebra/__main__.py", "vertebra train-det --output 'a b'"),
        ("{here}/tools/train_det.py", "python tools/train_det.py --output 'a b'"),
        ("tools/train_det.py", "python tools/train_det.py --output 'a b'"),
        ("../clone/tools/train_det.py", "python ../clone/tools/train_det.py --output 'a b'"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch, tmp_path, argv0, expected):
    monkeypatch.chdir(tmp_path)
    words = ["train-det"] * ("vertebra" in argv0)
    monkeypatch.setattr("sys.argv", [argv0.format(here=tmp_path), *words, "--output", "a b"])
    assert provenance.command() == expected


def test_the_description_can_be_written_as_json():
    described = json.loads(json.dumps(provenance.describe()))
    assert described["versions"]["torch"] == torch.__version__.split("+")[0] or described["versions"]["torch"]
    assert described["machine"]["cores"] >= 1


def test_bf16_is_chosen_where_the_processor_has_it(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx512f amx_bf16\n")
    assert precision.cpu_fact("flags", cpuinfo) == "fpu avx512f amx_bf16"
    assert precision.cpu_fact("flags", Path("/nowhere")) == ""
    for flags, chosen in (("sse avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512f", "fp32"), ("", "fp32")):
        monkeypatch.setattr(precision, "cpu_fact", lambda name, flags=flags: flags)
        assert precision.resolve("auto", cpu) == chosen
        assert precision.resolve("fp32", cpu) == "fp32"


@pytest.mark.parametrize(
    ("gpu", "capability", "bf16", "auto", "float32"),
    [
        ("Pascal", (6, 1), False, "fp32", "all in full"),
        ("Volta", (7, 0), False, "fp16", "all in full"),
        ("Turing", (7, 5), False, "fp16", "all in full"),
        ("Ampere", (8, 0), True, "bf16", "convolutions in TF32 (10 bits of mantissa), all else in full"),
        ("Hopper", (9, 0), True, "bf16", "convolutions in TF32 (10 bits of mantissa), all else in full"),
    ],
)
def test_auto_is_the_format_that_a_gpu_has_tensor_cores_for(monkeypatch, gpu, capability, bf16, auto, float32):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    assert (precision.resolve("auto", cuda), precision.float32_on(cuda)) == (auto, float32), gpu
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert precision.float32_on(cuda) == "all in full"


def test_products_of_float32_keep_their_digits_whatever_a_container_has_set():
    torch.set_float32_matmul_precision("high")
    precision.resolve("fp32", torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"
    assert provenance.machine()["float32"]


def test_random_states_come_back_and_an_evaluation_leaves_no_trace():
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))

    rng.seed_all(3)
    draw()
    state = rng.capture()
    first = draw()
    rng.restore(state)
    with rng.preserved():
        draw()
    assert draw() == first
    rng.seed_all(3, rank=1)
    assert draw() != first
