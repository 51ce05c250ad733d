"""Batch norm over the whole batch of all processes, on a CPU too, where PyTorch's SyncBatchNorm refuses to run.

With it, R processes with a batch of B / R each compute what one process with a batch of B computes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of a network by one that sees all processes' samples; tensors keep their names."""
    if device.type == "cuda":
        return convert_sync_batchnorm(network)
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, _CpuSyncBatchNorm(child))
        else:
            synchronise_batch_norm(child, device)
    return network


class _CpuSyncBatchNorm(nn.BatchNorm2d):
    """Takes over a batch norm's tensors, and the activation that timm fuses into some of them."""

    def __init__(self, original: nn.BatchNorm2d) -> None:
        super().__init__(original.num_features, original.eps, original.momentum, original.affine)
        self.weight, self.bias = original.weight, original.bias
        self.running_mean, self.running_var = original.running_mean, original.running_var
        self.num_batches_tracked = original.num_batches_tracked
        self.after = nn.Sequential()
        if isinstance(original, BatchNormAct2d):
            self.after.extend([module for module in (original.drop, original.act) if isinstance(module, nn.Module)])

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> the same shape."""
        if not self.training:
            return self.after(super().forward(x))
        y, mean, var, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), self.momentum)
        return self.after(y)


class _Normalise(torch.autograd.Function):
    """Batch norm (Ioffe & Szegedy 2015) whose sums run over all processes, forwards and backwards.

    Whatever looks at every pixel is done by PyTorch's own fused kernels: the same by `var_mean` and arithmetic takes
    several times as long as the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels, n = x.shape[1], x.numel() / x.shape[1]
        mean, var = (
            t.double()
            for t in torch.batch_norm_update_stats(x, weight.new_zeros(channels), weight.new_ones(channels), 1.0)
        )
        totals = torch.cat([n * mean, n * (var + mean**2), mean.new_tensor([n])])
        dist.all_reduce(totals)
        count = totals[-1]
        mean = totals[:channels] / count
        var = (totals[channels:-1] / count - mean**2).clamp(min=0)
        mean32, var32 = mean.float(), var.float()
        ctx.save_for_backward(x, weight, mean32, var32, count)
        ctx.eps = eps
        y = F.batch_norm(x, mean32, var32, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean32, var32, count)
        return y, mean32, var32, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var, count = ctx.saved_tensors
        # as if mean and variance were constants, which also gives the sums that say what they add
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        totals = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(totals)
        mean_grad, mean_product = (totals / count.float()).chunk(2)
        factor = -weight * torch.rsqrt(var + ctx.eps)
        grad_x += F.batch_norm(x, mean, var, factor * mean_product, factor * mean_grad, training=False, eps=ctx.eps)
        return grad_x, grad_weight, grad_bias, None
