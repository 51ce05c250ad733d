"""What computes: the words in which results name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def machine() -> str:
    """The processor with the cores that this process may use, and the GPUs; never a host's name."""
    cores = len(os.sched_getaffinity(0))
    parts = [f"{_processor()}, {cores} core{'s' if cores > 1 else ''}"]
    parts += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "; ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
