"""Peak memory of two processes that train by DDP against DeepSpeed's ZeRO 1, 2 and 3, in float32 and bfloat16."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from _measure import report
from _training import drawn_batch, make_step, make_task, settings

from train import _deepspeed
from train.processes import Process, run_processes

WORLD, IMAGES, STEPS = 2, 2, 3  # images of one process: so few that the weights' share can be seen
MIB = 2**20
STRATEGIES = {
    "ddp": ["engine.strategy=ddp"],
    **{f"zero{stage}": ["engine.strategy=deepspeed", f"engine.zero_stage={stage}"] for stage in (1, 2, 3)},
}
SELF = Path("/proc/self")


def train(process: Process, preset: str, overrides: list[str], out: str) -> None:
    """A few steps of coarse-SN in a fresh process; leaves the bytes that they needed besides the libraries."""
    config = settings(preset, *overrides, f"coarse.batch_size={WORLD * IMAGES}")
    if config.engine.strategy == "deepspeed":
        _deepspeed.load(process)  # before the count begins, as torch is
    before = _begin(process)
    step = make_step(make_task(config, "coarse", process), config, "coarse", process)
    batch = drawn_batch(config, IMAGES, process.device)
    for _ in range(STEPS):
        step(batch)
    Path(out, str(process.rank)).write_text(str(_peak(process) - before))


def _begin(process: Process) -> int:
    if process.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(process.device)
        return 0
    (SELF / "clear_refs").write_text("5")  # the high-water mark begins anew
    return _peak(process)


def _peak(process: Process) -> int:
    if process.device.type == "cuda":
        return torch.cuda.max_memory_allocated(process.device)
    lines = (SELF / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peak(preset: str, overrides: list[str]) -> float:
    """MiB of the process that needs most."""
    with tempfile.TemporaryDirectory() as folder:
        run_processes(train, WORLD, preset, overrides, folder)
        return max(int(file.read_text()) for file in Path(folder).iterdir()) / MIB


def measure(quick: bool) -> dict[str, float]:
    """The paper's coarse-SN and the compact one; with `quick` the compact one in float32 alone."""
    ratios: dict[str, float] = {}
    print(f"{'MiB a process':<24}{''.join(f'{name:>10}' for name in STRATEGIES)}", file=sys.stderr)
    for preset in ("compact",) if quick else ("compact", "paper"):
        for precision in ("float32",) if quick else ("float32", "bfloat16"):
            name = f"{preset}_{precision}"
            found = {s: peak(preset, [*words, f"precision={precision}"]) for s, words in STRATEGIES.items()}
            print(f"{name:<24}{''.join(f'{mib:>10.0f}' for mib in found.values())}", file=sys.stderr)
            ratios[f"ddp_peak_mib_{name}"] = found["ddp"]
            ratios |= {f"ddp_over_{s}_peak_{name}": found["ddp"] / mib for s, mib in found.items() if s != "ddp"}
    return ratios


if __name__ == "__main__":
    report("memory", measure, {})
