"""Whose time the cores spend: ours, process by process, and that of others."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Collection[int]) -> float:
    """What living processes have spent so far, with all their threads."""
    spent = 0
    for pid in pids:
        # pid (name) state ...; utime and stime are the 12th and 13th after the name, which may hold spaces
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / _TICKS


class Others:
    """The share of the cores' time that processes other than ours take from now on.

    On a busy machine a comparison of a server with this process is not fair: Linux shares the cores out by session
    (`sched_autogroup`), and a server has a session of its own, so that two take part on its side and one on the other.

    Args:
        ours: all processes that the benchmark runs.
    """

    def __init__(self, ours: Collection[int]) -> None:
        self._ours = ours
        self._start = self._now()

    def share(self) -> float:
        """From 0 (we were alone) to 1."""
        seconds, busy, ours = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return max(0.0, busy - ours) / (seconds * len(CORES))

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), _busy_seconds(), cpu_seconds(self._ours)


def _busy_seconds() -> float:
    """What our cores have spent on anything; time that a hypervisor took counts."""
    names = {f"cpu{core}" for core in CORES}
    rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    # user nice system idle iowait irq softirq steal; guest time is in user's already
    return sum(int(row[i]) for row in rows if row[0] in names for i in (1, 2, 3, 6, 7, 8)) / _TICKS
