"""What the steps of an epoch gave: fetched from the device now and then, and never let by when it is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mbdcnn.errors import UserError
from train.processes import Process

_RATE, _NORM = "learning_rate", "gradient_norm"
_NAMED = 8  # of the files of a step that failed


class _Step(NamedTuple):
    rate: float
    values: dict[str, Tensor]
    indices: Tensor


class LossWatch:
    """The losses of an epoch's steps, averaged over the processes.

    Args:
        stage: for messages.
        epoch: counted from 1, for messages.
        history: of the epoch's steps done before; the others join it, as learning rate, losses and gradient norm.
        files: the images of some samples, by index.
        process: this one.
    """

    def __init__(
        self,
        stage: str,
        epoch: int,
        history: list[dict[str, float]],
        files: Callable[[Tensor], list[str]],
        process: Process,
    ) -> None:
        self.history = history
        self._stage, self._epoch = stage, epoch
        self._files = files
        self._process = process
        self._unseen: list[_Step] = []

    def note(self, rate: float, losses: dict[str, Tensor], norm: Tensor, indices: Tensor) -> None:
        """Take a step's learning rate, losses, gradient norm and samples, and do not wait for the device."""
        self._unseen.append(_Step(rate, {**losses, _NORM: norm}, indices))

    def look(self) -> None:
        """Fetch what was noted; all processes call it after the same steps.

        Raises:
            UserError: a loss or gradient is not finite, on all processes; its images are named.
        """
        if not self._unseen:
            return
        unseen, self._unseen = self._unseen, []
        names = list(unseen[0].values)
        own = torch.stack([torch.stack([step.values[n].float() for n in names]) for step in unseen])
        for step, values in zip(unseen, self._process.mean(own).tolist(), strict=True):
            row = dict(zip(names, values, strict=True))
            if not all(math.isfinite(value) for value in row.values()):
                raise self._failure(step, "gradient" if math.isfinite(row["loss"]) else "loss")
            self.history.append({_RATE: step.rate, **row})

    def means(self) -> dict[str, float]:
        """Of the losses, over the epoch's steps."""
        names = [name for name in self.history[0] if name not in (_RATE, _NORM)]
        return {name: sum(row[name] for row in self.history) / len(self.history) for name in names}

    def _failure(self, step: _Step, what: str) -> UserError:
        # with a loss that is no number the images of its own process, with a gradient those of all
        guilty = what != "loss" or not math.isfinite(step.values["loss"].item())
        files = self._process.gather(self._files(step.indices) if guilty else [])
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        return UserError(
            f"The {what} of stage {self._stage} is not finite at step {len(self.history) + 1} of epoch {self._epoch}, "
            f"with the images {', '.join(files[:_NAMED])}{more}; lower {self._stage}.learning_rate or mend the images: "
            "the same command goes on after the last whole checkpoint."
        )
