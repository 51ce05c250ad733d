"""How many pods of the ensemble a rate of images needs: measured service times, a simulated queue, a real server.

The times of a server on one core and on two are measured without a queue. A simulation of the queue then says what
random arrivals will wait, and the real server says what they do wait. With `--rate` and `--p99` the pods for them are
told, else for a list of rates up to 10,000 images a second.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
from _queue import latencies, most_rate
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from _cores import CORES
from _load import Load, arrivals, closed_loop, open_loop
from _measure import report
from _served import OUTPUTS, example_jpeg, untrained

from serve.client import AsyncClient, Retry
from serve.export import export_networks
from serve.server import TritonServer

SHARES = (50, 80)  # of what a pod can do at most, in percent
RATES = (1, 10, 100, 1_000, 10_000)
GOALS = {f"p{q}_misjudged_{n}_cores_{share}_percent": "<= 1.5" for n in (1, 2) for share in SHARES for q in (50, 99)}
OPTIONS = argparse.ArgumentParser(add_help=False)
OPTIONS.add_argument("--rate", type=float, action="append", help="images per second; may be given again")
OPTIONS.add_argument("--p99", type=float, default=1.0, help="seconds within which 99 %% are answered (%(default)g)")


def measure(quick: bool) -> dict[str, float]:
    """With `quick` a network of 5 M parameters at 96 x 96, otherwise `compact` at 224 x 224; random weights."""
    options, _ = OPTIONS.parse_known_args()
    ratios: dict[str, float] = {}
    service: list[float] = []
    for count in [n for n in (1, 2) if n <= len(CORES)]:
        with _server(count, "smoke" if quick else "compact") as url:
            service = asyncio.run(_check(url, count, 80 if quick else 500, ratios))
    servers = min(2, len(CORES))
    most = most_rate(service, servers, options.p99)
    if not most:
        sys.exit(f"One image alone takes longer than {options.p99:g} s; give a larger --p99.")
    ratios["images_per_s_a_pod"] = most
    _tell_pods(options.rate or RATES, most, servers, options.p99, len(example_jpeg(0)), ratios)
    return ratios


@contextmanager
def _server(count: int, preset: str) -> Iterator[str]:
    """A server that has so many cores; the client may use all."""
    with tempfile.TemporaryDirectory() as folder:
        networks, preprocessing = untrained(preset)
        repository = Path(folder, "repository")
        export_networks(networks, preprocessing, repository, {"run": "untrained"}, instances=count)
        server = TritonServer(repository)
        os.sched_setaffinity(0, CORES[:count])  # which the server's processes inherit
        try:
            server.start()
            os.sched_setaffinity(0, CORES)
            yield server.grpc_url
        finally:
            os.sched_setaffinity(0, CORES)
            server.stop()


async def _check(url: str, count: int, requests: int, ratios: dict[str, float]) -> list[float]:
    """Compare simulated and real waiting; the service times."""
    images = [example_jpeg(i) for i in range(8)]
    async with AsyncClient(url, retry=Retry(attempts=1)) as client:

        async def ask(number: int) -> object:
            return await client.infer([images[number % 8]], OUTPUTS)

        await closed_loop(ask, requests // 10, 2 * count)
        busy = await closed_loop(ask, requests, count)
        service = busy.seconds
        capacity = count / float(np.mean(service))
        _tell(f"{count} cores, all busy and no queue", busy)
        for share in SHARES:
            rate = capacity * share / 100
            real = await open_loop(ask, requests, rate)
            if real.failures:
                sys.exit(real.failures[0])
            simulated = latencies(service, count, arrivals(requests, rate))  # the moments that the server had
            _tell(f"{count} cores, {share} % of {capacity:.1f}/s", real)
            print(_percentiles("simulated", simulated), file=sys.stderr)
            for q in (50, 99):
                ratio = float(np.percentile(simulated, q)) / real.percentile(q)
                ratios[f"p{q}_misjudged_{count}_cores_{share}_percent"] = max(ratio, 1 / ratio)
    return service


def _tell_pods(
    rates: tuple[float, ...], most: float, servers: int, p99: float, image_bytes: int, ratios: dict[str, float]
) -> None:
    """A row for each rate; arrivals are spread over the pods at random, which is the worst that a balancer does."""
    print(f"\n| images/s | pods of {servers} cores | cores | in, Gbit/s |\n|--:|--:|--:|--:|", file=sys.stderr)
    for rate in rates:
        pods = math.ceil(rate / most)
        gigabits = rate * image_bytes * 8 / 1e9
        print(f"| {rate:,g} | {pods:,} | {pods * servers:,} | {gigabits:.2g} |", file=sys.stderr)
        ratios[f"pods_for_{rate:g}_images_per_s"] = pods
    print(f"\n99 % within {p99:g} s; {most:.1f} images/s a pod; {image_bytes / 1e3:.0f} kB an image", file=sys.stderr)


def _percentiles(what: str, seconds: np.ndarray) -> str:
    return f"{what}: " + ", ".join(f"p{q} {1e3 * np.percentile(seconds, q):.1f}" for q in (50, 95, 99)) + " ms"


def _tell(what: str, load: Load) -> None:
    print(f"{what}: {load}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    report("capacity", measure, GOALS, OPTIONS)
