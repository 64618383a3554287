"""What glibc does with freed memory, asked of a process of its own."""

import platform
import subprocess
import sys

import pytest

from mtnet_jax.cpu.allocator import keep_large_buffers
from tests.conftest import REPOSITORY

PROGRAM = """
import numpy as np
from mtnet_jax.cpu.allocator import keep_large_buffers, return_freed_memory

def resident():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmRSS:")[1].split()[0]) // 1024

kept = keep_large_buffers()
print(int(kept), resident())
buffer = np.ones((200, 2**20), np.uint8)
del buffer
print(resident())
return_freed_memory()
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_large_buffers_stay_until_they_are_returned():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    kept, before, freed, returned = map(int, done.stdout.split())
    if not kept:
        pytest.skip("JAX may find an accelerator, which has an allocator of its own")
    # Most of the 200 MB, however large the rest of the process grows or shrinks meanwhile.
    assert freed - before > 100
    assert freed - returned > 100


def test_accelerators_are_left_alone(monkeypatch):
    monkeypatch.setattr("mtnet_jax.cpu.allocator.accelerator_installed", lambda: True)
    assert not keep_large_buffers()
