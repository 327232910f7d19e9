"""Two hosts, each a network namespace with its own address, and one of them cut off in mid-run and come back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import ROOT

IP = shutil.which("ip") or "/usr/sbin/ip"
HOSTS = {f"va{os.getpid()}": "10.77.0.1", f"vb{os.getpid()}": "10.77.0.2"}
FIRST, SECOND = HOSTS
TINY = (
    *("--config", "sample/objects.yaml", "--backbone", "r18", "--width", "0.25", "--device", "cpu"),
    *("--input.size", "32", "--input.resize", "32", "--solver.batch-size", "8", "--workers", "0"),
    *("--solver.iterations", "100000", "--log-period", "5", "--checkpoint-period", "20"),
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")]


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IP, *words], capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[None]:
    """Namespaces that see each other over one cable, whose ends have the hosts' names."""
    if not Path(IP).exists() or any(ip("netns", "add", host).returncode for host in HOSTS):
        ip("netns", "del", FIRST)
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("link", "add", FIRST, "netns", FIRST, "type", "veth", "peer", "name", SECOND, "netns", SECOND)
        for host, address in HOSTS.items():
            ip("-n", host, "addr", "add", f"{address}/24", "dev", host)
            for device in ("lo", host):
                assert ip("-n", host, "link", "set", device, "up").returncode == 0
        yield
    finally:
        for host in HOSTS:
            ip("netns", "del", host)


def start_node(host: str, output: Path, data: Path, consoles: Path) -> subprocess.Popen:
    """`torchrun` of one worker on that host; the first host keeps the meeting point."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"GLOO_SOCKET_IFNAME": host, "VERTEBRA_PATIENCE_S": "30"}
    # Else a node that joins later waits for an address that torch 2.14's first node has told in the first round alone.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1"]
    torchrun += ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", "job", "--local-addr", HOSTS[host]]
    meeting = f"is_host={host == FIRST},last_call_timeout=5"  # a namespace's name does not tell its address
    torchrun += ["--rdzv-endpoint", f"{HOSTS[FIRST]}:29400", "--rdzv-conf", meeting]
    command = [str(ROOT / "tools" / "train_backbone.py"), *TINY, "--data", str(data), "--output", str(output)]
    with open(consoles / f"{host}.txt", "a") as console:
        return subprocess.Popen(
            [IP, "netns", "exec", host, *torchrun, *command], env=environment, stdout=console, stderr=console
        )


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> float:
    """Return after how many seconds it came to be so."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen"
        time.sleep(0.2)
    return time.monotonic() - started


def test_a_host_that_is_cut_off_is_done_without_and_comes_back(hosts, tmp_path):
    prepare = ("sample", "--data", str(tmp_path), "--scenes", "4", "4", "--objects", "60", "20")
    subprocess.run([sys.executable, str(ROOT / "tools" / "prepare_data.py"), *prepare], check=True)
    run = tmp_path / "run"

    def lines() -> list[int]:
        written = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        return [json.loads(line)["iteration"] for line in written if line.endswith("}")]

    def said(words: str) -> int:
        return (run / "log.txt").read_text().count(words) if (run / "log.txt").exists() else 0

    nodes = [start_node(host, run, tmp_path / "objects", tmp_path) for host in HOSTS]
    try:
        wait_for(lambda: lines()[-1:] > [25])
        ip("-n", SECOND, "link", "set", SECOND, "down")
        alone_s = wait_for(lambda: said("1 processes instead of the 2 that began") == 1)
        wait_for(lambda: "The other processes cannot be asked" in (tmp_path / f"{SECOND}.txt").read_text())
        nodes[1].kill()  # as a host that is started again
        ip("-n", SECOND, "link", "set", SECOND, "up")
        nodes[1] = start_node(SECOND, run, tmp_path / "objects", tmp_path)
        together_s = wait_for(lambda: said("Continuing at iteration") == 2)
        seen = lines()[-1]
        wait_for(lambda: lines()[-1] > seen + 20)
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        assert 0 not in [node.wait(timeout=300) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert said("1 processes instead of the 2") == 1, "at the end they were two again"
    assert lines() == list(range(5, lines()[-1] + 1, 5)), "each line once, none left out"
    print(f"alone {alone_s:.0f} s after the cut, of which 30 s are patience; together again after {together_s:.0f} s")
