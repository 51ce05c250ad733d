"""The loop that trains any stage: steps, validation, early stopping, checkpoints, log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mbdcnn import runs
from mbdcnn.config import Config
from mbdcnn.networks import CoarseSN, MaskCN
from train import stopping
from train._watch import LossWatch
from train.checkpoints import Checkpoints, State
from train.ema import WeightsMean
from train.monitor import Monitor, Show
from train.pipeline import LoadedBatch
from train.precision import use_bfloat16
from train.processes import Process
from train.progress import Progress
from train.schedules import learning_rates
from train.strategy import make_strategy

# what a caller does after each epoch, with the progress and the epoch's measures; every process calls it
AfterEpoch = Callable[[Progress, dict[str, float]], None]

_STEPS_BETWEEN_LOOKS = 8  # on a GPU, which a look makes wait


class Task(Protocol):
    """What a stage teaches the engine.

    Attributes:
        network: the one that is trained.
        score: name of the validation measure that selects the best epoch; higher is better.
        steps: training batches an epoch.
    """

    network: CoarseSN | MaskCN
    score: str

    @property
    def steps(self) -> int: ...  # noqa: D102

    def batches(self, epoch: int, first: int) -> Iterator[LoadedBatch]:
        """This process's training batches, from the `first` of the epoch on."""

    def losses(self, network: nn.Module, batch: LoadedBatch) -> dict[str, Tensor]:
        """Means over the batch: `loss` is minimised, the others are its parts."""

    def validate(self, network: nn.Module, show: Show) -> dict[str, float] | None:
        """Measures of the validation set, the same on every process, and a few examples to show.

        None when asked to stop meanwhile.
        """

    def files(self, indices: Tensor) -> list[str]:
        """The images of some training samples."""


def fit(
    task: Task, name: str, config: Config, folder: Path, process: Process, after_epoch: AfterEpoch | None = None
) -> Progress:
    """Train a stage's network; the weights of the best epoch are then in its checkpoints' folder.

    Checkpoints let a second call go on where the first one stopped, with the same result to the bit: what a step does
    is a function of the settings, the weights and optimizer, and the step's number.

    Args:
        task: what to learn.
        name: of the stage, for the display.
        config: of the run; the stage's own section says how long, the precision is the forward pass's (losses and
            weights are float32).
        folder: of the stage; gets `log.jsonl` and `checkpoints/`.
        process: this one.
        after_epoch: called after each epoch, whose checkpoint is then on the disk.

    Raises:
        UserError: a loss or gradient became infinite or NaN, or the last checkpoint is damaged.
        Stopped: SIGTERM or Ctrl-C; the step was ended and a checkpoint written.
    """
    training = _Training(task, name, config, folder, process, after_epoch)
    try:
        with stopping.deferred():
            training.run()
    finally:
        training.monitor.close()
    return training.progress


class _Training:
    """One stage in training."""

    def __init__(
        self,
        task: Task,
        name: str,
        config: Config,
        folder: Path,
        process: Process,
        after_epoch: AfterEpoch | None,
    ) -> None:
        self.task, self.name, self.config, self.process = task, name, config, process
        self.after_epoch = after_epoch
        self.settings, engine = config.stage(name), config.engine
        self.strategy = make_strategy(task.network, config, name, process)
        self.mean: WeightsMean | None = None
        if engine.ema_decay:
            with self.strategy.gathered() as network:
                self.mean = WeightsMean(network, engine.ema_decay)
        self.rate = learning_rates(self.settings, engine.warmup_steps, task.steps)
        bfloat16 = use_bfloat16(config.precision, process.device)
        self.autocast = torch.autocast(process.device.type, torch.bfloat16, bfloat16)
        self.checkpoints = Checkpoints(
            folder / runs.CHECKPOINTS, self.strategy, self.mean, process, engine.keep_checkpoints
        )
        self.progress, self.history = Progress(), list[dict[str, float]]()
        self._resume()
        self.saved_at = self.clock = time.monotonic()
        self.monitor = Monitor(name, folder, config, task.steps, process, self.progress)

    def run(self) -> None:
        """Train until the last epoch, or until no better score came for too long."""
        progress, settings = self.progress, self.settings
        while not progress.is_over(settings):
            watch = LossWatch(self.name, progress.epoch + 1, self.history, self.task.files, self.process)
            self.monitor.epoch_begins(progress.epoch, progress.step)
            self._steps(watch)
            measures = self._measures()
            self._end_epoch(measures, watch.means())

    def _resume(self) -> None:
        state = self.checkpoints.resume(self.config.engine.strategy)
        if state is None:
            return
        self.progress, self.history = state.progress, state.history
        if state.processes != self.process.world and self.process.is_first:
            print(
                f"{self.name:<9}goes on with {state.processes} -> {self.process.world} processes: the batches remain, "
                "sums are rounded otherwise",
                file=sys.stderr,
            )

    @property
    def _total_steps(self) -> int:
        return self.progress.epoch * self.task.steps + self.progress.step

    def _steps(self, watch: LossWatch) -> None:
        """Train the rest of an epoch."""
        self.strategy.trained.train()
        between = 1 if self.process.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        for batch in self.task.batches(self.progress.epoch, self.progress.step):
            rate = self.rate(self._total_steps)
            losses, norm = self._step(batch, rate)
            self.progress.step += 1
            watch.note(rate, losses, norm, batch.indices)
            self.monitor.step_done(losses, len(batch.indices))
            if self.progress.step % between == 0 or self.progress.step == self.task.steps:
                watch.look()  # first: a checkpoint never holds weights that are no numbers
                self._save_if_due()

    def _step(self, batch: LoadedBatch, rate: float) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the optimizer; its losses, which averaged over the processes are the batch's, and its norm."""
        torch.manual_seed(self._seed())
        total: dict[str, Tensor] = {}
        micro_batches = batch.split(self.config.engine.accumulation)
        for number, micro_batch in enumerate(micro_batches, 1):
            with self.autocast:
                parts = self.task.losses(self.strategy.trained, micro_batch)
                losses = {name: loss * micro_batch.weight for name, loss in parts.items()}
            self.strategy.backward(losses["loss"], last=number == len(micro_batches))
            total = {name: loss.detach() + total.get(name, 0) for name, loss in losses.items()}
        norm = self.strategy.step(rate)
        if self.mean is not None:
            with self.strategy.gathered() as network:
                self.mean.update_parameters(network)
        return total, norm

    def _seed(self) -> int:
        """Make dropout a function of seed, step and process, so that a step after a resume is the same step."""
        place = [self.config.seed, self._total_steps, self.process.rank]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def _save_if_due(self) -> None:
        minutes = (time.monotonic() - self.saved_at) / 60
        late = self.process.is_first and minutes >= self.config.engine.checkpoint_minutes
        stop, due = self.process.any(stopping.requested(), late)
        if stop:
            self._stop()
        if due:
            self._save()

    def _measures(self) -> dict[str, float]:
        """Validate, in full precision as the network will serve; on the way, stop if asked to."""
        with self.strategy.gathered() as network, torch.no_grad():
            measures = self.task.validate(self._judged(network).eval(), self.monitor.pictures)
        if measures is None:
            self._stop()
        return measures

    def _judged(self, network: nn.Module) -> nn.Module:
        """The network that is validated and published: the one with the mean of the weights, where there is one."""
        return network if self.mean is None else self.mean.module

    def _end_epoch(self, measures: dict[str, float], means: dict[str, float]) -> None:
        progress = self.progress
        progress.epoch, progress.step = progress.epoch + 1, 0
        self._count_time()
        if not progress.best or measures[self.task.score] > progress.best[self.task.score]:
            progress.best_epoch, progress.best = progress.epoch, measures
            with self.strategy.gathered() as network:
                self.checkpoints.save_best(self._judged(network), progress.epoch)
        rows, self.history = self.history, []
        self.monitor.epoch_ends(progress, means, measures, rows)
        self._save()
        if self.after_epoch is not None:
            self.after_epoch(progress, measures)

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.clock = now

    def _save(self) -> None:
        self._count_time()
        strategy, world = self.config.engine.strategy, self.process.world
        self.checkpoints.save(State(self._total_steps, self.progress, self.history, strategy, world))
        self.saved_at = time.monotonic()

    def _stop(self) -> NoReturn:
        self._save()
        epoch, step = self.progress.epoch + 1, self.progress.step + 1
        place = f"step {step}" if step <= self.task.steps else "the validation"
        raise stopping.stopped(f"at {place} of epoch {epoch} of stage {self.name}")
