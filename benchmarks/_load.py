"""Load on a server: so many askers in turn (closed loop), or arrivals at random moments (open loop, Poisson)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Ask = Callable[[int], Awaitable[object]]


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: of each request that was answered; in an open loop from the moment at which it was due, so that
            waiting for a busy server, or for a busy client, counts.
        failures: one sentence for each request that was not.
        duration: of the whole, in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    duration: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.seconds) / self.duration

    def percentile(self, q: float) -> float:
        """Seconds within which `q` % of the answers came."""
        return float(np.percentile(self.seconds, q))

    def __str__(self) -> str:
        p50, p95, p99 = (1e3 * self.percentile(q) for q in (50, 95, 99))
        told = f"{self.rate:.2f}/s, p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms"
        return f"{told}, {len(self.failures)} failed ({self.failures[0]})" if self.failures else told


async def closed_loop(ask: Ask, requests: int, concurrency: int) -> Load:
    """Ask `requests` times, each asker again as soon as it is answered.

    Args:
        ask: awaits one answer; takes the request's number, from 0.
        requests: in all.
        concurrency: askers.
    """
    load, numbers = Load(), iter(range(requests))

    async def asker() -> None:
        for number in numbers:
            await _timed(ask, number, time.perf_counter(), load)

    start = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(concurrency)))
    load.duration = time.perf_counter() - start
    return load


async def open_loop(ask: Ask, requests: int, rate: float, seed: int = 0) -> Load:
    """Ask at random moments, whether or not the earlier requests are answered.

    Args:
        ask: as for `closed_loop`.
        requests: in all.
        rate: arrivals per second; the pauses between them are exponential.
        seed: of the moments.
    """
    load, start = Load(), time.perf_counter()
    tasks = []
    for number, moment in enumerate(arrivals(requests, rate, seed)):
        due = start + moment
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(_timed(ask, number, due, load)))
    await asyncio.gather(*tasks)
    load.duration = time.perf_counter() - start
    return load


def arrivals(requests: int, rate: float, seed: int = 0) -> np.ndarray:
    """Random moments in seconds, `(requests,)`: a Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))


async def _timed(ask: Ask, number: int, since: float, load: Load) -> None:
    try:
        await ask(number)
    except Exception as error:  # a load counts what fails, whatever it is
        load.failures.append(str(error))
    else:
        load.seconds.append(time.perf_counter() - since)


def resident_megabytes(pids: set[int]) -> float:
    """Memory of processes; what they share is counted once (proportional set size)."""
    return sum(_proportional_kilobytes(pid) for pid in pids) / 1024


def _proportional_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
