"""The running mean of a network's weights, which is often better than the weights of any one step."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightsMean(AveragedModel):
    """Exponential mean of all tensors of a network, batch norm's statistics among them; `module` has its weights.

    Args:
        network: to follow; the mean begins with its weights after the first step.
        decay: share of the mean that a step keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False)
