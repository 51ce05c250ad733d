"""Training by DeepSpeed: ZeRO spreads optimizer state (1), gradients (2) and weights (3) over the processes."""

from __future__ import annotations

import copy
import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from mbdcnn.errors import UserError
from mbdcnn.files import naming
from train import _deepspeed
from train.processes import Process, connection_was_lost
from train.sync_batch_norm import synchronise_batch_norm
from train.tensors import write_tensors

_TAG = "zero"  # DeepSpeed's sub-folder of a checkpoint
_FACTS = "facts.json"
_BUFFERS = "buffers.safetensors"
_WRITER = ("inline_container", "iostream", "PytorchStreamWriter")  # in the errors of torch.save's writer


class DeepSpeedStrategy:
    """Turns losses into steps of AdamW through a DeepSpeed engine.

    Attributes:
        network: the plain network, on the device; with ZeRO-3 its weights are whole only inside `gathered()`.
        trained: what a task calls in training.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        *,
        zero_stage: int,
        accumulation: int,
        clip_norm: float,
        weight_decay: float,
        bfloat16: bool,
        micro_batch: int,
    ) -> None:
        """Spread a network over the processes.

        Args:
            network: not yet shared in any way; its batch norms become synchronised ones.
            process: this one.
            zero_stage: 0 to 3.
            accumulation: micro-batches of an optimizer step.
            clip_norm: largest norm of a gradient; 0 does not clip.
            weight_decay: AdamW's, of all but norms and biases.
            bfloat16: whether the forward pass computes in bfloat16.
            micro_batch: images of one process in one forward pass.
        """
        self._process = process
        self._stage = zero_stage
        self._clip_norm = clip_norm
        # DeepSpeed flattens tensors in rows, so channels_last comes in with the images instead
        network = network.to(process.device).to(memory_format=torch.contiguous_format)
        network.register_forward_pre_hook(_channels_last)
        if process.world > 1:
            network = synchronise_batch_norm(network, process.device)
        self.network = network
        # ZeRO-3 leaves hooks in the network that wait for all processes: what `gathered` gives is an own, plain one
        self._plain = copy.deepcopy(network).to("meta") if zero_stage == 3 else None
        config = _deepspeed.configuration(
            zero_stage=zero_stage,
            accumulation=accumulation,
            clip_norm=clip_norm if zero_stage else 0.0,  # without ZeRO it would not tell the norm: done in `step`
            bfloat16=bfloat16,
            micro_batch=micro_batch,
        )
        self._adamw = torch.optim.AdamW(param_groups_weight_decay(network, weight_decay))
        self._engine = _deepspeed.start(process, network, self._adamw, config)
        self.trained: nn.Module = self._engine

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a micro-batch's gradients; the loss is already divided by the number of micro-batches.

        Args:
            loss: scalar, float32.
            last: whether this micro-batch ends the optimizer's step.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> Tensor:
        """Clip, step, forget the gradients.

        Returns:
            The gradient's norm before clipping, a scalar on the device.
        """
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        norm = None if self._stage else self._clip()
        self._engine.step()
        if norm is None:
            norm = torch.as_tensor(self._engine.get_global_grad_norm(), device=self._process.device)
        return norm.float()

    def _clip(self) -> Tensor:
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        if self._clip_norm:
            return nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The network with whole weights, on every process; each may call it as often as it likes.

        With ZeRO-3 it is a copy, which is let go afterwards: what is written to it is lost.
        """
        if self._plain is None:
            yield self.network
            return
        import deepspeed

        whole = copy.deepcopy(self._plain).to_empty(device=self._process.device).train(self.network.training)
        with torch.no_grad():
            for target, source in zip(whole.modules(), self.network.modules(), strict=True):
                parameters = list(source.parameters(recurse=False))
                with deepspeed.zero.GatheredParameters(parameters):  # of one module at a time: never all twice
                    for ours, theirs in zip(target.parameters(recurse=False), parameters, strict=True):
                        ours.copy_(theirs)
                for own, other in zip(target.buffers(recurse=False), source.buffers(recurse=False), strict=True):
                    own.copy_(other)
        yield whole

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into a new folder; all processes call it.

        Raises:
            OSError: a full disk, or whatever else keeps a file from being written whole.
        """
        try:
            with _deepspeed.quiet():
                self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        except RuntimeError as error:  # torch.save says neither that the system refused it nor why
            if any(word in str(error) for word in _WRITER):
                raise OSError(errno.EIO, "File not written whole", str(folder / _TAG)) from None
            raise
        if self._process.is_first:
            write_tensors(dict(self.network.named_buffers()), folder / _BUFFERS)
            facts = {"zero_stage": self._stage, "processes": self._process.world}
            with naming(folder / _FACTS):
                (folder / _FACTS).write_text(json.dumps(facts))
        self._process.barrier()

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, on any number of processes; all of them call it.

        With another number of processes ZeRO's parts are cut anew, in a folder beside this one that is removed again.

        Raises:
            UserError: the folder is damaged, or another ZeRO stage wrote it.
        """
        try:
            facts = json.loads((folder / _FACTS).read_text())
            stage, processes = int(facts["zero_stage"]), int(facts["processes"])
        except (OSError, ValueError, KeyError, TypeError):
            raise _damaged(folder) from None
        if stage != self._stage:
            raise UserError(
                f"{folder} was written with engine.zero_stage={stage}, and cannot go on with {self._stage}; "
                f"set engine.zero_stage={stage}."
            )
        try:
            if processes == self._process.world or stage == 0:
                self._read(folder)
            else:
                self._read_resharded(folder)
            buffers = load_file(folder / _BUFFERS)
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])
        except UserError:
            raise
        except Exception as error:  # what a damaged file provokes in DeepSpeed, or in torch's unpickler
            if connection_was_lost(error):
                raise
            raise _damaged(folder) from None

    def _read(self, folder: Path) -> None:
        with _deepspeed.quiet():
            path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if path is None:
            raise _damaged(folder)

    def _read_resharded(self, folder: Path) -> None:
        """By way of DeepSpeed's universal checkpoint, a folder for each parameter."""
        universal = folder.with_name(folder.name + ".universal")
        failures = [_convert(folder / _TAG, universal / _TAG)] if self._process.is_first else []
        try:
            if any(self._process.gather(failures)):
                raise _damaged(folder)
            decays = [group["weight_decay"] for group in self._adamw.param_groups]
            config: Any = self._engine._config  # its setting `checkpoint.load_universal`: not known before now
            config.load_universal_checkpoint = True
            try:
                self._read(universal)
            finally:
                config.load_universal_checkpoint = False
            # ZeRO-3 gives all groups the first one's decay, and one tensor that counts the steps of all of them
            for group, decay in zip(self._adamw.param_groups, decays, strict=True):
                group["weight_decay"] = decay
            for state in self._adamw.state.values():
                state["step"] = state["step"].clone()
            self._process.barrier()
        finally:
            if self._process.is_first:
                shutil.rmtree(universal, ignore_errors=True)


def _convert(source: Path, target: Path) -> bool:
    """Whether DeepSpeed's converter has failed."""
    shutil.rmtree(target.parent, ignore_errors=True)  # of a process that was killed
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    folders = ["--input_folder", str(source), "--output_folder", str(target)]
    return subprocess.run([*command, *folders], capture_output=True, check=False).returncode != 0


def _damaged(folder: Path) -> UserError:
    return UserError(f"{folder} is damaged; delete it to go on from the checkpoint before it, or from the start.")


def _channels_last(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lay images out as convolutions like them."""
    return tuple(
        x.contiguous(memory_format=torch.channels_last) if isinstance(x, Tensor) and x.ndim == 4 else x for x in inputs
    )
