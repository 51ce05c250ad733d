"""Training by two processes with a core each against one process with two threads, the same batches."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from _measure import report
from _training import drawn_batch, make_step, make_task, settings

from train.processes import Process, run_processes

PRESET = "compact"
STAGES = ("coarse", "mask")  # enhanced-SN's step is coarse-SN's and a forward pass of mask-CN


def train(process: Process, stage: str, batch_size: int, steps: int, out: str) -> None:
    """Steps on a share of each batch; the first process leaves the seconds of one."""
    config = settings(PRESET, f"{stage}.batch_size={batch_size}")
    step = make_step(make_task(config, stage, process), config, stage, process)
    batch = drawn_batch(config, batch_size // process.world, process.device)
    for timed in range(steps + 1):
        if timed == 1:  # the first warms up
            process.barrier()
            start = time.perf_counter()
        step(batch)
    if process.device.type == "cuda":
        torch.cuda.synchronize()
    process.barrier()
    if process.is_first:
        Path(out).write_text(str((time.perf_counter() - start) / steps))


def seconds_a_step(world: int, stage: str, batch_size: int, steps: int) -> float:
    """In processes that were just started, or in this one when it is alone."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "seconds")
        run_processes(train, world, stage, batch_size, steps, str(out))
        return float(out.read_text())


def measure(quick: bool) -> dict[str, float]:
    """Alternately, each side as often; with `quick` a quarter of the batch and once."""
    ratios: dict[str, float] = {}
    for stage in STAGES:
        full = settings(PRESET).stage(stage).batch_size
        batch_size, steps, rounds = (full // 4, 1, 1) if quick else (full, 5, 5)
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for world, values in times.items():
                values.append(seconds_a_step(world, stage, batch_size, steps))
        one, two = (batch_size / median(values) for values in times.values())
        print(f"{PRESET} {stage:<10}{one:>8.2f} images/s by one, {two:.2f} by two", file=sys.stderr)
        ratios[f"two_processes_over_one_{PRESET}_{stage}"] = two / one
    return ratios


if __name__ == "__main__":
    report("scaling", measure, {})
