"""Which of timm's models can be an encoder here: known by name, dilated on request, and wholly trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torch
from torch import Tensor, nn

from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError

# of every family that timm can dilate for all three networks, one; a test builds each
ENCODERS = (
    "resnet34",
    "resnext50_32x4d",
    "regnety_004",
    "res2net50_26w_4s",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv3_large_100",
    "mixnet_s",
    "convnext_tiny",
    "xception65",
)
_SIDE = 64  # of the trial's image in pixels: the deepest maps have more than one position, and their size is known


def check_encoder(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: with the near names.
    """
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4) or ENCODERS
    raise UserError(f"timm has no encoder {name}; near ones are {', '.join(near)}.")


@contextmanager
def fitting(encoder: str, role: str, output_stride: int, *further: str) -> Iterator[None]:
    """Say of whatever goes wrong while a network is built and tried that its encoder does not fit, and which do.

    Args:
        encoder: timm name.
        role: what the encoder was to be.
        output_stride: of the last feature maps.
        further: encoders that fit besides `ENCODERS`.

    Raises:
        UserError: in place of any other error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # hundreds of model classes refuse what they cannot do each in its own way
        reason = next(iter(str(error).splitlines()), "")
        if not reason or "output_stride" in reason:  # an assertion, or an argument that the class does not have
            reason = "timm cannot dilate it"
        raise UserError(
            f"{encoder} cannot be {role} at output stride {output_stride} ({reason.rstrip('.')}); "
            f"encoders that can are {', '.join((*ENCODERS, *further))}, and most of their relatives."
        ) from None


def regularised(config: NetworkConfig) -> dict[str, float]:
    """What timm is asked for besides, so that an encoder is harder to overfit; nothing that a family may not know."""
    return {"drop_path_rate": config.drop_path} if config.drop_path else {}


def try_out(network: nn.Module, *channels: int) -> list[Tensor]:
    """Run a new network once without computing anything, and freeze the parameters that its results do not depend on.

    Heads that timm leaves behind the features, and stages whose maps nobody looks at, would otherwise never get a
    gradient, which distributed training takes for an error.

    Args:
        network: gives a tensor or a tuple of tensors.
        channels: of each of its inputs, images of 64 x 64 pixels.

    Returns:
        Its results on the `meta` device: shapes without values.
    """
    parameters = {k: torch.empty_like(p, device="meta", requires_grad=True) for k, p in network.named_parameters()}
    buffers = {k: torch.empty_like(b, device="meta") for k, b in network.named_buffers()}
    inputs = tuple(torch.empty(1, c, _SIDE, _SIDE, device="meta") for c in channels)
    network.eval()
    with torch.enable_grad():
        results = torch.func.functional_call(network, {**parameters, **buffers}, inputs)
        results = list(results) if isinstance(results, tuple) else [results]
        total = torch.stack([r.sum() for r in results]).sum()
    network.train()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    return results


def check_maps(maps: Tensor, channels: int, output_stride: int) -> None:
    """Refuse feature maps of another layout than `(B, C, S / output_stride, S / output_stride)`.

    Args:
        maps: of the trial.
        channels: C.
        output_stride: image pixels a position.

    Raises:
        ValueError: with both shapes.
    """
    side = _SIDE // output_stride
    if maps.shape[1:] != (channels, side, side):
        found, wanted = " x ".join(map(str, maps.shape[1:])), f"{channels} x {side} x {side}"
        raise ValueError(f"an image of {_SIDE} x {_SIDE} pixels gives features of {found} instead of {wanted}")
