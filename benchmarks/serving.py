"""The Triton ensemble and the fused model against ONNX Runtime in one process, and against PyTorch behind FastAPI.

All on the same cores, in turn, with the client on them too: JPEG in, probabilities and the lesion's PNG out. The direct
side has as many threads as there are cores, each network with the session options of the served models. The ratios of
speed hold only on a machine without other work, so that its absence is a goal too; those of processor time per request
hold on any.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import torch
from _cores import CORES, Others, cpu_seconds
from _direct import Direct
from _load import Ask, Load, closed_loop, open_loop, resident_megabytes
from _measure import report
from _served import OUTPUTS, example_jpeg, untrained

from serve._process import stubs
from serve.client import AsyncClient, Retry
from serve.export import export_networks
from serve.server import TritonServer

CONCURRENCY = 8
GOALS = {
    "ensemble_throughput_over_direct": ">= 0.85",
    "fused_throughput_over_direct": ">= 0.95",
    "ensemble_p50_over_direct": "<= 1.3",
    "fused_p50_over_direct": "<= 1.1",
    "ensemble_throughput_over_fastapi": ">= 1.5",
    "soak_answered": ">= 1",
    "soak_growth_MB": "< 100",
    "time_taken_by_others": "< 0.05",
}


def measure(quick: bool) -> dict[str, float]:
    """With `quick` a network of 5 M parameters at 96 x 96, otherwise `compact` at 224 x 224; random weights."""
    preset = "smoke" if quick else "compact"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_networks(preset, folder)
        with TritonServer(folder / "repository") as server:
            return asyncio.run(_measure(server, preset, folder, quick))


def _write_networks(preset: str, folder: Path) -> None:
    networks, preprocessing = untrained(preset)
    torch.save(networks.state_dict(), folder / "weights.pt")
    export_networks(networks, preprocessing, folder / "repository", {"run": "untrained"})


async def _measure(server: TritonServer, preset: str, folder: Path, quick: bool) -> dict[str, float]:
    images = [example_jpeg(i) for i in range(8)]
    direct = Direct(folder / "repository")
    pool = ThreadPoolExecutor(len(CORES))
    loop = asyncio.get_running_loop()

    async def ask_direct(number: int) -> object:
        return await loop.run_in_executor(pool, direct, images[number % 8])

    async with (
        AsyncClient(server.grpc_url, retry=Retry(attempts=1)) as ensemble,
        AsyncClient(server.grpc_url, model="mbdcnn_fused", retry=Retry(attempts=1)) as fused,
        _fastapi(preset, folder / "weights.pt") as (ask_fastapi, fastapi_pid),
    ):

        async def ask_ensemble(number: int) -> object:
            return await ensemble.infer([images[number % 8]], OUTPUTS)

        async def ask_fused(number: int) -> object:
            return await fused.infer([images[number % 8]], OUTPUTS)

        async def ask_http(number: int) -> object:
            return await ask_fastapi(images[number % 8])

        sides: dict[str, Ask] = {"direct": ask_direct, "ensemble": ask_ensemble}
        sides |= {"fused": ask_fused, "fastapi": ask_http}
        for client in (ensemble, fused):
            await _check_same(direct, client, images)
        assert server.pid is not None
        served = {server.pid, *stubs(server.pid)}
        pids = {"direct": {os.getpid()}, "ensemble": served, "fused": served, "fastapi": {fastapi_pid}}
        others = Others(set().union(*pids.values()))
        ratios = await _compare(sides, pids, rounds=2 if quick else 5, requests=24 if quick else 80)
        ratios["time_taken_by_others"] = max(1e-3, others.share())  # figures are above 0 by agreement
        ratios |= await _poisson(ask_ensemble, requests=60 if quick else 600)
        ratios |= await _skipping(ensemble, images, rounds=10 if quick else 40)
        ratios |= await _soak(ask_ensemble, server, requests=200 if quick else 5000)
    pool.shutdown()
    return ratios


async def _check_same(direct: Direct, client: AsyncClient, images: list[bytes]) -> None:
    """Sides that do not say the same do not do the same work."""
    for image in images:
        probabilities, png = direct(image)
        served = await client.infer([image], OUTPUTS)
        if np.abs(served["PROBABILITIES"][0] - probabilities).max() > 1e-3 or served["MASK_PNG"][0].item() != png:
            sys.exit(f"{client.model} does not answer as ONNX Runtime does.")


async def _compare(
    sides: Mapping[str, Ask], pids: Mapping[str, set[int]], rounds: int, requests: int
) -> dict[str, float]:
    """Throughput at concurrency 8 and the median latency at concurrency 1, each side in turn."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    medians: dict[str, list[float]] = {name: [] for name in sides}
    for timed in range(rounds + 1):  # the first warms up
        for name, ask in sides.items():
            alone = await closed_loop(ask, requests // 4, 1)
            before = cpu_seconds(pids[name])
            busy = await closed_loop(ask, requests, CONCURRENCY)
            cpu = (cpu_seconds(pids[name]) - before) / requests
            _all_answered(name, alone, busy)
            if timed:
                _tell(f"{name}, concurrency 1", alone)
                _tell(f"{name}, concurrency {CONCURRENCY}", busy)
                rates[name].append(busy.rate)
                medians[name].append(alone.percentile(50))
                spent[name].append(cpu)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    p50 = {name: statistics.median(values) for name, values in medians.items()}
    cost = {name: statistics.median(values) for name, values in spent.items()}
    print(", ".join(f"{name} {1e3 * s:.1f} ms of processor time" for name, s in cost.items()), file=sys.stderr)
    ratios = {"ensemble_throughput_over_fastapi": rate["ensemble"] / rate["fastapi"]}
    ratios["fastapi_processor_time_over_ensemble"] = cost["fastapi"] / cost["ensemble"]
    for name in ("ensemble", "fused"):
        ratios[f"{name}_throughput_over_direct"] = rate[name] / rate["direct"]
        ratios[f"{name}_p50_over_direct"] = p50[name] / p50["direct"]
        ratios[f"{name}_processor_time_over_direct"] = cost[name] / cost["direct"]
    return ratios


async def _poisson(ask: Ask, requests: int) -> dict[str, float]:
    """Latency under random arrivals at a share of what the server can do at most, over that of an idle server."""
    idle = (await closed_loop(ask, max(10, requests // 10), 1)).percentile(50)
    capacity = (await closed_loop(ask, requests, CONCURRENCY)).rate
    ratios = {}
    for share in (50, 80):
        load = await open_loop(ask, requests, capacity * share / 100)
        _all_answered("open loop", load)
        _tell(f"Poisson arrivals at {share} % of {capacity:.1f}/s", load)
        for q in (50, 95, 99):
            ratios[f"open_loop_{share}_percent_p{q}_over_idle_p50"] = load.percentile(q) / idle
    return ratios


async def _skipping(client: AsyncClient, images: list[bytes], rounds: int) -> dict[str, float]:
    """What an answer costs that needs no enhanced-SN."""

    async def ask(number: int) -> object:  # in turn
        return await client.infer([images[number // 2 % 8]], ("PROBABILITIES",) if number % 2 else OUTPUTS)

    load = await closed_loop(ask, 2 * rounds, 1)
    _all_answered("subsets", load)
    whole, part = statistics.median(load.seconds[::2]), statistics.median(load.seconds[1::2])
    return {"probabilities_alone_p50_over_all": part / whole}


async def _soak(ask: Ask, server: TritonServer, requests: int) -> dict[str, float]:
    """Memory that many requests leave behind, after as many as warm everything up."""
    assert server.pid is not None
    await closed_loop(ask, min(500, requests), CONCURRENCY)
    family = {server.pid, *stubs(server.pid)}
    before = resident_megabytes(family)
    load = await closed_loop(ask, requests, CONCURRENCY)
    after = resident_megabytes(family)
    _tell(f"soak, {before:.0f} MB before, {after:.0f} MB after", load)
    # a server that shrinks did not grow; figures are above 0 by agreement
    return {"soak_answered": len(load.seconds) / requests, "soak_growth_MB": max(0.1, after - before)}


@asynccontextmanager
async def _fastapi(preset: str, weights: Path) -> AsyncIterator[tuple[Callable[[bytes], Awaitable[object]], int]]:
    """The alternative in a process of its own; yields what asks it, and its id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    script = Path(__file__).with_name("_fastapi_server.py")
    command = [sys.executable, str(script), preset, str(weights), url.rpartition(":")[2]]
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)  # as tritonserver has one
    try:
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, url, process)

            async def ask(data: bytes) -> object:
                async with session.post(
                    f"{url}/predict", data=data, headers={"Content-Type": "application/octet-stream"}
                ) as answer:
                    answer.raise_for_status()
                    return await answer.json()

            yield ask, process.pid
    finally:
        process.terminate()
        process.wait()


async def _until_ready(session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            async with session.get(f"{url}/ready"):
                return
        except aiohttp.ClientConnectionError:
            if process.poll() is not None:
                sys.exit("The FastAPI server did not start.")
            await asyncio.sleep(0.2)


def _all_answered(name: str, *loads: Load) -> None:
    for load in loads:
        if load.failures:
            sys.exit(f"{name}: {load.failures[0]}")


def _tell(what: str, load: Load) -> None:
    print(f"{what}: {load}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    report("serving", measure, GOALS)
