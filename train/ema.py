"""The running mean of a network's weights, which is often better than the weights of any one step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightsMean(AveragedModel):
    """Exponential mean of all tensors of a network, batch norm's statistics among them; `module` has its weights.

    Args:
        network: to follow; the mean begins with its weights after the first step.
        decay: share of the mean that a step keeps, at most: the first steps keep `(1 + n) / (10 + n)`, so that the
            mean soon forgets the weights that the training began with.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def follow(means: Any, weights: Any, n_averaged: Any) -> None:
            n = int(n_averaged)
            get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(means, weights, n_averaged)

        super().__init__(network, multi_avg_fn=follow, use_buffers=True)
        self.requires_grad_(False)
