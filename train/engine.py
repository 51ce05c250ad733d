"""The loop that trains any stage: steps, validation, early stopping, checkpoints, log."""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mbdcnn import runs
from mbdcnn.config import Config, StageConfig
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.networks import place
from train.pipeline import LoadedBatch
from train.processes import Process
from train.sync_batch_norm import synchronise_batch_norm


class Task(Protocol):
    """What a stage teaches the engine.

    Attributes:
        network: the one that is trained.
        score: name of the validation measure that selects the best epoch; higher is better.
        steps: training batches an epoch.
    """

    network: nn.Module
    score: str

    @property
    def steps(self) -> int: ...  # noqa: D102

    def batches(self, epoch: int) -> Iterator[LoadedBatch]:
        """This process's training batches."""

    def losses(self, network: nn.Module, batch: LoadedBatch) -> dict[str, Tensor]:
        """Means over the batch: `loss` is minimised, the others are its parts."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures of the validation set, the same on every process."""


@dataclass
class Progress:
    """How far a stage has come; goes into its checkpoint.

    Attributes:
        epoch: epochs done.
        best_epoch: the one with the best score, counted from 1.
        best: its measures.
        seconds: of training, over all calls.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16; `auto` asks the hardware."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def fit(task: Task, name: str, config: Config, folder: Path, process: Process) -> Progress:
    """Train a stage's network and leave it with the weights of its best epoch.

    A checkpoint after every epoch lets a second call go on where the first one stopped.

    Args:
        task: what to learn.
        name: of the stage, for the display.
        config: of the run; the stage's own section says how long, the precision is the forward pass's (losses and
            weights are float32).
        folder: of the stage; gets `log.jsonl` and `checkpoints/`.
        process: this one.

    Raises:
        UserError: the loss became infinite or NaN.
    """
    settings = config.stage(name)
    network = place(task.network, process.device)
    trained: nn.Module = network
    if process.world > 1:
        network = synchronise_batch_norm(network, process.device)
        ids = [process.device.index] if process.device.type == "cuda" else None
        trained = DistributedDataParallel(network, device_ids=ids, forward_sync_buffers=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _decay(settings, task.steps))
    checkpoints = _Checkpoints(folder / runs.CHECKPOINTS, network, optimizer, scheduler)
    progress = checkpoints.resume()
    autocast = torch.autocast(process.device.type, torch.bfloat16, use_bfloat16(config.precision, process.device))
    _forget_after(progress.epoch, folder / runs.LOG, process)

    while progress.epoch < settings.epochs and progress.epoch - progress.best_epoch < settings.patience:
        started = time.monotonic()
        _seed(config.seed, progress.epoch, process.rank)
        network.train()
        history: list[dict[str, Tensor]] = []
        rates: list[float] = []
        bar = tqdm(
            task.batches(progress.epoch),
            f"{name} {progress.epoch + 1}/{settings.epochs}",
            total=task.steps,
            leave=False,
            disable=not (process.is_first and sys.stderr.isatty()),
        )
        for batch in bar:
            with autocast:
                losses = {name: loss * batch.weight for name, loss in task.losses(trained, batch).items()}
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            rates.append(float(scheduler.get_last_lr()[0]))
            optimizer.step()
            scheduler.step()
            history.append({k: v.detach() for k, v in losses.items()})
            if not bar.disable and len(history) % 5 == 0:
                best = {f"best_{k}": v for k, v in progress.best.items() if k == task.score}
                bar.set_postfix({"loss": history[-1]["loss"].item(), **best})
        steps = _mean_history(history, process)
        if not all(abs(row["loss"]) < float("inf") for row in steps):
            raise UserError(
                f"The loss of stage {name} is not finite in epoch {progress.epoch + 1}; lower {name}.learning_rate. "
                f"The checkpoint of epoch {progress.epoch} is kept."
            )
        network.eval()
        with torch.no_grad(), autocast:
            measures = task.validate(network)
        progress.epoch += 1
        progress.seconds += time.monotonic() - started
        if not progress.best or measures[task.score] > progress.best[task.score]:
            progress.best_epoch, progress.best = progress.epoch, measures
            checkpoints.best(process)
        _log(folder, name, progress, steps, rates, measures, process)
        checkpoints.save(progress, process)
    checkpoints.restore_best()
    return progress


def _decay(settings: StageConfig, steps: int) -> Callable[[int], float]:
    if settings.schedule == "constant":
        return lambda step: 1.0
    total = settings.epochs * steps
    return lambda step: float(max(0.0, 1 - step / total) ** 0.9)


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Make dropout a function of seed, epoch and rank, so that an epoch after a resume is the same epoch."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _mean_history(history: list[dict[str, Tensor]], process: Process) -> list[dict[str, float]]:
    """Each step's losses, averaged over the processes."""
    names = list(history[0])
    table = process.mean(torch.stack([torch.stack([row[n].float() for n in names]) for row in history]))
    return [dict(zip(names, row, strict=True)) for row in table.tolist()]


def _forget_after(epoch: int, log: Path, process: Process) -> None:
    """Drop the log's lines of epochs that no checkpoint holds: they are trained again."""
    if process.is_first and log.is_file():
        kept = [line for line in log.read_text().splitlines(keepends=True) if _epoch_of(line) <= epoch]
        with replacing(log) as part:
            part.write_text("".join(kept))


def _epoch_of(line: str) -> float:
    """A log line's epoch; infinite for a line that a kill or a full disk cut short."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _log(
    folder: Path,
    name: str,
    progress: Progress,
    steps: list[dict[str, float]],
    rates: list[float],
    measures: dict[str, float],
    process: Process,
) -> None:
    """Append the epoch to log.jsonl and say it in a line."""
    if not process.is_first:
        return
    first = (progress.epoch - 1) * len(steps)
    means = {k: sum(row[k] for row in steps) / len(steps) for k in steps[0]}
    rows: list[dict[str, object]] = [
        {"stage": name, "epoch": progress.epoch, "step": first + i + 1, "learning_rate": rate, **row}
        for i, (row, rate) in enumerate(zip(steps, rates, strict=True))
    ]
    rows.append({"stage": name, "epoch": progress.epoch, **means, **measures, "seconds": round(progress.seconds, 1)})
    with (folder / runs.LOG).open("a") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)
    mark = " *" if progress.best_epoch == progress.epoch else ""
    shown = "  ".join(f"{k} {v:.4f}" for k, v in {**means, **measures}.items())
    tqdm.write(f"{name:<9}epoch {progress.epoch:>3}  {shown}  {progress.seconds:.0f} s{mark}", file=sys.stderr)


class _Checkpoints:
    """A stage's last state and best weights on disk; each file is replaced in one step, never half-written."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.last_file = folder / "last.pt"
        self.best_file = folder / "best.safetensors"
        self.network = network
        self.parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "scheduler": scheduler}

    def resume(self) -> Progress:
        """Take up the last state, or begin."""
        if not self.last_file.is_file():
            return Progress()
        try:
            state = torch.load(self.last_file, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            return Progress(**state["progress"])
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
            raise UserError(f"{self.last_file} is damaged; delete it to train this stage from its start.") from None

    def save(self, progress: Progress, process: Process) -> None:
        """Write the last state."""
        if process.is_first:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            with replacing(self.last_file) as file:
                torch.save({**state, "progress": vars(progress)}, file)
        process.barrier()

    def best(self, process: Process) -> None:
        """Write the network as the best so far."""
        if process.is_first:
            runs.save_weights(self.network, self.best_file)

    def restore_best(self) -> None:
        """Put the best weights into the network."""
        runs.load_weights(self.network, self.best_file)
