"""How losses become steps of the optimizer: what the engine asks of a strategy, and the one for plain processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mbdcnn.config import Config
from mbdcnn.networks import CoarseSN, MaskCN, place
from train.activation_checkpointing import checkpoint_activations
from train.depthwise import quicken_depthwise
from train.precision import use_bfloat16
from train.processes import Process
from train.sync_batch_norm import synchronise_batch_norm
from train.tensors import damaged, read_tensors, write_tensors

NETWORK = "network.safetensors"
OPTIMIZER = "optimizer.safetensors"


class Strategy(Protocol):
    """Turns losses into steps of the optimizer, on one process or several.

    Attributes:
        network: the plain one, on the device; with weights that are spread over processes, whole in `gathered` only.
        trained: what computes the losses in training.
    """

    network: nn.Module
    trained: nn.Module

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of a micro-batch's loss; `last` is the one that ends a step's accumulation."""

    def step(self, learning_rate: float) -> Tensor:
        """Change the weights, forget the gradients; the gradient's norm before clipping, a scalar on the device."""

    def gathered(self) -> AbstractContextManager[nn.Module]:
        """The network with its whole weights, on every process, for a block."""

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into a new folder; all processes call it."""

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, also on another number of processes.

        Raises:
            UserError: it is damaged.
        """


class DdpStrategy:
    """Every process has all the weights and averages the gradients with the others; also for a single process.

    Args:
        network: goes to the device; with several processes, its batch norm sees the samples of all.
        process: this one.
        accumulation: micro-batches a step.
        clip_norm: largest norm of the gradient, 0 for any.
        weight_decay: of AdamW, which without is Adam.
        compiled: let torch.compile build the network.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        *,
        accumulation: int = 1,
        clip_norm: float = 0.0,
        weight_decay: float = 0.0,
        compiled: bool = False,
    ) -> None:
        network = place(network, process.device)
        if process.world > 1:
            network = synchronise_batch_norm(network, process.device)
        self.network = network
        self.trained: nn.Module = network
        self._process = process
        self._accumulation, self._clip_norm = accumulation, clip_norm
        self._ddp: DistributedDataParallel | None = None
        if process.world > 1:
            ids = [process.device.index] if process.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(
                network,
                device_ids=ids,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,  # or all gradients are there twice
            )
            self.trained = self._ddp
        if compiled:
            self.trained = torch.compile(self.trained)  # type: ignore[assignment]
        groups = param_groups_weight_decay(network, weight_decay) if weight_decay else network.parameters()
        self._optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
        self._await(0)

    def _await(self, micro_batch: int) -> None:
        """Set up for the micro-batch of that number: gradients are averaged in a step's last one only."""
        self._micro_batch = micro_batch
        if self._ddp is not None:  # which reads it in the forward pass
            self._ddp.require_backward_grad_sync = micro_batch == self._accumulation - 1

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Strategy`."""
        loss.backward()
        self._await(0 if last else self._micro_batch + 1)

    def step(self, learning_rate: float) -> Tensor:
        """See `Strategy`."""
        weights = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if self._clip_norm:
            torch.nn.utils.clip_grads_with_norm_(weights, self._clip_norm, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """See `Strategy`."""
        yield self.network

    def save(self, folder: Path) -> None:
        """See `Strategy`; the first process, which has everything, writes."""
        if self._process.is_first:
            write_tensors(self.network.state_dict(), folder / NETWORK)
            state = self._optimizer.state_dict()["state"]
            write_tensors({f"{i}.{k}": t for i, s in state.items() for k, t in s.items()}, folder / OPTIMIZER)

    def load(self, folder: Path) -> None:
        """See `Strategy`."""
        try:
            self.network.load_state_dict(read_tensors(folder / NETWORK))
        except RuntimeError:
            raise damaged(folder / NETWORK) from None
        state: dict[int, dict[str, Tensor]] = {}
        try:
            weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
            for name, tensor in read_tensors(folder / OPTIMIZER).items():
                index, _, key = name.partition(".")
                if tensor.ndim == 4:  # the fused step goes through weight and state in the order of their memory
                    tensor = torch.empty_like(weights[int(index)]).copy_(tensor)
                state.setdefault(int(index), {})[key] = tensor
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        except (RuntimeError, ValueError, KeyError, IndexError):
            raise damaged(folder / OPTIMIZER) from None


def make_strategy(network: CoarseSN | MaskCN, config: Config, stage: str, process: Process) -> Strategy:
    """The strategy that the settings name, for a stage's network, which goes to the device of `process`."""
    engine = config.engine
    if process.device.type == "cpu":
        quicken_depthwise(network)
    if engine.activation_checkpointing:
        checkpoint_activations(network)
    if engine.strategy == "deepspeed":
        from train.deepspeed_strategy import DeepSpeedStrategy

        return DeepSpeedStrategy(
            network,
            process,
            zero_stage=engine.zero_stage,
            accumulation=engine.accumulation,
            clip_norm=engine.clip_norm,
            weight_decay=engine.weight_decay,
            bfloat16=use_bfloat16(config.precision, process.device),
            micro_batch=config.stage(stage).batch_size // (process.world * engine.accumulation),
        )
    return DdpStrategy(
        network,
        process,
        accumulation=engine.accumulation,
        clip_norm=engine.clip_norm,
        weight_decay=engine.weight_decay,
        compiled=engine.compile,
    )
