"""The GPU's kernel without a GPU: interpreted on the CPU, and compiled for real machines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton, which torch brings along on Linux")

REPOSITORY = Path(__file__).parents[2]


def test_interpreted_it_keeps_what_torchvision_keeps() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.detectors.nms_interpreted"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("grouped", [False, True])
def test_it_compiles_without_fused_arithmetic_or_approximate_division(grouped: bool) -> None:
    # The interpreter knows no types; and a fused multiply-add would round otherwise than torchvision's kernel.
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from detectors import nms_kernel

    types = {"K": "i32", "D": "i32", "threshold": "fp32", "candidates_ptr": "*i32", "found_ptr": "*i32"}
    types |= dict.fromkeys(("boxes_ptr", "kept_boxes_ptr"), "*fp32")
    types |= dict.fromkeys(("groups_ptr", "order_ptr", "index_ptr", "kept_groups_ptr"), "*i64")
    constants = {"GROUPED": grouped, "BLOCK": nms_kernel.BLOCK, "KEPT_BLOCK": nms_kernel.KEPT_BLOCK}
    signature = {name: types.get(name, "constexpr") for name in nms_kernel._keep_best.arg_names}
    source = ASTSource(fn=nms_kernel._keep_best, signature=signature, constexprs=constants)
    try:
        compiled = compile(source, target=GPUTarget("cuda", 80, 32), options=nms_kernel.OPTIONS)
    except (RuntimeError, FileNotFoundError) as error:
        pytest.skip(f"this Triton has no assembler for NVIDIA's machines: {error}")
    assert not re.search(r"\bfma\.", compiled.asm["ptx"])
    assert set(re.findall(r"\bdiv\.[a-z0-9.]*f32\b", compiled.asm["ptx"])) == {"div.rn.f32"}
    assert compiled.asm["cubin"]
