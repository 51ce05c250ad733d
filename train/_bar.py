"""A stage's bar on a terminal; elsewhere nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mbdcnn.config import StageConfig

_REFRESH = 0.5  # seconds between two looks at the losses


class Bar:
    """Shows a stage's steps with the time that is left, the last losses, the speed and the last validation."""

    def __init__(self, stage: str, settings: StageConfig, steps_per_epoch: int, done: int) -> None:
        """Show the bar, if standard error is a terminal.

        Args:
            stage: its name.
            settings: its section of the configuration.
            steps_per_epoch: steps of the optimizer.
            done: steps that earlier calls did.
        """
        self._stage, self._epochs = stage, settings.epochs
        self._bar = tqdm(
            total=settings.epochs * steps_per_epoch,
            initial=done,
            desc=stage,
            bar_format="{desc} |{bar}| {elapsed}<{remaining}{postfix}",
            smoothing=0,  # the time left includes validation: from the mean over all steps, not the last ones
            leave=False,
            disable=not sys.stderr.isatty(),
            **_size(),
        )
        self._losses, self._speed, self._validation = "", "", ""
        self._fetched: _Fetched | None = None
        self._next_look = 0.0

    def epoch_begins(self, epoch: int) -> None:
        """Name the epoch, counted from 1."""
        self._bar.set_description_str(f"{self._stage} {epoch}/{self._epochs}", refresh=False)

    def step_done(self, losses: Mapping[str, Tensor], images_per_second: float) -> None:
        """Move on; looks at the losses now and then, once the device has them."""
        if self._bar.disable:
            return
        if self._fetched is not None and (values := self._fetched.values()) is not None:
            self._losses = " ".join(f"{name} {value:.3f}" for name, value in values.items())
            self._speed = f"{images_per_second:.3g} img/s"
            self._fetched = None
            self._describe()
        if self._fetched is None and time.monotonic() >= self._next_look:
            self._fetched = _Fetched(losses)
            self._next_look = time.monotonic() + _REFRESH
        self._bar.update()

    def validated(self, measures: Mapping[str, float]) -> None:
        """Show the validation's measures from now on."""
        self._validation = " ".join(f"{name} {value:.3f}" for name, value in measures.items())
        self._describe()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()

    def _describe(self) -> None:
        shown = (self._validation, self._losses, self._speed)  # a narrow terminal cuts off the end
        self._bar.set_postfix_str("  ".join(filter(None, shown)), refresh=False)


def _size() -> dict[str, Any]:
    """What tqdm needs to know of the terminal; on one that does not tell its size it would show nothing."""
    try:
        told = all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:
        told = False
    return {"dynamic_ncols": True} if told else {"ncols": 100, "nrows": 24}


class _Fetched:
    """Scalars on their way from the device, which nothing waits for."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        self._names = list(scalars)
        stacked = torch.stack([value.detach().float() for value in scalars.values()])
        self._arrived: torch.cuda.Event | None = None
        if stacked.is_cuda:
            self._host = torch.empty(stacked.shape, pin_memory=True)
            self._host.copy_(stacked, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._host = stacked

    def values(self) -> dict[str, float] | None:
        """Name -> number, None while they are not there."""
        if self._arrived is not None and not self._arrived.query():
            return None
        return dict(zip(self._names, self._host.tolist(), strict=True))
