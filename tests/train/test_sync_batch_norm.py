"""Batch norm over two processes against PyTorch's own over the whole batch: outputs, gradients, running statistics."""

from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.processes import Process, run_processes
from train.sync_batch_norm import synchronise_batch_norm


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), BatchNormAct2d(4, act_layer=nn.ReLU6)
    )


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 16, 16, generator=generator) + 2, torch.randn(8, 4, 12, 12, generator=generator)


def _step(network: nn.Module, images: Tensor, targets: Tensor) -> None:
    (network(images) * targets).mean().backward()


def _state(network: nn.Module) -> dict[str, Tensor]:
    gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {**gradients, **{k: v for k, v in network.state_dict().items() if "running" in k}}


def _share(process: Process, out: str) -> None:
    network = synchronise_batch_norm(_network(), process.device)
    assert list(network.state_dict()) == list(_network().state_dict())
    images, targets = (part.chunk(process.world)[process.rank] for part in _batch())
    _step(DistributedDataParallel(network, forward_sync_buffers=False), images, targets)
    if process.is_first:
        torch.save(_state(network), out)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    run_processes(_share, 2, str(tmp_path / "state.pt"))
    shared = torch.load(tmp_path / "state.pt", weights_only=True)
    network = _network()
    _step(network, *_batch())
    whole = _state(network)
    assert shared.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
