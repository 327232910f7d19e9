"""The cores and loader processes of a machine, and the memory that tensors free on a CPU, which stays."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vertebra.engine import device
from vertebra.ground import cores

# Of a map of 16 MB, how much lies in pages that go back to the system when it is freed: before the start and after.
SCRIPT = """
import ctypes, torch
from vertebra.engine import distributed
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
def mapped():
    before = mallinfo2().hblkhd
    tensor = torch.zeros(4 << 20)
    return mallinfo2().hblkhd - before
first = mapped()
distributed.start("cpu")
print(first, mapped())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="speaks of glibc's malloc"
)
def test_a_process_on_a_cpu_keeps_the_memory_that_its_maps_free():
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True).stdout
    before, after = map(int, output.split())
    assert before >= 16 << 20 and after == 0


@pytest.mark.parametrize(
    ("usable", "processes", "workers"),
    [(2, 1, 2), (1, 1, 2), (8, 1, 7), (64, 1, 16), (128, 8, 15), (224, 8, 16), (32, 8, 3), (8, 8, 2)],
)
def test_auto_workers_are_the_cores_that_the_nodes_processes_leave_over(monkeypatch, usable, processes, workers):
    monkeypatch.setattr(device, "usable_cores", lambda: usable)
    assert device.loader_workers("auto", processes=processes) == workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert device.loader_workers("auto") == workers
    assert device.loader_workers(0) == 0 and device.loader_workers(40) == 40, "a number is a number"


@pytest.mark.parametrize(
    ("cores", "processes", "variables", "threads"),
    [(2, 1, {}, 2), (64, 1, {}, 32), (64, 8, {}, 8), (1, 4, {}, 1), (2, 1, {"OMP_NUM_THREADS": "12"}, None)],
)
def test_torch_has_as_many_threads_as_the_process_has_cores(monkeypatch, cores, processes, variables, threads):
    given = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in {"LOCAL_WORLD_SIZE": str(processes), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    device.fit_threads()
    assert given == ([] if threads is None else [threads])


@pytest.mark.parametrize(
    ("line", "files", "quota"),
    [
        ("0::/job/step", {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000"}, 4),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/job", {}, 1e9),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu:/job", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 1e9),
        ("4:memory:/job", {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"}, 1e9),
    ],
)
def test_a_cgroups_quota_counts_as_cores(tmp_path: Path, monkeypatch, line, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "groups").write_text(f"9:name=systemd:/\n{line}\n")
    assert cores.cgroup_quota(tmp_path / "groups", tmp_path) == quota
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert 1 <= cores.usable_cores() <= max(1, quota)
