"""Memory that a training process frees is there for its next step."""

import subprocess
import sys

import pytest

_CODE = """
import resource, torch
from train._allocator import keep_memory
if {kept}:
    keep_memory()

def step():
    held = []
    for size in (32, 64, 128):
        held += [torch.ones(size * 2**20 + 4096 * size, dtype=torch.uint8), *(torch.ones(100) for _ in range(5))]

step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*, kept: bool) -> int:
    """How many pages the system had to find for ten steps whose like there was before."""
    done = subprocess.run([sys.executable, "-c", _CODE.format(kept=kept)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_step_finds_the_memory_of_the_one_before() -> None:
    given_back = _faults(kept=False)
    assert given_back > 1000
    assert _faults(kept=True) < given_back / 4
