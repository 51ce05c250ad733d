"""Training steps on a CPU whose memory is kept for the next one, against steps whose memory glibc gives back."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import torch
from _measure import report
from _training import drawn_batch, make_step, make_task, settings

from mbdcnn.config import STAGES
from train._allocator import keep_memory
from train.processes import Process

PRESET = "compact"
GOALS = {f"given_back_over_kept_{stage}": ">= 1.1" for stage in STAGES}


def train(kept: bool, stage: str, batch_size: int, steps: int) -> float:
    """Seconds a step; the first, which warms up, does not count."""
    if kept:
        keep_memory()
    config, process = settings(PRESET), Process(0, 1, torch.device("cpu"))
    torch.set_num_threads(process.threads)
    step = make_step(make_task(config, stage, process), config, stage, process)
    batch = drawn_batch(config, batch_size, process.device)
    step(batch)
    start = time.perf_counter()
    for _ in range(steps):
        step(batch)
    return (time.perf_counter() - start) / steps


def seconds_a_step(kept: bool, stage: str, batch_size: int, steps: int) -> float:
    """In a process of its own: what an allocator has learnt stays with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(train, kept, stage, batch_size, steps).result()


def measure(quick: bool) -> dict[str, float]:
    """Alternately, whole batches: small tensors are never given back."""
    ratios: dict[str, float] = {}
    for stage in STAGES:
        batch_size, steps, rounds = settings(PRESET).stage(stage).batch_size, 2 if quick else 6, 1 if quick else 3
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds):
            for kept, values in times.items():
                values.append(seconds_a_step(kept, stage, batch_size, steps))
        fast, slow = (batch_size / median(values) for values in times.values())
        print(f"{PRESET} {stage:<10}{fast:>8.2f} images/s kept, {slow:.2f} given back", file=sys.stderr)
        ratios[f"given_back_over_kept_{stage}"] = fast / slow
    return ratios


if __name__ == "__main__":
    report("allocator", measure, GOALS)
