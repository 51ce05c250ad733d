"""The processes that a training starts itself: how they hear signals, and how the user hears of their ends."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext

from mbdcnn.errors import Stopped, UserError
from train.stopping import handling

_GRACE_S = 18.0  # for ending a step and writing a checkpoint


def run_children(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(rank, world, folder, *args)` in `world` new processes and wait for their end.

    SIGTERM and Ctrl-C, which only this process heeds, are passed on as SIGTERM. The folder is for what a process leaves
    to be told: its sentence in a file `error-RANK` or `stopped-RANK`.

    Raises:
        UserError: a process left a sentence, or was killed.
        Stopped: a signal ended the work.
    """
    with tempfile.TemporaryDirectory(prefix="mbdcnn-") as folder:
        watch = _Watch(Path(folder))
        # children inherit the blocked signal until they know what to do with it: no tracebacks of half an import
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with handling(watch.hear, signal.SIGTERM, signal.SIGINT):
                try:
                    watch.context = multiprocessing.start_processes(
                        _begin, args=(world, folder, function, *args), nprocs=world, join=False, start_method="spawn"
                    )
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                watch.wait()
        finally:
            watch.end()


def _begin(rank: int, world: int, folder: str, function: Callable[..., None], *args: Any) -> None:
    parent = os.getppid()

    def hear(number: int, frame: FrameType | None) -> None:
        # of the user's Ctrl-C the parent tells; the system sends the same signal when the parent was killed
        if os.getppid() != parent:
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    function(rank, world, folder, *args)


class _Watch:
    """What the parent does while its children work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: ProcessContext | None = None
        self.asked: int | None = None
        self.deadline = float("inf")

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on; a second Ctrl-C does not wait for the checkpoint."""
        impatient = self.asked == number == signal.SIGINT
        if self.asked is None:
            self.asked = number
            self.deadline = time.monotonic() + _GRACE_S
        if impatient:
            self.deadline = 0.0
        self._terminate()

    def wait(self) -> None:
        """Wait for all; tell how it ended."""
        assert self.context is not None
        logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of signals that it sends
        if self.asked is not None:  # while they were being started
            self._terminate()
        try:
            while not self.context.join(timeout=0.5):
                self._kill_when_late()
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as failure:
            self._explain(failure)

    def _explain(self, failure: Exception) -> None:
        # when one process fails the others lose their connection to it: its own sentence is the one that counts
        if errors := sorted(self.folder.glob("error-*")):
            rank = errors[0].name.removeprefix("error-")
            raise UserError(("" if rank == "0" else f"Process {rank}: ") + errors[0].read_text()) from None
        if reports := sorted(self.folder.glob("stopped-*")):
            raise Stopped(reports[0].read_text(), self.asked or signal.SIGTERM) from None
        if self.asked is not None:
            words = "stopped; the same command goes on after the last whole checkpoint."
            raise Stopped(words, self.asked) from None
        assert self.context is not None
        killed = [rank for rank, child in enumerate(self.context.processes) if child.exitcode == -signal.SIGKILL]
        if killed:
            raise UserError(
                f"Process {killed[0]} was killed, perhaps for want of memory; the same command goes on after the last "
                "whole checkpoint."
            ) from None
        raise failure

    def _terminate(self) -> None:
        for child in self.context.processes if self.context else ():
            child.terminate()

    def _kill_when_late(self) -> None:
        if time.monotonic() > self.deadline and self.context is not None:
            for child in self.context.processes:
                child.kill()

    def end(self) -> None:
        """Leave no process behind."""
        self._terminate()
        for child in self.context.processes if self.context else ():
            child.join(10)
            child.kill()
