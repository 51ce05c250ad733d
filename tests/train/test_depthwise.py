"""Depthwise convolutions with a float32 backward pass: what they compute, and which of a network's they are."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from mbdcnn.config import NetworkConfig
from mbdcnn.networks import CoarseSN
from train.depthwise import quicken_depthwise


def layers(kind: type[nn.Conv2d], **options: Any) -> tuple[nn.Sequential, nn.Sequential]:
    """A depthwise convolution with something before it, as it was and quickened."""
    torch.manual_seed(0)
    before = nn.Sequential(nn.Conv2d(3, 8, 1), kind(8, 8, groups=8, **options))
    after = copy.deepcopy(before)
    quicken_depthwise(after)
    assert type(after[0]) is nn.Conv2d
    assert type(after[1]) is not kind
    return before, copy.deepcopy(after)


def gradients(network: nn.Module, x: Tensor, upwards: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """The output under autocast, and the gradients of `x` and the weights for that of the output."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    y.backward(torch.ones_like(y) if upwards is None else upwards)
    return y.detach(), [g for g in (x.grad, *(p.grad for p in network.parameters())) if g is not None]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv2d, {"kernel_size": 3, "padding": 1}),
        (nn.Conv2d, {"kernel_size": 5, "padding": 4, "dilation": 2, "bias": False}),
        (Conv2dSame, {"kernel_size": 5, "stride": 2}),
    ],
    ids=["3x3", "dilated", "same"],
)
def test_the_output_stays_to_the_bit_and_the_gradients_are_float32s(
    kind: type[nn.Conv2d], options: dict[str, Any]
) -> None:
    before, after = layers(kind, **options)
    x = torch.randn(2, 8, 13, 14, generator=torch.Generator().manual_seed(1)).bfloat16()
    layer, quick = before[1], after[1]
    with torch.autocast("cpu", torch.bfloat16):
        upwards = torch.randn_like(layer(x))
    y, found = gradients(quick, x, upwards)
    assert torch.equal(y, gradients(layer, x, upwards)[0])
    exact = x.float().requires_grad_()
    padded = pad_same(exact, (5, 5), (2, 2)) if kind is Conv2dSame else exact
    padding = (0, 0) if kind is Conv2dSame else layer.padding
    z = F.conv2d(padded, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
    wanted = torch.autograd.grad(z, [exact, *layer.parameters()], upwards.float())
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        rounding = {} if ours.dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(ours, theirs.to(ours.dtype), **rounding)


def test_in_a_network_gradients_are_those_of_bfloat16_or_better() -> None:
    before, after = layers(nn.Conv2d, kernel_size=5, padding=2)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (y, old), (z, new) = (gradients(network, x, None) for network in (before, after))
    assert torch.equal(y, z)
    for ours, theirs in zip(new, old, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


def test_in_float32_nothing_changes() -> None:
    before, after = layers(nn.Conv2d, kernel_size=3, padding=1)
    x = torch.randn(2, 3, 8, 8)
    for network in (before, after):
        network(x).sum().backward()
    assert torch.equal(before(x), after(x))
    for ours, theirs in zip(after.parameters(), before.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_all_of_a_network_and_no_other_layer() -> None:
    network = CoarseSN(NetworkConfig(decoder_channels=16))
    names, kinds = list(network.state_dict()), [type(module) for module in network.modules()]
    quicken_depthwise(network)
    assert list(network.state_dict()) == names
    for module, kind in zip(network.modules(), kinds, strict=True):
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        assert (type(module) is not kind) == depthwise
    assert sum(type(m) is not k for m, k in zip(network.modules(), kinds, strict=True)) >= 20
