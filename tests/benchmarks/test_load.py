"""The load generator asks as often, as closely together and as honestly as it says."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def _part(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load, cores = _part("_load"), _part("_cores")


def test_a_closed_loop_keeps_so_many_on_the_way():
    now, most, numbers = 0, 0, []

    async def ask(number):
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        numbers.append(number)
        await asyncio.sleep(0.002)
        now -= 1
        if number % 10 == 3:
            raise RuntimeError(f"request {number}")

    done = asyncio.run(load.closed_loop(ask, 50, 4))
    assert most == 4
    assert sorted(numbers) == list(range(50))
    assert len(done.seconds) == 45
    assert sorted(done.failures) == [f"request {n}" for n in (13, 23, 3, 33, 43)]
    assert done.rate == pytest.approx(45 / done.duration)


def test_an_open_loop_counts_the_wait_for_a_server_that_does_one_at_a_time():
    """Requests that come faster than they are done wait ever longer, which a closed loop of one would not see."""

    async def run():
        alone = asyncio.Lock()

        async def ask(_):
            async with alone:
                await asyncio.sleep(0.01)

        return await load.open_loop(ask, 60, 1000.0)

    done = asyncio.run(run())
    assert len(done.seconds) == 60
    assert done.percentile(99) > 0.3
    assert done.percentile(99) > 1.5 * done.percentile(50)


def test_a_process_that_is_not_named_counts_among_the_others():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        named, unnamed = cores.Others({os.getpid(), busy.pid}), cores.Others({os.getpid()})
        before, start = cores.cpu_seconds({busy.pid}), time.perf_counter()
        while cores.cpu_seconds({busy.pid}) - before < 1.0:  # on a shared machine that takes more than a second
            time.sleep(0.01)
        difference = unnamed.share() - named.share()
        spent = (cores.cpu_seconds({busy.pid}) - before) / (time.perf_counter() - start) / len(cores.CORES)
        assert difference == pytest.approx(spent, abs=0.05)
    finally:
        busy.kill()
        busy.wait()
