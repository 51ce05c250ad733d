"""The encoders' ImageNet weights from a file or the hub, with every tensor accounted for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mbdcnn.errors import UserError
from mbdcnn.networks.encoders import check_encoder

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS_VARIABLE = "MBDCNN_WEIGHTS"
_COUNTER = "num_batches_tracked"  # batch norm's own bookkeeping: many checkpoints lack it and nothing reads it
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_PATIENCE_S = 10  # for a server that does not answer


@dataclass(frozen=True)
class LoadReport:
    """How many of a network's tensors got their first values in which way, and the names of the parts that are new."""

    loaded: int
    adapted: int
    new: int
    new_parts: tuple[str, ...] = ()

    def and_new(self, **parts: nn.Module) -> LoadReport:
        """The same with the tensors of further parts, which have no pretrained values."""
        more = sum(len(tensors_of(part)) for part in parts.values())
        return replace(self, new=self.new + more, new_parts=(*self.new_parts, *parts))

    def __str__(self) -> str:
        names = f" ({', '.join(self.new_parts)})" if self.new_parts else ""
        return f"{self.loaded} tensors loaded, {self.adapted} adapted, {self.new} new{names}"


def find_weights(encoder: str, weights: str, beside: Iterable[Path] = ()) -> str:
    """Resolve the setting `network.weights`.

    Args:
        encoder: timm name.
        weights: `none`, `auto`, a file, or a folder with a file of the encoder's name.
        beside: folders in which `auto` looks for such a file, after the folder that the environment variable
            MBDCNN_WEIGHTS names.

    Returns:
        `none`, `hub`, or the path of an existing file.

    Raises:
        UserError: what is named does not exist, or the folder has no file for the encoder.
    """
    if weights == "none":
        return "none"
    if weights == "auto":
        named = [Path(os.environ[WEIGHTS_VARIABLE])] if WEIGHTS_VARIABLE in os.environ else []
        return next((str(f) for folder in [*named, *beside] for f in _files_of(encoder, folder)), "hub")
    path = Path(weights)
    if path.is_file():
        return weights
    if not path.is_dir():
        raise UserError(f"network.weights: there is no file or folder {weights}; name one, or set auto or none.")
    for file in _files_of(encoder, path):
        return str(file)
    raise UserError(f"network.weights: {weights} has no file for {encoder}; put {encoder}.safetensors or .pth there.")


def read_backbone(encoder: str, source: str) -> dict[str, Tensor] | None:
    """ImageNet weights of a timm model without its classifier, complete or not at all.

    Args:
        encoder: timm name.
        source: what `find_weights` returned.

    Returns:
        Name -> tensor for every tensor of the stock model but the classifier; None for `none`.

    Raises:
        UserError: no network and no file, an unreadable file, or one that lacks tensors or has other shapes; the
            first ones are named.
    """
    check_encoder(encoder)
    if source == "none":
        return None
    if source == "hub":
        return _without_classifier(_download(encoder))
    with torch.device("meta"):
        stock = timm.create_model(encoder)
    expected = {k: v.shape for k, v in _without_classifier(stock).items()}
    found = _read_tensors(Path(source))
    missing = [k for k in expected if k not in found]
    if missing:
        raise UserError(
            f"{source} does not fit {encoder}: {len(missing)} of {len(expected)} tensors are missing, the first are "
            f"{', '.join(missing[:3])}; {_mend(encoder)}"
        )
    shapes = [k for k in expected if found[k].shape != expected[k]]
    if shapes:
        first = shapes[0]
        raise UserError(
            f"{source} does not fit {encoder}: {first} is {tuple(found[first].shape)} instead of "
            f"{tuple(expected[first])}; {_mend(encoder)}"
        )
    return {k: found[k] for k in expected}


def load_backbone(module: nn.Module, state: Mapping[str, Tensor] | None) -> LoadReport:
    """Copy a stock backbone's tensors into a module made from the same timm model.

    timm's feature extractors rename `stages.0` to `stages_0` and leave out the head, so names are compared with dots
    as underscores. A first convolution with more input channels than the stock one keeps the RGB filters and gets
    their mean in each further channel (Xie et al. 2020, section III-B).

    Raises:
        UserError: a tensor of the module is in no way in `state`.
    """
    own = tensors_of(module)
    if state is None:
        _average_extra_channels(module)
        return LoadReport(0, 0, len(own))
    by_name = {k.replace(".", "_"): v for k, v in state.items()}
    adapted, filled = 0, {}
    for name, tensor in own.items():
        stock = by_name.get(name.replace(".", "_"))
        if stock is None:
            raise UserError(f"The backbone's tensor {name} is not among the pretrained ones; use network.weights=none.")
        if stock.shape != tensor.shape and stock.ndim == 4 and tensor.shape[1] > stock.shape[1]:
            extra = stock.mean(1, keepdim=True).expand(-1, tensor.shape[1] - stock.shape[1], -1, -1)
            stock, adapted = torch.cat([stock, extra], 1), adapted + 1
        if stock.shape != tensor.shape:
            raise UserError(f"The backbone's tensor {name} has another pretrained shape; use network.weights=none.")
        filled[name] = stock
    module.load_state_dict(filled, strict=False)  # strict but for the counters: the loop above saw every tensor
    return LoadReport(len(own) - adapted, adapted, 0)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor for all that a checkpoint of the module has to fill."""
    return {k: v for k, v in module.state_dict(keep_vars=True).items() if not k.endswith(_COUNTER)}


def place(module: Module, device: torch.device | str) -> Module:
    """Move a network to a device, in the memory layout in which convolutions run fastest."""
    return module.to(device).to(memory_format=torch.channels_last)


def _average_extra_channels(module: nn.Module) -> None:
    """Give a randomly initialised 4-channel first convolution the same 4th channel as a pretrained one."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels == 4:
                with torch.no_grad():
                    layer.weight[:, 3:] = layer.weight[:, :3].mean(1, keepdim=True)
            return


def _without_classifier(model: nn.Module) -> dict[str, Tensor]:
    classifier = {id(t) for t in model.get_classifier().state_dict(keep_vars=True).values()}  # type: ignore[operator]
    return {k: v for k, v in tensors_of(model).items() if id(v) not in classifier}


def _files_of(encoder: str, folder: Path) -> list[Path]:
    """The folder's weights files for an encoder: for resnet50 neither `resnet50d.pth` nor `resnet50_gn.pth`."""
    others = [name for name in timm.list_models(f"{encoder}_*") if name != encoder]

    def begins_with(name: str, file: Path) -> bool:
        return re.match(re.escape(name) + "(?![A-Za-z0-9])", file.name) is not None

    files = sorted(f for f in folder.glob(f"{encoder}*") if f.suffix in _SUFFIXES) if folder.is_dir() else []
    return [f for f in files if begins_with(encoder, f) and not any(begins_with(name, f) for name in others)]


def _mend(encoder: str) -> str:
    return (
        f"give the weights of timm's {encoder}, a folder with a file named after each encoder, or network.weights=none."
    )


def _download(encoder: str) -> nn.Module:
    pretrained = timm.get_pretrained_cfg(encoder)
    if pretrained is None or not pretrained.has_weights:
        raise UserError(f"timm has no pretrained weights of {encoder}; give a file, or set network.weights=none.")
    origin = f"https://huggingface.co/{pretrained.hf_hub_id}" if pretrained.hf_hub_id else pretrained.url
    try:
        with _without_long_waits():
            return timm.create_model(encoder, pretrained=True)
    except Exception as error:  # the hub's client raises its own, urllib's, requests' and RuntimeErrors
        raise UserError(
            f"The ImageNet weights of {encoder} could not be downloaded from {origin} ({type(error).__name__}); put "
            f"them as {encoder}.safetensors or .pth into a folder `weights` in or beside the data folder or into the "
            f"one that {WEIGHTS_VARIABLE} names, or set network.weights to the file, to its folder, or to none."
        ) from None


@contextmanager
def _without_long_waits() -> Iterator[None]:
    """Let a download fail within seconds where there is no network.

    The hub's client asks five times, for most of a minute, before it looks into its cache; and urllib waits for ever.
    """
    constants, timeout = huggingface_hub.constants, socket.getdefaulttimeout()
    offline = constants.HF_HUB_OFFLINE
    socket.setdefaulttimeout(_PATIENCE_S)
    try:
        if not offline:
            constants.HF_HUB_OFFLINE = not _answers(constants.ENDPOINT)
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(timeout)


def _answers(url: str) -> bool:
    try:
        huggingface_hub.get_session().head(url, timeout=_PATIENCE_S)
    except Exception:  # of whichever client the hub's package uses
        return False
    return True


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """A flat state dict from safetensors or a tensors-only torch file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not a readable weights file ({type(error).__name__}).") from None
    except Exception:  # pickle.UnpicklingError and whatever a hostile pickle provokes
        raise UserError(f"{path} holds more than tensors; give a plain state dict or safetensors file.") from None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise UserError(f"{path} is not a flat state dict of tensors; give timm's plain state dict.")
    return tensors
