"""A queue in front of some servers, simulated: what a pod of the Triton ensemble is to its clients."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

_LOWEST_SHARE, _HALVINGS = 0.02, 12


def latencies(service: Sequence[float], servers: int, rate: float, requests: int, seed: int = 0) -> np.ndarray:
    """Seconds from arrival to answer, first come first served, with Poisson arrivals (M/G/c).

    Args:
        service: measured seconds of work, from which each request's is drawn.
        servers: that work at the same time.
        rate: arrivals per second.
        requests: in all.
        seed: of the moments and the draws.
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, requests))
    work = random.choice(np.asarray(service), requests)
    free = [0.0] * servers  # when each server is next
    answered = np.empty(requests)
    for number, (arrival, seconds) in enumerate(zip(arrivals, work, strict=True)):
        answered[number] = max(arrival, heapq.heappop(free)) + seconds
        heapq.heappush(free, answered[number])
    return answered - arrivals


def most_rate(service: Sequence[float], servers: int, p99: float, requests: int = 20_000) -> float:
    """Arrivals per second that one pod takes with 99 % of the answers within `p99` seconds; 0 where none does."""
    capacity = servers / float(np.mean(service))

    def fits(share: float) -> bool:
        return bool(np.percentile(latencies(service, servers, share * capacity, requests), 99) <= p99)

    low, high = _LOWEST_SHARE, 1.0
    if not fits(low):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * capacity
