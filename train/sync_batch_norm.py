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

_DIMS = (0, 2, 3)


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
    """Batch norm (Ioffe & Szegedy 2015) whose sums run over all processes, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x.float(), _DIMS, correction=0)
        mean, var = mean.double(), var.double()
        n = x.numel() / x.shape[1]
        totals = torch.cat([n * mean, n * (var + mean**2), mean.new_tensor([n])])
        dist.all_reduce(totals)
        channels, count = x.shape[1], totals[-1]
        mean = totals[:channels] / count
        var = (totals[channels:-1] / count - mean**2).clamp(min=0)
        mean32, var32 = mean.float(), var.float()
        ctx.save_for_backward(x, weight, mean32, torch.rsqrt(var32 + eps), count)
        y = F.batch_norm(x, mean32, var32, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean32, var32, count)
        return y, mean32, var32, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        grad32 = grad.float()
        normalised = (x.float() - mean[:, None, None]) * inverse_std[:, None, None]
        grad_bias = grad32.sum(_DIMS)
        grad_weight = (grad32 * normalised).sum(_DIMS)
        totals = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(totals)
        mean_grad, mean_product = (totals / count.float()).chunk(2)
        inner = grad32 - mean_grad[:, None, None] - normalised * mean_product[:, None, None]
        grad_x = (weight * inverse_std)[:, None, None] * inner
        return grad_x.to(x.dtype), grad_weight, grad_bias, None
