"""DeepSpeed itself: imported without noise, configured for networks of this size."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from train.processes import Process

# DeepSpeed's own sizes are meant for billions of parameters: with them ZeRO-3 would never let go of a network of these
_BUCKET = 2**22  # parameters that are sent together: 16 MiB
_LIVE = 2**22  # parameters that ZeRO-3 keeps whole besides those in use


def configuration(
    *, zero_stage: int, accumulation: int, clip_norm: float, bfloat16: bool, micro_batch: int
) -> dict[str, Any]:
    """What DeepSpeed calls its JSON configuration; see `DeepSpeedStrategy` for the arguments."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip_norm,
        "zero_optimization": {
            "stage": zero_stage,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_max_live_parameters": _LIVE,
            "stage3_max_reuse_distance": _LIVE,
        },
        # no module sends its gradients in bfloat16: they are summed in float32, as DDP does
        "torch_autocast": {"enabled": bfloat16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "timers": {"throughput": {"enabled": False}},  # they would wait for the device at each step
    }


def start(process: Process, network: nn.Module, optimizer: Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine around a network on the process's device.

    A process that trains alone gets a group of its own: DeepSpeed cannot do without one.
    """
    deepspeed = load(process)
    if not dist.is_initialized():
        backend = "nccl" if process.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(_leave)
    os.environ.setdefault("LOCAL_RANK", str(process.device.index or 0))  # read at every step of ZeRO-3
    with quiet():
        engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
    return engine


@contextmanager
def quiet() -> Iterator[None]:
    """Let DeepSpeed say nothing but errors, and nothing on standard output."""
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)


def load(process: Process) -> ModuleType:
    """Import DeepSpeed, which from then on says what the first process has to warn of, on standard error."""
    os.environ.setdefault("DS_ACCELERATOR", process.device.type)
    with redirect_stdout(sys.stderr):
        import deepspeed
    # its own collectives for CPUs want a compiler at the first run, and gloo does what they do
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # torch 2.14's word to who calls it, which is DeepSpeed
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    logger = logging.getLogger("DeepSpeed")
    logger.handlers.clear()  # they write to standard output
    logger.propagate = True
    logger.setLevel(logging.WARNING if process.is_first else logging.CRITICAL)
    return deepspeed


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
