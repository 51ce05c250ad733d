"""Training steps as the trainers do them, for benchmarks that measure or are measured against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbdcnn import config as configuration
from mbdcnn import presets
from mbdcnn.config import Config
from mbdcnn.losses import HybridLoss
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN
from train.pipeline import LoadedBatch, Loader, Sample
from train.precision import use_bfloat16
from train.processes import Process
from train.sampling import TrainingOrder
from train.strategy import make_strategy
from train.tasks import CoarseTask, EnhancedTask, MaskTask

PLANES = {"coarse": ("truth",), "mask": ("guide",), "enhanced": ("truth", "guide")}
Step = Callable[[LoadedBatch], None]


def settings(preset: str, *overrides: str) -> Config:
    """A preset whose networks start from random weights."""
    return configuration.override(presets.preset(preset), ["network.weights=none", *overrides])


def make_task(config: Config, stage: str, process: Process, samples: Sequence[Sample] = ()) -> CoarseTask | MaskTask:
    """What a stage learns, its network at the same random weights each time; `samples` have the stage's `PLANES`."""
    torch.manual_seed(config.seed)
    order = TrainingOrder(len(samples), config.stage(stage).batch_size, config.seed, process.rank, process.world)
    loader = Loader(
        samples,
        PLANES[stage],
        order,
        config.preprocessing,
        config.augmentation,
        config.seed,
        process.device,
        process.threads,
    )
    if stage == "mask":
        return MaskTask(MaskCN(config.network), loader, loader, process, config.mask.label_smoothing)
    loss = HybridLoss(config.loss.lambda_rank, config.loss.top_k, config.loss.margin)
    if stage == "coarse":
        return CoarseTask(CoarseSN(config.network), loader, loader, process, loss)
    mask_cn = MaskCN(config.network)
    return EnhancedTask(EnhancedSN(config.network), loader, loader, process, loss, mask_cn)


def make_step(task: CoarseTask | MaskTask, config: Config, stage: str, process: Process) -> Step:
    """The engine's step: what the settings say of strategy and precision."""
    strategy = make_strategy(task.network, config, stage, process)
    strategy.trained.train()
    bfloat16 = use_bfloat16(config.precision, process.device)
    autocast = torch.autocast(process.device.type, torch.bfloat16, bfloat16)
    rate = config.stage(stage).learning_rate

    def step(batch: LoadedBatch) -> None:
        with autocast:
            loss = task.losses(strategy.trained, batch)["loss"]
        strategy.backward(loss, last=True)
        strategy.step(rate)

    return step


def drawn_batch(config: Config, count: int, device: torch.device) -> LoadedBatch:
    """A batch of noise."""
    side = config.preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=generator)
    plane = (torch.rand(count, 1, side, side, generator=generator) > 0.5).float().to(device)
    labels = torch.arange(count, device=device) % len(config.network.classes)
    return LoadedBatch(images.to(device), {"truth": plane, "guide": plane}, labels, labels)


def training_step(preset: str, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """Make a step of coarse-SN as a preset trains it, from random weights.

    Args:
        preset: its name.
        device: to train on.

    Returns:
        Takes images `(B, 3, S, S)` and masks `(B, 1, S, S)` on that device and does one step of the optimizer.
    """
    config, process = settings(preset), Process(0, 1, device)
    step = make_step(make_task(config, "coarse", process), config, "coarse", process)

    def run(images: Tensor, truth: Tensor) -> None:
        none = torch.zeros(len(images), dtype=torch.int64)
        step(LoadedBatch(images, {"truth": truth}, none, none))

    return run
