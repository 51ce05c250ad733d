"""Memory that a process keeps between batches."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_KEPT = 2**31 - 1  # the largest that mallopt takes


def keep_memory() -> None:
    """Let glibc keep what a batch frees for the next one.

    By default a tensor above 32 MiB is given back at once and got again page by page, each of which the kernel clears:
    on a CPU that takes an eighth to a quarter of a step. Other C libraries than glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)
