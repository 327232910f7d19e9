"""The memory that tensors free on a CPU stays with the process."""

import ctypes
import subprocess
import sys

import pytest

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
