"""Encoders from timm, and their ImageNet weights from a file or the hub, with every tensor accounted for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mbdcnn.errors import UserError

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS_VARIABLE = "MBDCNN_WEIGHTS"
_COUNTER = "num_batches_tracked"  # batch norm's own bookkeeping: many checkpoints lack it and nothing reads it
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class LoadReport:
    """How a network's tensors got their first values."""

    loaded: int
    adapted: int
    new: int

    def and_new(self, *modules: nn.Module) -> LoadReport:
        """The same with the tensors of further modules, which have no pretrained values."""
        return replace(self, new=self.new + sum(len(_tensors(m)) for m in modules))

    def __str__(self) -> str:
        return f"{self.loaded} tensors loaded, {self.adapted} adapted, {self.new} new"


def check_encoder(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: with the near names.
    """
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
    raise UserError(f"timm has no encoder {name}; near ones are {', '.join(near) or 'none'}.")


def find_weights(encoder: str, weights: str, beside: Iterable[Path] = ()) -> str:
    """Resolve the setting `network.weights`.

    Args:
        encoder: timm name.
        weights: `none`, `auto`, or a file.
        beside: folders in which `auto` looks for a file whose name starts with the encoder's, after the folder
            that the environment variable MBDCNN_WEIGHTS names.

    Returns:
        `none`, `hub`, or the path of an existing file.

    Raises:
        UserError: the file that is named does not exist.
    """
    if weights == "none":
        return "none"
    if weights != "auto":
        if not Path(weights).is_file():
            raise UserError(f"network.weights: there is no file {weights}; name a weights file, auto or none.")
        return weights
    folders = [Path(os.environ[WEIGHTS_VARIABLE])] if WEIGHTS_VARIABLE in os.environ else []
    for folder in [*folders, *beside]:
        for file in sorted(folder.glob(f"{encoder}*")) if folder.is_dir() else ():
            if file.suffix in _SUFFIXES:
                return str(file)
    return "hub"


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
            f"{', '.join(missing[:3])}; give the weights of timm's {encoder} or network.weights=none."
        )
    shapes = [k for k in expected if found[k].shape != expected[k]]
    if shapes:
        first = shapes[0]
        raise UserError(
            f"{source} does not fit {encoder}: {first} is {tuple(found[first].shape)} instead of "
            f"{tuple(expected[first])}; give the weights of timm's {encoder} or network.weights=none."
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
    own = _tensors(module)
    if state is None:
        _average_extra_channels(module)
        return LoadReport(0, 0, len(own))
    by_name = {k.replace(".", "_"): v for k, v in state.items()}
    adapted, filled = 0, {}
    for name, tensor in own.items():
        stock = by_name.get(name.replace(".", "_"))
        if stock is None:
            raise UserError(f"the backbone's tensor {name} is not among the pretrained ones; use network.weights=none.")
        if stock.shape != tensor.shape and stock.ndim == 4 and tensor.shape[1] > stock.shape[1]:
            extra = stock.mean(1, keepdim=True).expand(-1, tensor.shape[1] - stock.shape[1], -1, -1)
            stock, adapted = torch.cat([stock, extra], 1), adapted + 1
        filled[name] = stock
    module.load_state_dict(filled, strict=False)  # strict but for the counters: the loop above saw every tensor
    return LoadReport(len(own) - adapted, adapted, 0)


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


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict(keep_vars=True).items() if not k.endswith(_COUNTER)}


def _without_classifier(model: nn.Module) -> dict[str, Tensor]:
    classifier = {id(t) for t in model.get_classifier().state_dict(keep_vars=True).values()}  # type: ignore[operator]
    return {k: v for k, v in _tensors(model).items() if id(v) not in classifier}


def _download(encoder: str) -> nn.Module:
    try:
        return timm.create_model(encoder, pretrained=True)
    except Exception as error:  # the hub's client raises its own, urllib's, requests' and RuntimeErrors
        raise UserError(
            f"The ImageNet weights of {encoder} could not be downloaded ({type(error).__name__}); put them as "
            f"{encoder}.safetensors or .pth into a folder, name it in {WEIGHTS_VARIABLE}, or set network.weights."
        ) from None


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
