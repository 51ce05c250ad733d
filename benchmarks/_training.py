"""A training step of coarse-SN, for benchmarks that set a cost against it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mbdcnn import config, presets
from mbdcnn.losses import HybridLoss
from mbdcnn.networks import CoarseSN, place
from train.precision import use_bfloat16


def training_step(preset: str, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """Make a step of coarse-SN as a preset trains it, from random weights.

    Args:
        preset: its name.
        device: to train on.

    Returns:
        Takes images `(B, 3, S, S)` and masks `(B, 1, S, S)` on that device and does one step of Adam.
    """
    settings = config.override(presets.preset(preset), ["network.weights=none"])
    network = place(CoarseSN(settings.network), device).train()
    loss = HybridLoss(settings.loss.lambda_rank, settings.loss.top_k, settings.loss.margin)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.coarse.learning_rate)
    autocast = torch.autocast(device.type, torch.bfloat16, use_bfloat16(settings.precision, device))

    def step(images: Tensor, truth: Tensor) -> None:
        with autocast:
            value = loss(network(images), truth)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step
