"""A queue in front of some servers, simulated: what a pod of the Triton ensemble is to its clients."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from _load import arrivals

_LOWEST_SHARE, _HALVINGS = 0.02, 12


def latencies(service: Sequence[float], servers: int, moments: np.ndarray, seed: int = 0) -> np.ndarray:
    """Seconds from arrival to answer, first come first served.

    Args:
        service: measured seconds of work, from which each request's is drawn.
        servers: that work at the same time.
        moments: of the arrivals, in order.
        seed: of the draws.

    Returns:
        As many as there are arrivals.
    """
    work = np.random.default_rng(seed).choice(np.asarray(service), len(moments))
    free = [0.0] * servers  # when each server is next
    answered = np.empty(len(moments))
    for number, (moment, seconds) in enumerate(zip(moments, work, strict=True)):
        answered[number] = max(moment, heapq.heappop(free)) + seconds
        heapq.heappush(free, answered[number])
    return answered - moments


def most_rate(service: Sequence[float], servers: int, p99: float, requests: int = 20_000) -> float:
    """Arrivals per second that one pod takes with 99 % of the answers within `p99` seconds; 0 where none does."""
    capacity = servers / float(np.mean(service))

    def fits(share: float) -> bool:
        waited = latencies(service, servers, arrivals(requests, share * capacity))
        return bool(np.percentile(waited, 99) <= p99)

    low, high = _LOWEST_SHARE, 1.0
    if not fits(low):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * capacity
