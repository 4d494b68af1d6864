"""Memory that training keeps: used again, and there for every thread."""

import resource
import subprocess
import sys

import pytest
import torch

from medaug.runtime.device import keep_freed_memory

pytestmark = pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc")


def test_freed_memory_is_used_again() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            torch.ones(4 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1024  # 8 pieces of 16 MiB are 32768 pages


def test_a_thread_finds_the_memory_that_lies_free_where_addresses_run_out() -> None:
    code = """
import resource, threading
from medaug.runtime.device import keep_freed_memory
keep_freed_memory()
held = [bytes(1000) for _ in range(40_000)]
del held
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 16 * 2**20, size + 16 * 2**20))
found = []
thread = threading.Thread(target=lambda: found.extend(bytes(1000) for _ in range(10_000)))
thread.start()
thread.join()
print(len(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "10000\n", done.stderr
