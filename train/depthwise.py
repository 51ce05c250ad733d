"""Depthwise convolutions whose backward pass is float32 where the forward pass is bfloat16, for CPUs.

oneDNN has no fast bfloat16 kernel for many of their gradients: those of a 5 x 5 or strided one take 3 to 40 times as
long as in float32. Nor has it fast ones for the gradient of the input: where a step is one pixel, that is a forward
convolution with the filters turned, in up to a ninth of the time. The forward pass, and with it every prediction, stays
the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


def quicken_depthwise(network: nn.Module) -> None:
    """Make every depthwise convolution of a network one with a float32 backward pass; tensors keep their names."""
    for module in network.modules():
        quick = {nn.Conv2d: _Depthwise, Conv2dSame: _DepthwiseSame}.get(type(module))
        if quick is not None and isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.__class__ = quick  # not a hook or a method of the object: a copy of the network keeps it


class _Depthwise(nn.Conv2d):
    """Padded as PyTorch does."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        assert not isinstance(self.padding, str)
        return _convolve(self, x, self.padding)


class _DepthwiseSame(Conv2dSame):
    """Padded as TensorFlow does, by the size of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        return _convolve(self, pad_same(x, self.kernel_size, self.stride, self.dilation), (0, 0))


def _convolve(layer: nn.Conv2d, x: Tensor, padding: tuple[int, ...]) -> Tensor:
    assert layer.padding_mode == "zeros"
    options = (layer.stride, padding, layer.dilation, layer.groups)
    # float32 has nothing to gain; and what has no gradient is not to be kept
    if not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return F.conv2d(x, layer.weight, layer.bias, *options)
    y: Tensor = _Convolution.apply(x.to(torch.get_autocast_dtype("cpu")), layer.weight, layer.bias, *options)
    return y


class _Convolution(torch.autograd.Function):
    """A convolution that keeps its input as it came and is differentiated in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.biased = options, bias is not None
        return F.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], ctx.biased and ctx.needs_input_grad[2]]
        grad, grad_x = grad.float(), None
        if wanted[0] and _turns(weight, ctx.options):
            grad_x, wanted[0] = _against(grad, weight, ctx.options), False
        stride, padding, dilation, groups = ctx.options
        others = torch.ops.aten.convolution_backward(
            grad,
            x.float(),
            weight,
            [len(weight)] if ctx.biased else None,
            *(stride, padding, dilation, False, [0, 0], groups),
            wanted,
        )
        grad_x = others[0] if grad_x is None else grad_x
        return None if grad_x is None else grad_x.to(x.dtype), *others[1:], None, None, None, None


def _turns(weight: Tensor, options: tuple[Any, ...]) -> bool:
    """Whether the gradient of the input is the gradient of the output under the turned filters."""
    stride, *_, groups = options
    return set(stride) == {1} and len(weight) == groups and min(_margins(weight, options)) >= 0


def _against(grad: Tensor, weight: Tensor, options: tuple[Any, ...]) -> Tensor:
    """The gradient of the input, `(B, C, H, W)`."""
    _, _, dilation, groups = options
    return F.conv2d(grad, weight.flip(2, 3), None, 1, _margins(weight, options), dilation, groups)


def _margins(weight: Tensor, options: tuple[Any, ...]) -> tuple[int, ...]:
    """What the gradient of the output is padded by, below and beside, to be as large as the input."""
    _, padding, dilation, _ = options
    return tuple(d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True))
