"""What a stage was trained with: versions, devices, and how the work was shared."""

from __future__ import annotations

import platform
from importlib.metadata import version

import nvidia.dali
import torch

from mbdcnn.config import Config
from mbdcnn.machine import machine
from train.precision import use_bfloat16
from train.processes import Process

_PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "scikit-learn")


def environment(config: Config, process: Process) -> dict[str, object]:
    """For a stage's `metrics.json`; of several machines, that of `process`."""
    found: dict[str, object] = {
        "python": platform.python_version(),
        "device": process.device.type,
        "machine": machine(),
        "processes": process.world,
        "strategy": config.engine.strategy,
        "bfloat16": use_bfloat16(config.precision, process.device),
        "nvidia-dali": nvidia.dali.__version__,
        **{name: version(name) for name in _PACKAGES},
    }
    if config.engine.strategy == "deepspeed":
        found |= {"zero_stage": config.engine.zero_stage, "deepspeed": version("deepspeed")}
    if process.device.type == "cuda":
        found["cuda"] = torch.version.cuda
    return found
